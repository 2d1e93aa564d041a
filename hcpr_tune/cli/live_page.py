"""`hcpr_tune tune --watch`: the live page in a process of its own, as long as the search runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hcpr_tune.views.next_commands import storage_of_folder
from hcpr_tune.views.search_progress import Phase, SearchProgress, SearchStart

if TYPE_CHECKING:
    from hcpr_tune.search.record.record import Listener
    from hcpr_tune.search.record.results import StoredStudy

END_SECONDS = 5.0


class LivePage(SearchProgress):
    """Passes everything on to another progress, and serves the page once the study is begun."""

    def __init__(self, progress: SearchProgress) -> None:
        self._progress = progress
        self._process: subprocess.Popen[str] | None = None
        self._over = False

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *_: object) -> None:
        """End the page."""
        self._over = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def notes(self, notes: Iterable[str]) -> None:
        self._progress.notes(notes)

    def phase(self, phase: Phase) -> None:
        self._progress.phase(phase)

    def planned(self, study: StoredStudy) -> None:
        self._progress.planned(study)

    def started(self, study: StoredStudy, start: SearchStart) -> None:
        self._progress.started(study, start)

    def close(self) -> None:
        self._progress.close()

    def listeners(self, study: StoredStudy) -> list[Listener]:
        """The study has been begun by now."""
        if self._process is None:
            self._serve(study)
        return self._progress.listeners(study)

    def message(self, line: str) -> None:
        self._progress.message(line)

    def verdict_event(self, event: dict[str, Any]) -> None:
        self._progress.verdict_event(event)

    def _serve(self, study: StoredStudy) -> None:
        words = ["watch", study.name, f"--storage={storage_of_folder(study.folder)}", "--until-stdin-closes"]
        # In a session of its own: Ctrl-C in the terminal is for the search, which then ends the page. If the search is
        # killed, the page ends with the pipe.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hcpr_tune", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._tell, args=(self._process,), daemon=True).start()

    def _tell(self, process: subprocess.Popen[str]) -> None:
        """Pass on the page's address, which takes a few seconds."""
        assert process.stdout is not None
        last, served = "", False
        for line in process.stdout:
            last = line.rstrip() or last
            served = served or line.startswith("live page")
            if line.startswith(("live page", "port ")):
                self._progress.message(last)
        if not served and not self._over:
            self._progress.message(f"the live page could not be served: {last}")
