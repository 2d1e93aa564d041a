"""What a search or a verdict reports while it runs, to whoever started it: a terminal, a program, a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hcpr_tune.search.record.record import Listener
    from hcpr_tune.search.record.results import StoredStudy


@dataclass(frozen=True)
class Phase:
    """Something that is waited for. `usual`: how long it usually takes, in words.

    `brief`: it is often over at once, and then not worth a line. `repeated`: one of many steps of the same kind.
    """

    what: str
    usual: str = ""
    brief: bool = False
    repeated: bool = False


CHECKING = Phase("checking the data and the model", "a second, or 5 to 15 s where torch must be imported", brief=True)
STARTING_RAY = Phase("starting Ray on this machine", "5 to 20 s")
STARTING_TRIALS = Phase("starting the first trials: workers import torch and read the data", "10 to 30 s")
STARTING_VERDICT = Phase("starting the verdict: workers import torch and read the data", "10 to 30 s")

DRAWING = Phase("drawing the report", "2 to 10 s", brief=True)


def joining(address: str) -> Phase:
    """For the Ray cluster at `address`."""
    return Phase(f"joining the Ray cluster at {address}", "2 to 10 s")


@dataclass(frozen=True)
class SearchStart:
    """What is known once Ray is there.

    `token`: the file with the dashboard's token, if it is not in Ray's usual place; `own_ray`: Ray was started for this
    search; `workers`: trials at once; `checkpoint_bytes`: of the largest checkpoint, 0 if unknown.
    """

    dashboard_url: str
    token: Path | None
    own_ray: bool
    workers: int
    checkpoint_bytes: int


class SearchProgress:
    """Reports nothing. Subclasses override what they show."""

    def notes(self, notes: Iterable[str]) -> None:
        """What a user should know of the data."""

    def phase(self, phase: Phase) -> None:
        """What is waited for from now on, until the next phase or the next thing that is reported."""

    def planned(self, study: StoredStudy) -> None:
        """The study is known and checked; nothing has been started or written."""

    def started(self, study: StoredStudy, start: SearchStart) -> None:
        """Ray is there; the search begins."""

    def listeners(self, study: StoredStudy) -> list[Listener]:
        """Listeners to the search's events."""
        return []

    def message(self, line: str) -> None:
        """A line about what happens next."""

    def verdict_event(self, event: dict[str, Any]) -> None:
        """A step of a verdict, see `verdict.progress`."""

    def close(self) -> None:
        """The search or verdict is over, or could not begin: nothing is waited for any more."""
