"""The course of one trial, from the lines of the record that are about it: each job and why it ended, with reasons."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.lines import read_line
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.wording import percent

SOURCES = {
    "published": "the published recipe, which every search tries first",
    "first point": "one of the points that the space names",
    "warm start": "a good point of an earlier study",
    "calibration": "spread evenly over the space, and trained to the end to measure what the rungs are worth",
    "enqueued": "asked for by hand",
    "prior": "drawn near the values that the space expects to be good",
    "replicate": "trained again on another seed",
}


class Step(NamedTuple):
    """Something that happened to a trial."""

    when: str
    what: str
    more: str = ""
    """A traceback."""


def course_of(stored: StoredStudy, trial: Trial) -> list[Step]:
    """What happened to the trial, in order of time."""
    return [
        Step(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"])), what, event.get("traceback", ""))
        for event in events_of(stored.folder.record, trial.number)
        for what in _words(stored.spec, stored.history, trial, event)
    ]


def events_of(record: Path, number: int) -> Iterator[dict[str, Any]]:
    """The events of one trial in a record file; only their lines are parsed."""
    marks = tuple(f'"trial": {number}{end}'.encode() for end in ",}")
    try:
        lines = record.read_bytes().split(b"\n")[:-1]
    except OSError:
        return
    for line in lines:
        if any(mark in line for mark in marks):
            try:
                event = read_line(line).event
            except ValueError:
                continue
            if event.get("trial") == number and "time" in event:
                yield event


def _words(study: StudySpec, history: History, trial: Trial, event: dict[str, Any]) -> Iterator[str]:
    kind = event["event"]
    if kind == "trial":
        if trial.replicate_of is not None:
            yield f"suggested: the recipe of trial {trial.replicate_of} again, on seed {trial.seed}"
        else:
            yield f"suggested: {SOURCES.get(trial.source, f'by the sampler {trial.source}')}"
    elif kind == "job":
        begins = "from scratch" if event["start"] == 0 else f"from its checkpoint of epoch {event['start']}"
        yield f"training to epoch {event['end']} began, {begins}"
    elif kind == "epoch" and event["is_rung"]:
        yield f"reached epoch {event['epoch']}: {at_rung(study, history, trial, event['epoch'])}"
    elif kind == "kill":
        yield "asked to end by hand"
    elif kind == "choice":
        yield "chosen as the answer of the search"
    elif kind == "loss":
        yield f"lost and repeated: {event['what']}"
    elif kind == "job_end" and event["status"] != "reached":
        yield f"{event['status']}: {event['reason'] or 'no reason was given'}"


def at_rung(study: StudySpec, history: History, trial: Trial, rung: int) -> str:
    """The score at a rung, its rank among the scores there so far, and what follows from it."""
    score = trial.rungs.get(rung)
    if score is None:
        return "its score was recorded again later"
    others = [history.trials[number] for number in history.scored_at.get(rung, ())]
    others = [one for one in others if one.replicate_of is None]
    rank = 1 + sum(one.rungs[rung] > score for one in others)
    words = f"{percent(score)} robust accuracy"
    if trial.replicate_of is None:
        words += f", rank {rank} of the {len(others)} with a score there"
    if rung == history.last_epoch:
        return f"{words}; this is the last epoch"
    if any(later > rung for later in trial.rungs) or trial.target > rung:
        return f"{words}; promoted"
    if trial.state == "stopped":
        share = study.settings.early_stopping.reduction_factor
        return f"{words}; stopped: the best 1 in {share:g} are promoted, and it may still be while the search runs"
    return words
