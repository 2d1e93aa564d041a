"""Studies as a search leaves them, from made events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.lines import sealed_row
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study import StudySpec, study_to_plain
from hcpr_tune.search.storage.studies import create


@dataclass(frozen=True)
class Written:
    """A study in a folder."""

    folder: StudyFolder
    study: StudySpec

    @property
    def name(self) -> str:
        return self.folder.root.name


def written(storage: Path, name: str, study: StudySpec, events: Iterable[Event], began: float = 0.0) -> Written:
    """Write study and record into `storage`, its clock beginning at `began`."""
    folder = StudyFolder(storage / name)
    create(folder, study)
    made = []
    for event in events:
        own = {"fingerprint": study.fingerprint, "study": study_to_plain(study)} if event["event"] == "begin" else {}
        made.append({**event, **own, "time": began + event["time"]})
    folder.record.write_bytes(sealed_row(made))
    return Written(folder, study)


def folded(study: StudySpec, events: Iterable[Event]) -> History:
    """The history of these events."""
    history = History(study.recipe.epochs, study.goal)
    for event in events:
        history.apply(event)
    return history
