"""A model that was trained elsewhere: its weights become a checkpoint of the verdict, evaluated like the others."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.paths import is_file
from hcpr_tune.common.text import first_line
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training import manifest
from hcpr_tune.training.methods.registry import METHODS
from hcpr_tune.training.recipe import Recipe
from hcpr_tune.verdict.driver import training_name
from hcpr_tune.verdict.plan import Candidate, Model, changed

if TYPE_CHECKING:
    from torch import nn

NESTED = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which files of other projects hold the weights."""
MOST_LISTED = 20
"""At most this many classes are listed in a message."""
PREFIX = "module."
"""torch's DataParallel puts this before each name."""


def given_candidate(
    study: StudySpec,
    path: Path,
    architecture: str,
    values: Sequence[tuple[str, Any]],
    scratch: Path,
    classes: Sequence[str] = (),
    say: Callable[[str], None] = lambda words: None,
) -> tuple[Candidate, Path]:
    """The candidate, and its weights as safetensors in `scratch`.

    `classes`: the model's classes in the order of its outputs, if that is not the task's order. The weights do not
    contain it, so `say` gets the order that is assumed.
    Raises `InputError` if the file or the architecture does not fit the task.
    """
    from hcpr_tune.training.data.dataset import load_data
    from hcpr_tune.training.models.classifier import build_model, load_weights

    if not is_file(path, f"--model {path}"):
        raise InputError(
            f"--model {path}: there is no such file; give the weights, .safetensors or a state dict of torch"
        )
    settings = [("model.name", architecture), ("model.head", "linear"), *values]
    spec = METHODS.get(str(dict(settings).get("method", study.recipe.method)))
    if dict(settings)["model.head"] == "linear" and (spec is None or spec.needs_cosine_head):
        # The study's method does not allow this head; only the recipe's network and evaluation are used.
        settings.append(("method", "pgd_at"))
    recipe: Recipe = changed(study.recipe, settings, f"--arch {architecture}")
    data = load_data(recipe.task)
    model = build_model(recipe.network, data.channels, data.classes, 0, data.image_size)
    weights = scratch / "model.safetensors"
    weights.write_bytes(_as_safetensors(path))
    try:
        load_weights(model, weights)
    except InputError as error:
        reason = str(error).replace(str(weights), f"--model {path}").partition(";")[0]
        raise InputError(
            f"{reason}; give the --arch that it was trained with, and --set model.head=cosine or other fields of it"
        ) from None
    if not any(name == "model.head" for name, _ in values) and _has_unit_rows(model):
        # Linear and cosine heads have the same tensors, and with the wrong head the numbers would be meaningless.
        raise InputError(
            f"--model {path} has a head with rows of length 1, as cosine heads do; say which it is by"
            " --set model.head=cosine or model.head=linear"
        )
    if classes:
        weights.write_bytes(_in_order(model, classes, data.class_names))
    else:
        say(
            f"classes      the model's outputs are taken in this order: {_listed(data.class_names)};"
            " use --classes for another one"
        )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Candidate(f"model {path.stem}", "compared", recipe, weights=digest), weights


def _as_safetensors(path: Path) -> bytes:
    """The file's weights as safetensors. Nothing in it is executed."""
    import torch
    from safetensors.torch import load, save

    try:
        if path.suffix == ".safetensors":
            loaded: Any = load(path.read_bytes())
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"--model {path} cannot be read as weights alone: {first_line(error)[:200]}; save model.state_dict(),"
            " or safetensors"
        ) from None
    for key in NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(map(_is_weight, loaded.items())):
        raise InputError(
            f"--model {path} is not a state dict (tensors by name); save model.state_dict(), or safetensors"
        )
    # Copies, as safetensors refuses tensors that share memory, such as tied weights and views.
    return save({name.removeprefix(PREFIX): tensor.clone().contiguous() for name, tensor in loaded.items()})


def _in_order(model: nn.Module, given: Sequence[str], wanted: Sequence[str]) -> bytes:
    """The weights of the model with its outputs reordered from `given` to `wanted`. Raises `InputError`."""
    from safetensors.torch import save

    from hcpr_tune.training.models.classifier import head_parameters

    if sorted(given) != sorted(wanted):
        wrong = sorted(set(given) ^ set(wanted)) or [name for name in wanted if list(given).count(name) > 1]
        raise InputError(
            f"--classes must name each class of the task once, {_listed(wanted)}; look at {_listed(wrong)}, in the"
            " order of the model's outputs"
        )
    order = [list(given).index(name) for name in wanted]
    last = list(head_parameters(model))
    if not last or any(len(one) != len(wanted) for one in last):
        raise InputError(
            "--classes: the last layer of this --arch cannot be reordered; order its outputs before you save it"
        )
    for one in last:
        one.data = one.data[order].clone()
    return save({name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()})


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > MOST_LISTED else ""
    return ", ".join(" ".join(name.split()) for name in names[:MOST_LISTED]) + more


def _has_unit_rows(model: nn.Module) -> bool:
    import torch

    rows = model.state_dict().get("head.weight")
    if rows is None:
        return False
    lengths = torch.linalg.vector_norm(rows.float(), dim=1)
    return torch.allclose(lengths, torch.ones_like(lengths), rtol=0, atol=1e-4)


def _is_weight(item: tuple[Any, Any]) -> bool:
    import torch

    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def keep(own: StudyFolder, model: Model, epoch: int, weights: Path) -> None:
    """Store the weights like a training's checkpoint, where workers look for it; `epoch` 0 for an external model."""
    training = training_name(model.id)
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        folder = Path(scratch) / f"epoch_{epoch:04d}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights.read_bytes())
        manifest.write(folder)
        if own.bucket is not None:
            there = own.bucket.child("checkpoints").child(training)
            for path in sorted(folder.iterdir(), key=lambda path: path.name == manifest.NAME):
                there.upload(path, f"{folder.name}/{path.name}")
            return
        target = own.checkpoints / training / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == manifest.NAME):
            (target / path.name).write_bytes(path.read_bytes())
