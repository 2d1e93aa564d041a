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

    def started(self, study: StoredStudy, start: SearchStart) -> None:
        """Ray is there; the search begins."""

    def listeners(self, study: StoredStudy) -> list[Listener]:
        """Listeners to the search's events."""
        return []

    def message(self, line: str) -> None:
        """A line about what happens next."""

    def verdict_event(self, event: dict[str, Any]) -> None:
        """A step of a verdict, see `verdict.progress`."""
