"""Realistic records of searches of any size, from a seed: scores that follow values, rising curves, lost trials."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.lines import sealed_row
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.dimensions import active_params
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import StudySpec, study_to_plain
from hcpr_tune.search.storage.studies import create
from tests.search.histories import begin, epoch, job, job_end, suggested

TOTAL, CLASSES = 359, 10


def recorded(study: StudySpec, trials: int, lost: float = 0.1, running: int = 0) -> Iterator[Event]:
    """A number of trials, a share of them `lost`; the last `running` ones have just begun, and the search has not
    ended.
    """
    draws = np.random.default_rng(5)
    yield begin() | {"versions": {"python": "3.11.7", "torch": "2.14.1"}, "host": "node-7", "process": 1, "workers": 4}
    time = 1.0
    for number in range(trials):
        params = params_of(study.recipe, study.space)
        if number:
            shares = draws.random(len(study.space))
            drawn = {name: one.at(float(share)) for (name, one), share in zip(study.space.items(), shares, strict=True)}
            params = active_params(study.space, drawn)
        yield suggested(number, params, "tpe" if number else "published", time)
        if number >= trials - running:
            yield job(number, 0, study.rungs[0], time)
            continue
        if (number > 5 and draws.random() < lost) or lost >= 1:
            yield job(number, 0, study.rungs[0], time)
            reason = "the loss is not finite at epoch 2" if number % 2 else "RuntimeError: <b>no</b> & such"
            yield job_end(number, 0, study.rungs[0], "diverged" if number % 2 else "failed", reason, time + 1)
            time += 1
            continue
        reach = len(study.rungs) if number < 6 else 1 + int(draws.random() < 0.35) + int(draws.random() < 0.12)
        for event in _trained(study, number, params, study.rungs[:reach], draws):
            time += 0.5
            yield event | {"time": time}
    if not running:
        yield {"event": "end", "time": time + 1, "reason": "finished"}


def _trained(
    study: StudySpec, number: int, params: dict[str, Any], rungs: tuple[int, ...], draws: Any
) -> Iterator[Event]:
    scale = float(params.get("hcpr.scale", 8.0))
    top = 0.78 - 0.05 * abs(math.log(scale / 9)) + 0.02 * draws.standard_normal()
    start = 0
    for rung in rungs:
        yield job(number, start, rung)
        for at in range(start + 1, rung + 1):
            share = min(0.98, max(0.02, top * (1 - math.exp(-at / 6)) + 0.01 * draws.standard_normal()))
            scored = at == rung or at % 3 == 0
            event = epoch(
                number, at, round(share * TOTAL) if scored else None, TOTAL, clean=round(min(1, share + 0.18) * TOTAL)
            )
            event |= {"is_rung": at == rung, "worker": f"10.0.0.{number % 4}:{1000 + number % 4}"}
            if at == rung:
                event |= _attacked(draws, TOTAL - round(share * TOTAL))
            if at == study.rungs[-1]:
                event["masking_validation"] = {
                    "images": 100,
                    "alarms": ["50 steps break 9.0 points more than 10 (above 3)"] * (number == 3),
                }
            yield event
        inputs = {
            "channels": 1,
            "classes": CLASSES,
            "image_size": [8, 8],
            "class_names": [f"{one}" for one in range(9)] + ["<i>nine</i>"],
        }
        yield job_end(number, start, rung) | {"model_inputs": inputs, "splits": {"train": "a1", "validation": "b2"}}
        start = rung


def _attacked(draws: Any, wrong: int) -> Event:
    cells = draws.integers(0, CLASSES, size=(wrong, 2))
    counts: dict[tuple[int, int], int] = {}
    for true, attacked in ((int(a), int(b)) for a, b in cells if a != b):
        counts[true, attacked] = counts.get((true, attacked), 0) + 1
    return {
        "attacked_pairs_validation": [[*pair, count] for pair, count in sorted(counts.items())],
        "class_totals_validation": [int((cells[:, 0] == one).sum()) + 20 for one in range(CLASSES)],
    }


def history_like(study: StudySpec, trials: int, **more: Any) -> History:
    """The fold of such a record."""
    history = History(study.recipe.epochs, study.goal)
    for event in recorded(study, trials, **more):
        history.apply(event)
    return history


def written(root: Path, study: StudySpec, trials: int, **more: Any) -> StudyFolder:
    """Such a study in a folder, as a search leaves it that was killed before it wrote anything but its record."""
    folder = StudyFolder(root)
    create(folder, study)
    first, *rest = recorded(study, trials, **more)
    events = [first | {"fingerprint": study.fingerprint, "study": study_to_plain(study)}, *rest]
    folder.record.write_bytes(sealed_row(events))
    return folder
