"""What is to be known of a plan before one trusts it."""

from __future__ import annotations

from collections.abc import Sequence

from hcpr_tune.planning.comparison import Played
from hcpr_tune.planning.curves import Curves
from hcpr_tune.planning.recorded import RecordedCurves

BUSY = 0.8
"""A driver that is busy for so much of the time keeps workers waiting."""


def notes_of(results: Sequence[Played], curves: Curves, wanted: int) -> list[str]:
    """Warnings, the gravest first."""
    notes = []
    if curves.guess:
        notes.append(
            "the learning curves are a guess: believe what it says of time and cost, not of scores and rungs; --from results/OLD or --curves FILE.csv gives real ones"
        )
    notes += [note for one in results if (note := _driver_note(one))]
    notes += [note for one in results if (note := _workers_note(one))]
    if isinstance(curves, RecordedCurves):
        notes += _rung_notes(results, curves)
    repeats = len(results[0].outcomes)
    if repeats == 1:
        notes.append("it was played once: nothing is known of the spread; --seconds gives it more time")
    elif repeats < wanted:
        notes.append(f"there was time for {repeats} of {wanted} repeats; --seconds gives it more")
    return notes


def _driver_note(one: Played) -> str:
    busy = one.estimate("driver_use").mean
    if busy < BUSY:
        return ""
    return (
        f"{one.variant.name}: the driver is busy {100 * busy:.0f} % of the time, and workers wait for it; longer epochs, fewer workers,"
        " or several studies that learn from each other (--warm-start)"
    )


def _workers_note(one: Played) -> str:
    workers, trials = one.variant.fleet.workers, one.variant.study.settings.budget.trials
    if workers <= trials:
        return ""
    return f"{one.variant.name}: {workers} workers for {trials} trials; the others never have work"


def _rung_notes(results: Sequence[Played], curves: RecordedCurves) -> list[str]:
    """Where the rate anneals to every rung, a rung that moves changes the training."""
    others = [
        one.variant.name
        for one in results
        if one.variant.study.recipe.lr_schedule.mode == "annealed" and one.variant.study.rungs not in curves.rungs
    ]
    if not others:
        return []
    recorded = " or ".join(", ".join(map(str, rungs)) for rungs in curves.rungs)
    return [
        f"{'; '.join(others)}: lr_schedule.mode = annealed trains towards each rung, and the curves were recorded with rungs at {recorded}; with others they would be different"
    ]
