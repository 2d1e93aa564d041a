"""TensorBoard's event files, by its own record writer and protocol buffers: the driver need not import torch for them."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event as BoardEvent
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.text import metadata as text_plugin
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from hcpr_tune.drawing import png_size

PATTERN = "events.out.tfevents.*"


class EventFile:
    """The one event file of a run in `folder`, opened again where it was closed.

    A second file would be read in the order of the names, which are equal to the second. Each write is flushed, so that it is there to
    see and a kill loses nothing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        existing = sorted(folder.glob(PATTERN))
        path = existing[-1] if existing else folder / f"events.out.tfevents.{int(time.time())}.{platform.node()}"
        self._writer = RecordWriter(path.open("ab"))
        if not existing:
            self._append(BoardEvent(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, wall_time: float, step: int, values: Iterable[Any]) -> None:
        """Values of `scalars`, `text` and `image`, or with metadata of a plugin."""
        self._append(BoardEvent(wall_time=wall_time, step=step, summary=Summary(value=values)))

    def _append(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def clear(folder: Path) -> None:
    """Delete the event files of a run, which is then written anew."""
    for path in folder.glob(PATTERN):
        path.unlink()


def scalars(values: Mapping[str, float]) -> list[Any]:
    """Points of curves, by tag."""
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def text(tag: str, words: str) -> list[Any]:
    """A text that is shown letter by letter, as a file is."""
    metadata = text_plugin.create_summary_metadata(display_name=None, description=None)
    # Written as TOML, no line of it is a fence.
    tensor = make_tensor_proto([f"~~~\n{words.rstrip()}\n~~~".encode()])
    return [Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]


def image(tag: str, png: bytes | None, description: str) -> list[Any]:
    """A picture; nothing where there is none, or a damaged one."""
    size = None if png is None else png_size(png)
    if size is None:
        return []
    picture = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
    return [Summary.Value(tag=tag, image=picture, metadata=SummaryMetadata(summary_description=description))]
