"""The subject of a report."""

from __future__ import annotations

from dataclasses import dataclass

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.status import state_of

ROBUST, CLEAN = "robust_accuracy_validation", "clean_accuracy_validation"


@dataclass(frozen=True)
class ReportContext:
    """The subject of a report: the study, its folder and its record so far."""

    folder: StudyFolder
    study: StudySpec
    history: History
    alive: bool = False
    """Whether a search is running."""
    program: str = "hcpr_tune"
    """The program's name in the commands that are shown."""
    written: float = 0.0

    @property
    def state(self) -> str:
        """One of `status.STATES`."""
        return "running" if self.alive else state_of(self.study, self.history, None)

    def state_of(self, trial: Trial) -> str:
        """A trial's state; without a running search no trial is running."""
        return trial.state if self.alive or trial.state != "running" else "interrupted"

    @property
    def name(self) -> str:
        return self.folder.root.name
