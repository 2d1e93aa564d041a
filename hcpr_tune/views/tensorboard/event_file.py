"""TensorBoard's event files, written with its record writer and protocol buffers, so that torch is not needed."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event as BoardEvent
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, Summary
from tensorboard.plugins.image import metadata as image_plugin
from tensorboard.plugins.text import metadata as text_plugin
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from hcpr_tune.common.drawing import png_size
from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.common.text import clean

PREFIX = "events.out.tfevents."


class EventFile:
    """The event file of a run in `folder`; appends to the latest one, if there is any.

    `anew` starts another file, which readers read after the earlier ones, as the names sort by their seconds. Each
    write is flushed, so that it is visible at once and a kill loses nothing.
    """

    def __init__(self, folder: Path, anew: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        existing = sorted(folder.glob(PREFIX + "*"))
        going_on = bool(existing) and not anew
        second = max([int(time.time()), *(int(path.name.split(".")[3]) + 1 for path in existing)])
        path = existing[-1] if going_on else folder / f"{PREFIX}{second}.{platform.node()}"
        self._writer = RecordWriter(path.open("ab"))
        if not going_on:
            for event in _beginning():
                self._append(event)

    def write(self, wall_time: float, step: int, values: Iterable[Any]) -> None:
        """Write values from `scalars`, `text` or `image`, or with a plugin's metadata."""
        self._append(BoardEvent(wall_time=wall_time, step=step, summary=Summary(value=values)))

    def _append(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _beginning() -> list[Any]:
    """The first events of a file: the format, and a session start, which discards what other files say of the run."""
    now = time.time()
    return [
        BoardEvent(wall_time=now, file_version="brain.Event:2"),
        BoardEvent(wall_time=now, session_log=SessionLog(status=SessionLog.START)),
    ]


def write_alone(path: Path, values: Iterable[Any]) -> None:
    """Atomically write an event file with these values only."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (*_beginning(), BoardEvent(wall_time=time.time(), summary=Summary(value=values))):
        writer.write(event.SerializeToString())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_whole(path, buffer.getvalue())


def emptied(folder: Path) -> list[Path]:
    """Truncate a run's event files before the run is rewritten, and return them.

    They must be deleted later: the slower of TensorBoard's readers fails if a file is gone.
    """
    found = list(folder.glob(PREFIX + "*"))
    for path in found:
        os.truncate(path, 0)
    return found


def scalars(values: Mapping[str, float]) -> list[Any]:
    """Scalar values by tag."""
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def text(tag: str, words: str) -> list[Any]:
    """A text that is shown verbatim."""
    metadata = text_plugin.create_summary_metadata(display_name=None, description=None)
    # The texts are TOML, which cannot contain the fence.
    tensor = make_tensor_proto([f"~~~\n{clean(words.rstrip())}\n~~~".encode()])
    return [Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]


def image(tag: str, png: bytes | None, description: str) -> list[Any]:
    """An image; empty if there is none, or it is damaged."""
    size = None if png is None else png_size(png)
    if size is None:
        return []
    picture = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
    metadata = image_plugin.create_summary_metadata(display_name=None, description=description)
    # TensorBoard's fast reader drops the description of data without a class.
    metadata.data_class = DATA_CLASS_BLOB_SEQUENCE
    return [Summary.Value(tag=tag, image=picture, metadata=metadata)]
