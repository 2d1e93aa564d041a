"""Warnings about a plan: what to know before trusting it."""

from __future__ import annotations

from collections.abc import Sequence

from hcpr_tune.simulation.comparison import Played
from hcpr_tune.simulation.curves.csv_curves import CsvCurves
from hcpr_tune.simulation.curves.curves import Curves
from hcpr_tune.simulation.curves.recorded import RecordedCurves

FEW = 8
"""Fewer repeats hardly show a difference: with two, Student's t is 12.7."""
BUSY = 0.8
"""A driver that is busy for at least this fraction of the time keeps workers waiting."""


def notes_of(results: Sequence[Played], curves: Curves, wanted: int) -> list[str]:
    """Warnings, most serious first."""
    notes = []
    if curves.guess:
        notes.append(
            "the learning curves are a guess: trust the plan's times and costs, but not its scores and rungs; "
            "give it real curves with --from results/OLD or --curves FILE.csv"
        )
    notes += filter(None, [_failed(results), _driver(results), _idle_workers(results)])
    if isinstance(curves, RecordedCurves):
        notes += filter(None, [_other_rungs(results, curves)])
    if isinstance(curves, CsvCurves) and not curves.knows_noise:
        notes.append(
            "the file has too few epochs to estimate the noise of a score: it is taken as 0, "
            "so that the luck in the chosen trial's score is not corrected for"
        )
    repeats = len(results[0].outcomes)
    if repeats < wanted:
        notes.append(f"there was time for only {repeats} of {wanted} repeats; --seconds gives it more")
    if repeats < FEW and len(results) > 1:
        notes.append(f"too few repeats ({repeats}) to show a difference in score: the variant was chosen by its cost")
    return notes


def _named(results: Sequence[Played], concerned: Sequence[Played]) -> str:
    """Which variants a note is about; empty if there is only one."""
    if len(concerned) == len(results):
        return "" if len(results) == 1 else " (all variants)"
    return f" ({'; '.join(one.variant.name for one in concerned)})"


def _failed(results: Sequence[Played]) -> str:
    concerned = [one for one in results if any(not outcome.reached for outcome in one.outcomes)]
    if not concerned:
        return ""
    failed = sum(not outcome.reached for one in concerned for outcome in one.outcomes)
    whole = sum(len(one.outcomes) for one in concerned)
    return (
        f"in {failed} of {whole} simulated searches no trial reached a rung; their score counts as 0"
        f"{_named(results, concerned)}"
    )


def _driver(results: Sequence[Played]) -> str:
    concerned = [one for one in results if one.estimate("driver_use").mean >= BUSY]
    if not concerned:
        return ""
    busiest = max(one.estimate("driver_use").mean for one in concerned)
    return (
        f"the driver is busy up to {100 * busiest:.0f} % of the time, and workers wait for it: use longer epochs, "
        f"fewer workers, or several studies that learn from each other (--warm-start){_named(results, concerned)}"
    )


def _idle_workers(results: Sequence[Played]) -> str:
    concerned = [one for one in results if one.variant.worker_pool.workers > one.variant.study.settings.budget.trials]
    if not concerned:
        return ""
    return f"there are more workers than trials: some workers are never used{_named(results, concerned)}"


def _other_rungs(results: Sequence[Played], curves: RecordedCurves) -> str:
    """If the rate anneals to every rung, moving a rung changes the training."""
    concerned = [
        one
        for one in results
        if one.variant.study.recipe.lr_schedule.mode == "annealed"
        and any(rungs != one.variant.study.rungs for rungs in curves.rungs)
    ]
    if not concerned:
        return ""
    recorded = " and ".join(", ".join(map(str, rungs)) for rungs in curves.rungs)
    return (
        "with lr_schedule.mode = annealed a training depends on where its rungs are, and the curves were recorded "
        f"with rungs at {recorded}: with other rungs they would be different{_named(results, concerned)}"
    )
