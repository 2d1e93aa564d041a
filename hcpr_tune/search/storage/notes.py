"""Notes and tags on a study and its trials: what people write down. Nothing is decided by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hcpr_tune.common.settings import show
from hcpr_tune.common.text import clean
from hcpr_tune.errors import InputError
from hcpr_tune.search.storage.object_store import ObjectStore

KEY = "notes.json"
LONGEST_NOTE, LONGEST_TAG, MOST_TAGS = 10_000, 40, 20


@dataclass(frozen=True)
class Note:
    """A text and tags."""

    text: str = ""
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.tags)


@dataclass(frozen=True)
class Notes:
    """The note on a study, and those on its trials by number."""

    study: Note = Note()
    trials: dict[int, Note] = field(default_factory=dict)

    def of(self, trial: int | None) -> Note:
        """The note on a trial; of the study with None."""
        return self.study if trial is None else self.trials.get(trial, Note())


def checked_note(text: str, tags: Sequence[str]) -> Note:
    """A note with its tags trimmed, each once. Raises `InputError`."""
    words = tuple(dict.fromkeys(filter(None, (" ".join(clean(tag).split()) for tag in tags))))
    if len(text) > LONGEST_NOTE:
        raise InputError(f"a note may have {LONGEST_NOTE} characters, got {len(text)}; shorten it")
    if len(words) > MOST_TAGS or any(len(tag) > LONGEST_TAG or "," in tag for tag in words):
        raise InputError(
            f"there may be {MOST_TAGS} tags of at most {LONGEST_TAG} characters without commas, got {show(list(tags))};"
            " shorten them"
        )
    return Note(clean(text).strip(), words)


def read_notes(place: ObjectStore) -> Notes:
    """The notes of a study. Raises `InputError` if the file was damaged, and `StorageError`."""
    data = place.read(KEY)
    if data is None:
        return Notes()
    try:
        plain = json.loads(data)
        return Notes(_note(plain["study"]), {int(number): _note(one) for number, one in plain["trials"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        raise InputError(f"{KEY} is not a file of notes; move it away, or restore it from a copy") from None


def _note(plain: dict[str, Any]) -> Note:
    return checked_note(str(plain["text"]), [str(tag) for tag in plain["tags"]])


def write_note(place: ObjectStore, note: Note, trial: int | None = None) -> None:
    """Replace the note on a trial, or on the study. Raises `InputError` and `StorageError`."""
    notes = read_notes(place)
    if trial is None:
        notes = replace(notes, study=note)
    else:
        trials = {number: one for number, one in notes.trials.items() if number != trial}
        notes = replace(notes, trials=dict(sorted((trials | ({trial: note} if note else {})).items())))
    place.write(KEY, json.dumps(asdict(notes), indent=1).encode())
