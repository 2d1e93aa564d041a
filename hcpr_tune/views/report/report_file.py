"""Write the report at the end of a search. plotly is imported only then."""

from __future__ import annotations

from hcpr_tune.common.text import named
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.next_commands import about


class ReportFile:
    """A listener that writes the report when a search has finished; an interrupted one must not wait for it."""

    def __init__(self, folder: StudyFolder, study: StudySpec, program: str) -> None:
        """`program`: the program's name in the commands that the report shows."""
        self._folder, self._study, self._program = folder, study, program
        self.words = f"{about('report', folder, program=program)} writes one page about it"
        """The report's path, or how to get one."""

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] != "end" or event["reason"] != "finished":
            return
        from hcpr_tune.views.report.report import write_report

        try:
            self.words = str(write_report(StoredStudy(self._folder, self._study, history), program=self._program))
        except Exception as error:  # a failed report must not fail the search
            self.words = f"could not be drawn ({named(error)})"

    def close(self) -> None:
        pass
