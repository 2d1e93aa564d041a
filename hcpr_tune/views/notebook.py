"""A search in a notebook: a progress bar below the cell that runs it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from typing import Any

from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.record import Listener
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.search_progress import SearchProgress
from hcpr_tune.views.status import counts, done
from hcpr_tune.views.summary import gain_points
from hcpr_tune.views.terminal.console import print_notes
from hcpr_tune.views.wording import percent

REDRAWN_SECONDS = 0.5
"""Between two drawings of the bar, but for those at the end of a job."""


class NotebookProgress(SearchProgress):
    """Shows a search as a bar of its trials, and says what comes after it."""

    def notes(self, notes: Iterable[str]) -> None:
        print_notes(notes)

    def listeners(self, study: StoredStudy) -> list[Listener]:
        return [TrialBar(study.spec, study.history)]

    def message(self, line: str) -> None:
        bars().write(line)


class TrialBar:
    """A listener that shows how many trials have ended, and the best one so far."""

    def __init__(self, study: StudySpec, history: History) -> None:
        self._study, self._drawn = study, 0.0
        # Replicates too, which begin when all else has ended: full means that nothing is left.
        self._total = study.settings.budget.trials + study.asha_config.replicates
        self._bar = bars()(total=self._total, unit="trial", initial=self._ended(history), dynamic_ncols=True)
        self._draw(history)

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] == "end" and event["reason"] == "finished":
            self._bar.total = self._bar.n = max(1, len(history.trials))
            self._draw(history)
        elif event["event"] in ("job_end", "choice") or time.monotonic() - self._drawn > REDRAWN_SECONDS:
            self._bar.n = self._ended(history)
            self._draw(history)

    def close(self) -> None:
        self._bar.close()

    def _ended(self, history: History) -> int:
        """The trials that have ended; one less than all, as long as the search has not."""
        return max(0, min(done(counts(self._study, history)), self._total - 1))

    def _draw(self, history: History) -> None:
        best, gain = history.best_trial, gain_points(history)
        words = [f"{sum(len(trial.epochs) for trial in history.trials.values())} epochs"]
        if best is not None and best.score is not None:
            words.append(f"best {percent(best.score)} (trial {best.number})")
        if gain is not None:
            words.append(f"gain {gain:+.1f} points")
        self._bar.set_postfix_str(", ".join(words), refresh=False)
        self._bar.refresh()
        self._drawn = time.monotonic()


def bars() -> Any:
    """tqdm's bar: a widget where there are such, else a line of text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a widget would look better
        from tqdm.auto import tqdm
    return tqdm
