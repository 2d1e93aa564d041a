"""What a verdict's worker runs: train a model as a search does, or attack one on a chunk of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from hcpr_tune.common.text import first_line
from hcpr_tune.execution.trainable import TrainJob
from hcpr_tune.search.scheduling.orders import (
    DAMAGED,
    REACHED,
    AttackOrder,
    ChecksOrder,
    ChecksReport,
    Masking,
    Order,
    Report,
    Weights,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hcpr_tune.training.data.dataset import Data, Split
    from hcpr_tune.training.recipe import Recipe


class VerdictJob(TrainJob):
    """Trains models as a search does, attacks them and checks them."""

    def _carry_out(self, order: Order) -> Iterator[Report]:
        if order["kind"] == "train":
            yield from self._train(order)
            return
        from hcpr_tune.errors import StorageError

        try:
            yield from self._attack(order) if order["kind"] == "attack" else self._run_checks(order)
        except DamagedWeights as error:
            yield {"end": {"status": DAMAGED, "reason": first_line(error), "damaged": error.weights}}
        except OSError as error:
            raise StorageError(
                f"the models to attack cannot be read: {first_line(error)}; fix that, and run it again"
            ) from error

    def _attack(self, order: AttackOrder) -> Iterator[Report]:
        """One report per attack of the cascade, continuing from where an earlier attempt stopped."""
        from ray.util import get_node_ip_address

        from hcpr_tune.training.attacks.cascade import CascadeConfig, Step, run_cascade
        from hcpr_tune.training.attacks.evaluation import chunk_of, scored_positions
        from hcpr_tune.training.session import model_inputs

        recipe, shelf = self._ready(order)
        data = shelf.get(recipe.task)
        split = _split(order["split"], recipe, data)
        model = _model(order["store"], order["weights"], recipe, data, shelf.device)
        positions = scored_positions(split, replace(recipe.evaluation, images=order["images"]))
        chunk = chunk_of(positions, order["chunk_size"], order["chunk"])
        images, labels = split.fetch(chunk), split.labels[chunk.to(split.labels.device)]
        begun = None if order["begun"] is None else Step(order["begun"]["attack"], tuple(order["begun"]["classes"]))
        config = CascadeConfig(data.classes, recipe.evaluation.seed, order["cascade"], recipe.evaluation.precision)
        steps = run_cascade(model, images, labels, recipe.task.threat, config, begun)
        # The number of threads affects results; it is the same for training and evaluation.
        for step in threaded(steps, recipe.threads):
            yield {
                "attack": {
                    "attack": step.attack,
                    "classes": list(step.classes),
                    "warnings": list(step.warnings),
                    "labels": labels.tolist(),
                    "total": len(positions),
                    "of_classes": data.classes,
                    "worker": f"{get_node_ip_address()}:{os.getpid()}",
                }
            }
        yield {"end": {"status": REACHED, "reason": "", "model_inputs": model_inputs(data)}}

    def _run_checks(self, order: ChecksOrder) -> Iterator[Report]:
        """Attack this model with adversarial examples transferred from a baseline's model, and check for masking."""
        import torch

        from hcpr_tune.training.attacks.cascade import CascadeConfig, transfer
        from hcpr_tune.training.attacks.evaluation import chunk_of, masking, scored_positions
        from hcpr_tune.training.loop import torch_threads
        from hcpr_tune.training.recipe import recipe_from_plain

        recipe, shelf = self._ready(order)
        data = shelf.get(recipe.task)
        model = _model(order["store"], order["weights"], recipe, data, shelf.device)
        found: ChecksReport = {"broken": 0, "images": 0, "masking": None}
        with torch_threads(recipe.threads):
            if order["with_masking"]:
                counted = masking(model, data.validation, recipe.task, recipe.evaluation)
                found["masking"] = cast(Masking, asdict(counted) | {"alarms": list(counted.alarms)})
            if order["baseline"] is not None:
                of_baseline = recipe_from_plain(order["baseline"]["recipe"], "the baseline's recipe")
                other = _model(order["store"], order["baseline"]["weights"], of_baseline, data, shelf.device)
                positions = scored_positions(data.validation, replace(recipe.evaluation, images=order["images"]))
                chunk = chunk_of(positions, order["chunk_size"], 0)
                labels = data.validation.labels[chunk.to(data.validation.labels.device)]
                left = torch.tensor(order["survive"], device=labels.device)
                images = data.validation.fetch(chunk)
                config = CascadeConfig(data.classes, recipe.evaluation.seed, precision=recipe.evaluation.precision)
                found["broken"] = transfer(model, other, images[left], labels[left], recipe.task.threat, config)
                found["images"] = len(chunk)
        yield {"checks": found, "end": {"status": REACHED, "reason": ""}}


def _split(name: str, recipe: Recipe, data: Data) -> Split:
    if name != "test":
        return data.validation
    from hcpr_tune.training.data.heldout import open_test

    return open_test(recipe.task, data.validation.labels.device)


def _model(store: str, weights: Weights, recipe: Recipe, data: Data, device: torch.device) -> nn.Module:
    """The model with a rung's weights, in eval mode on the job's device. Raises `DamagedWeights`."""
    from hcpr_tune.search.storage.checkpoint_store import store_at
    from hcpr_tune.training.models.classifier import build_model, load_weights

    model = build_model(recipe.network, data.channels, data.classes, 0, data.image_size)
    with TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        path = Path(scratch) / f"{os.getpid()}.safetensors"
        wrong = store_at(store).copy_weights(weights["training"], weights["epoch"], path)
        if wrong:
            raise DamagedWeights(weights, wrong)
        load_weights(model, path)
    return model.to(device).eval().requires_grad_(False)


class DamagedWeights(Exception):
    """Stored weights are missing, or do not match what was written."""

    def __init__(self, weights: Weights, wrong: str) -> None:
        super().__init__(f"{weights['training']}, epoch {weights['epoch']}: {wrong}")
        self.weights = weights


def threaded(steps: Iterator[Any], threads: int) -> Iterator[Any]:
    """Produce each item with `threads` torch threads; between items the number is as before."""
    from hcpr_tune.training.loop import torch_threads

    while True:
        with torch_threads(threads):
            try:
                item = next(steps)
            except StopIteration:
                return
        yield item
