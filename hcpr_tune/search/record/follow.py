"""Follow a study's record while another process appends to it."""

from __future__ import annotations

import os
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
            end, latest = history.read_to
            if found.after != latest:
                raise Rewritten
            try:
                event = history.check(found.event)
                is_news = history.apply(event)
            except (Wrong, ValueError, KeyError):
                raise Rewritten from None
            history.read_to = end + len(line) + 1, found.checksum
            if len(history.extensions) != self._extensions:
                raise Rewritten
            if is_news:
                yield event

    def _new_lines(self) -> list[bytes]:
        """The whole lines behind what was read."""
        begin, _ = self._study.history.read_to
        try:
            with self._study.folder.record.open("rb") as file:
                if file.seek(0, os.SEEK_END) < begin:
                    raise Rewritten
                file.seek(begin)
                data = file.read()
        except FileNotFoundError:
            if begin:
                raise Rewritten from None
            return []
        *lines, _ = data.split(b"\n")
        return lines
