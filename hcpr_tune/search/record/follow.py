"""Follow a study's record while another process appends to it."""

from __future__ import annotations

from collections.abc import Iterator

from hcpr_tune.common.schema import Wrong
from hcpr_tune.search.record.history import Event
from hcpr_tune.search.record.lines import read_line
from hcpr_tune.search.record.results import StoredStudy


class Rewritten(Exception):
    """What was read is no longer what the record says, or says more than events can: read it from the beginning."""


class Follower:
    """Folds what is appended to the record into the study's history. Its file is only read."""

    def __init__(self, study: StoredStudy) -> None:
        """`study`: as it was read; its history is changed."""
        self._study = study
        self._extensions = len(study.history.extensions)
        self._end, self._latest = study.history.good_bytes, study.history.latest_checksum

    def news(self) -> Iterator[Event]:
        """The events that were appended since, each once it is folded in.

        Raises `Rewritten` if the record was replaced, or the study extended; `OSError` if it cannot be read.
        """
        history = self._study.history
        for line in self._new_lines():
            try:
                found = read_line(line)
            except ValueError:
                return  # half of it is written, or the next driver will cut it off
            if found.after != self._latest:
                raise Rewritten
            try:
                event = history.check(found.event)
                is_news = history.apply(event)
            except (Wrong, ValueError, KeyError):
                raise Rewritten from None
            self._end, self._latest = self._end + len(line) + 1, found.checksum
            if len(history.extensions) != self._extensions:
                raise Rewritten
            if is_news:
                yield event

    def _new_lines(self) -> list[bytes]:
        """The whole lines behind what was read."""
        try:
            with self._study.folder.record.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._end:
                    raise Rewritten
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            if self._end:
                raise Rewritten from None
            return []
        *lines, _ = data.split(b"\n")
        return lines
