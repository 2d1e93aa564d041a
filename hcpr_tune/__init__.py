"""Distributed hyperparameter search for self-paced hard-class pair reweighting (HCPR).

From a program or a notebook: `tune(space, ...)` runs a search, `Study.open("NAME")` opens one, `train(recipe)`
and `evaluate(model)` do what their commands do, and `load_model("NAME")` gives the model to take away.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hcpr_tune.version import VERSION

if TYPE_CHECKING:
    from hcpr_tune.api.evaluate import EvaluationResult, evaluate
    from hcpr_tune.api.recorded_study import load_model
    from hcpr_tune.api.simulate import SimulationResult, Workers
    from hcpr_tune.api.train import TrainingResult, train
    from hcpr_tune.common.settings import Settings, setting
    from hcpr_tune.errors import Diverged, HcprTuneError, InputError, Interrupted, StorageError
    from hcpr_tune.search.scheduling.stoppers import StopperSpec
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.search.suggestion.registry import SamplerSpec
    from hcpr_tune.study import Study, load, tune
    from hcpr_tune.training.data.registry import DatasetSpec
    from hcpr_tune.training.methods.registry import Batch, MethodSpec, Terms
    from hcpr_tune.training.models.registry import ArchitectureSpec, NetworkInputs
    from hcpr_tune.training.recipe import Recipe

__version__ = VERSION

__all__ = [
    "ArchitectureSpec",
    "Batch",
    "DatasetSpec",
    "Diverged",
    "EvaluationResult",
    "HcprTuneError",
    "InputError",
    "Interrupted",
    "MethodSpec",
    "NetworkInputs",
    "Recipe",
    "SamplerSpec",
    "Settings",
    "SimulationResult",
    "StopperSpec",
    "StorageError",
    "Study",
    "StudySpec",
    "Terms",
    "TrainingResult",
    "Workers",
    "__version__",
    "evaluate",
    "load",
    "load_model",
    "setting",
    "train",
    "tune",
]

_MODULES = {
    "hcpr_tune.errors": ("Diverged", "HcprTuneError", "InputError", "Interrupted", "StorageError"),
    "hcpr_tune.common.settings": ("Settings", "setting"),
    "hcpr_tune.search.scheduling.stoppers": ("StopperSpec",),
    "hcpr_tune.search.suggestion.registry": ("SamplerSpec",),
    "hcpr_tune.training.data.registry": ("DatasetSpec",),
    "hcpr_tune.training.methods.registry": ("Batch", "MethodSpec", "Terms"),
    "hcpr_tune.training.models.registry": ("ArchitectureSpec", "NetworkInputs"),
    "hcpr_tune.api.evaluate": ("EvaluationResult", "evaluate"),
    "hcpr_tune.api.simulate": ("SimulationResult", "Workers"),
    "hcpr_tune.api.train": ("TrainingResult", "train"),
    "hcpr_tune.search.spec.study": ("StudySpec",),
    "hcpr_tune.api.recorded_study": ("load_model",),
    "hcpr_tune.study": ("Study", "load", "tune"),
    "hcpr_tune.training.recipe": ("Recipe",),
}


def __getattr__(name: str) -> Any:
    """What is exported, imported when it is used: the command line answers at once."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'hcpr_tune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
