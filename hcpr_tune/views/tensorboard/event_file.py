"""TensorBoard's event files, by its own record writer and protocol buffers: the driver need not import torch for them."""

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
    """The one event file of a run in `folder`, opened again where it was closed.

    With `anew` another one, which a reader takes up after those before it: their names are in the order of their seconds. Each write is
    flushed, so that it is there to see and a kill loses nothing.
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
        """Values of `scalars`, `text` and `image`, or with metadata of a plugin."""
        self._append(BoardEvent(wall_time=wall_time, step=step, summary=Summary(value=values)))

    def _append(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _beginning() -> list[Any]:
    """What a reader must know first: the format, and that what it read of the run in other files counts no more."""
    now = time.time()
    return [
        BoardEvent(wall_time=now, file_version="brain.Event:2"),
        BoardEvent(wall_time=now, session_log=SessionLog(status=SessionLog.START)),
    ]


def write_alone(path: Path, values: Iterable[Any]) -> None:
    """A file of a run that has only this to say, whole or not at all."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (*_beginning(), BoardEvent(wall_time=time.time(), summary=Summary(value=values))):
        writer.write(event.SerializeToString())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_whole(path, buffer.getvalue())


def emptied(folder: Path) -> list[Path]:
    """Take everything out of a run's event files, which is then written anew, and return them.

    To be deleted later: the slower one of TensorBoard's readers does not get over a file that is gone.
    """
    found = list(folder.glob(PREFIX + "*"))
    for path in found:
        os.truncate(path, 0)
    return found


def scalars(values: Mapping[str, float]) -> list[Any]:
    """Points of curves, by tag."""
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def text(tag: str, words: str) -> list[Any]:
    """A text that is shown letter by letter, as a file is."""
    metadata = text_plugin.create_summary_metadata(display_name=None, description=None)
    # Written as TOML, no line of it is a fence.
    tensor = make_tensor_proto([f"~~~\n{clean(words.rstrip())}\n~~~".encode()])
    return [Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]


def image(tag: str, png: bytes | None, description: str) -> list[Any]:
    """A picture; nothing where there is none, or a damaged one."""
    size = None if png is None else png_size(png)
    if size is None:
        return []
    picture = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
    metadata = image_plugin.create_summary_metadata(display_name=None, description=description)
    # TensorBoard's fast reader drops the description of what has no class.
    metadata.data_class = DATA_CLASS_BLOB_SEQUENCE
    return [Summary.Value(tag=tag, image=picture, metadata=metadata)]
