"""What a verdict's worker runs: train a model as a search does, or attack one on a chunk of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.files import node_folder
from hcpr_tune.common.text import first_line
from hcpr_tune.execution.trainable import TrainJob

if TYPE_CHECKING:
    from torch import nn

    from hcpr_tune.training.data.dataset import Data, Split
    from hcpr_tune.training.recipe import Recipe

DAMAGED = "weights damaged"
"""The status of a job whose model's weights are damaged: the model is trained again."""


class VerdictJob(TrainJob):
    """Runs one job at a time. The configuration is {"job": JSON}, with the keys that `VerdictAdapter` writes."""

    def _train(self) -> Iterator[dict[str, Any]]:
        if self._job["kind"] == "train":
            yield from super()._train()
            return
        from hcpr_tune.errors import StorageError

        try:
            yield from self._attack() if self._job["kind"] == "attack" else self._look()
        except DamagedWeights as error:
            yield {"status": DAMAGED, "reason": first_line(error), "training": error.training, "of_epoch": error.epoch}
        except OSError as error:
            raise StorageError(
                f"the models to attack cannot be read: {first_line(error)}; fix that, and run it again"
            ) from error

    def _ready(self) -> tuple[Recipe, Data]:
        """The recipe, and the data on the job's device."""
        from hcpr_tune.training import gpu_memory
        from hcpr_tune.training.recipe import recipe_from_plain
        from hcpr_tune.training.session import DataShelf

        job = self._job
        self._shelf = self._shelf or DataShelf(on_gpu=job["gpus"] > 0, cache=node_folder())
        gpu_memory.claim(self._shelf.device, job["gpus"])
        recipe = recipe_from_plain(job["recipe"], "the job's recipe")
        return recipe, self._shelf.get(recipe.task)

    def _attack(self) -> Iterator[dict[str, Any]]:
        """One report per attack of the cascade, continuing from where an earlier attempt stopped."""
        from ray.util import get_node_ip_address

        from hcpr_tune.training.attacks.cascade import CascadeConfig, Step, run_cascade
        from hcpr_tune.training.attacks.evaluation import scored_positions
        from hcpr_tune.training.session import model_inputs

        job = self._job
        recipe, data = self._ready()
        split = self._split(recipe, data)
        model = self._model(recipe, data, job["training"], job["epoch"])
        positions = scored_positions(split, replace(recipe.evaluation, images=job["images"]))
        chunk = positions.split(job["chunk_size"])[job["chunk"]]
        images, labels = split.fetch(chunk), split.labels[chunk.to(split.labels.device)]
        begun = None if job["begun"] is None else Step(job["begun"]["attack"], tuple(job["begun"]["classes"]))
        config = CascadeConfig(data.classes, recipe.evaluation.seed, job["cascade"])
        steps = run_cascade(model, images, labels, recipe.task.threat, config, begun)
        # The number of threads affects results; it is the same for training and evaluation.
        for step in threaded(steps, recipe.threads):
            yield {
                "status": "training",
                **asdict(step),
                "labels": labels.tolist(),
                "total": len(positions),
                "of_classes": data.classes,
                "worker": f"{get_node_ip_address()}:{os.getpid()}",
            }
        yield {"status": "reached", "reason": "", "model_inputs": model_inputs(data)}

    def _split(self, recipe: Recipe, data: Data) -> Split:
        if self._job["split"] != "test":
            return data.validation
        from hcpr_tune.training.data.heldout import open_test

        return open_test(recipe.task).to(data.validation.labels.device)

    def _look(self) -> Iterator[dict[str, Any]]:
        """Attack this model with adversarial examples transferred from a baseline's model, and check for masking."""
        import torch

        from hcpr_tune.training.attacks.cascade import CascadeConfig, transfer
        from hcpr_tune.training.attacks.evaluation import masking, scored_positions
        from hcpr_tune.training.loop import torch_threads

        job = self._job
        recipe, data = self._ready()
        model = self._model(recipe, data, job["training"], job["epoch"])
        found: dict[str, Any] = {"masking": None}
        with torch_threads(recipe.threads):
            if job["with_masking"]:
                counted = masking(model, data.validation, recipe.task, recipe.evaluation)
                found["masking"] = asdict(counted) | {"alarms": list(counted.alarms)}
            if job["baseline"] is not None:
                from hcpr_tune.training.recipe import recipe_from_plain

                of_baseline = recipe_from_plain(job["baseline"]["recipe"], "the baseline's recipe")
                other = self._model(of_baseline, data, job["baseline"]["training"], job["baseline"]["epoch"])
                positions = scored_positions(data.validation, replace(recipe.evaluation, images=job["images"]))
                chunk = positions.split(job["chunk_size"])[0]
                labels = data.validation.labels[chunk.to(data.validation.labels.device)]
                left = torch.tensor(job["survive"], device=labels.device)
                images = data.validation.fetch(chunk)
                config = CascadeConfig(data.classes, recipe.evaluation.seed)
                broken = transfer(model, other, images[left], labels[left], recipe.task.threat, config)
                found |= {"broken": broken, "images": len(chunk)}
        yield {"status": "reached", "reason": "", "look": {"broken": 0, "images": 0} | found}

    def _model(self, recipe: Recipe, data: Data, training: str, epoch: int) -> nn.Module:
        """The model with a rung's weights, in eval mode on the job's device. Raises `DamagedWeights`."""
        from hcpr_tune.search.storage.checkpoint_store import store_at
        from hcpr_tune.training.models.classifier import build_model, load_weights

        assert self._shelf is not None
        model = build_model(recipe.network, data.channels, data.classes, 0, data.image_size)
        with TemporaryDirectory(prefix="hcpr_tune_") as scratch:
            path = Path(scratch) / f"{os.getpid()}.safetensors"
            wrong = store_at(self._job["store"]).copy_weights(training, epoch, path)
            if wrong:
                raise DamagedWeights(training, epoch, wrong)
            load_weights(model, path)
        return model.to(self._shelf.device).eval().requires_grad_(False)


class DamagedWeights(Exception):
    """Stored weights are missing, or do not match what was written."""

    def __init__(self, training: str, epoch: int, wrong: str) -> None:
        super().__init__(f"{training}, epoch {epoch}: {wrong}")
        self.training, self.epoch = training, epoch


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
