"""A record that another process writes, read as it grows."""

from __future__ import annotations

from collections.abc import Iterator

from hcpr_tune.common.schema import Wrong
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.lines import BEGINS, BYTE_ORDER_MARK, read_line
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.record.segments import SEGMENTS
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.object_store import storage_error


class RecordFollower:
    """Folds a study's record from its first event on; `new` goes on where the last call ended.

    Of a record in a bucket, only the segments that may have grown are read again.
    """

    def __init__(self, folder: StudyFolder, begun: StudySpec) -> None:
        """`begun`: the study as it was begun; its extensions are in the record."""
        self._folder = folder
        self.history = History(begun.recipe.epochs, begun.goal)
        """What has been read so far."""
        self._latest, self._segment, self._offset = BEGINS, 0, 0

    def new(self) -> Iterator[Event]:
        """The news since the last call, each event folded into `history` before it is yielded.

        Stops before a line that is not whole, is damaged or does not follow: its writer mends it, or it is refused when
        the study is opened. Raises `StorageError` if the record cannot be read.
        """
        for line in self._lines():
            try:
                sealed = read_line(line.removeprefix(BYTE_ORDER_MARK))
                event = self.history.check(sealed.event)
            except (ValueError, Wrong):
                return
            if sealed.after != self._latest:
                return
            self._latest, self._offset = sealed.checksum, self._offset + len(line) + 1
            if self.history.apply(event):
                yield event

    def _lines(self) -> Iterator[bytes]:
        """The whole lines from `_offset` on, without their ends."""
        bucket = self._folder.bucket
        if bucket is None:
            yield from self._rest_of_file().split(b"\n")[:-1]
            return
        for place, key in enumerate(bucket.keys(SEGMENTS)[self._segment :]):
            if place > 0:  # the one before it is full
                self._segment, self._offset = self._segment + 1, 0
            yield from (bucket.read(key) or b"")[self._offset :].split(b"\n")[:-1]

    def _rest_of_file(self) -> bytes:
        try:
            with self._folder.record.open("rb") as file:
                file.seek(self._offset)
                return file.read()
        except FileNotFoundError:  # the search has not begun
            return b""
        except OSError as error:
            raise storage_error(f"{self._folder.record} cannot be read", error) from error
