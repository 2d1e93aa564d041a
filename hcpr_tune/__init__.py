"""Distributed hyperparameter search for self-paced hard-class pair reweighting (HCPR).

From a program or a notebook: `hcpr_tune.tune(space, ...)` runs a search, `hcpr_tune.load("results/NAME")` opens one,
and `hcpr_tune.load_model("results/NAME/verdict")` gives the model to take away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hcpr_tune.version import VERSION

if TYPE_CHECKING:
    from hcpr_tune.study import Study, load, load_model, tune

__version__ = VERSION

__all__ = ["Study", "__version__", "load", "load_model", "tune"]


def __getattr__(name: str) -> Any:
    """What is exported, imported when it is used: the command line answers at once."""
    if name not in __all__:
        raise AttributeError(f"module 'hcpr_tune' has no attribute {name!r}")
    from hcpr_tune import study

    return getattr(study, name)
