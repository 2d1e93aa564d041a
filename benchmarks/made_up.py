"""Records of searches that never ran, for what costs time in a driver: made-up scores, real shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hcpr_tune.search.spec.dimensions import Dimension, Params, active_params
from hcpr_tune.search.spec.study import StudySpec, study_to_plain

Plain = dict[str, Any]


def params_at(space: dict[str, Dimension], shares: Iterable[float]) -> Params:
    """The point at these shares, 0 to below 1, of the dimensions."""
    values = {name: dimension.at(float(share)) for (name, dimension), share in zip(space.items(), shares, strict=True)}
    return active_params(space, values)


def made_up(study: StudySpec, count: int) -> Iterator[Plain]:
    """A record of `count` trials that ended at the first rung, one in three at the second, one in nine at the last."""
    draws = np.random.default_rng(0)
    begin = {"event": "begin", "time": 0.0, "versions": {}, "workers": 2, "fingerprint": study.fingerprint}
    yield begin | {"study": study_to_plain(study)}
    for number in range(count):
        params = params_at(study.space, draws.random(len(study.space)))
        source = "published" if number == 0 else "calibration" if number < 6 else "tpe"
        yield {"event": "trial", "time": float(number), "trial": number, "params": params, "source": source}
        reach = study.rungs[: 1 + (number % 3 == 0) + (number % 9 == 0)]
        for start, end in itertools.pairwise((0, *reach)):
            place = {"trial": number, "start": start, "end": end, "time": float(number)}
            yield {"event": "job", **place}
            for epoch in range(start + 1, end + 1):
                yield {
                    "event": "epoch",
                    "time": float(number),
                    "trial": number,
                    **made_up_epoch(epoch, epoch == end, draws),
                }
            yield {"event": "job_end", **place, "status": "reached", "reason": ""}


def made_up_epoch(epoch: int, is_rung: bool, draws: np.random.Generator) -> Plain:
    names = ("loss", "classification_loss", "consistency_loss", "lr", "pace", "consistency_factor")
    seconds = ("attack", "update", "evaluation", "startup", "checkpoint")
    counts = {
        "robust_correct_validation": int(draws.integers(200, 300)),
        "clean_correct_validation": 340,
        "total_validation": 359,
    }
    return {
        "epoch": epoch,
        "is_rung": is_rung,
        **dict.fromkeys(names, 1.0),
        "attack_steps": 1,
        "images": 1000,
        **{f"seconds_{name}": 0.1 for name in seconds},
        "device": "cpu",
        **(counts if is_rung else {}),
    }
