"""Lines of a record: one JSON object each, chained to the line before it by a checksum.

Each ends with the checksum of the line before it and its own, so that damaged, duplicated, deleted and moved lines are
detected.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hcpr_tune.common.text import encodable
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.check import Plain
from hcpr_tune.version import VERSION

SEALED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}\r?')
"""A line. Editors and file transfers may have given it a Windows line ending."""
BEGINS = "0" * 8
"""Stands for the checksum of the line before the first."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def sealed(event: Mapping[str, object], after: str = BEGINS) -> bytes:
    """An event as a line of the record. `after`: the checksum of the line before it, `BEGINS` for the first."""
    return seal(json.dumps(event, allow_nan=False).encode(), after)


def seal(body: bytes, after: str) -> bytes:
    """A JSON object with the two checksums, as a line."""
    body = body[:-1] + f', "after": "{after}"}}'.encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def checksum_of(line: bytes) -> str:
    """The checksum of a line made by `sealed`."""
    return line[-len('12345678"}\n') : -len('"}\n')].decode()


def sealed_row(events: Iterable[Mapping[str, object]]) -> bytes:
    """Events as the chained lines of a record."""
    lines, latest = [], BEGINS
    for event in events:
        lines.append(sealed(event, latest))
        latest = checksum_of(lines[-1])
    return b"".join(lines)


class Line(NamedTuple):
    """A line of a record."""

    event: Plain
    after: str
    """The checksum of the line before it."""
    checksum: str


def unsealed(line: bytes) -> Plain:
    """The event of a line. Raises `ValueError` if the line was changed."""
    return read_line(line).event


def read_line(line: bytes) -> Line:
    """Read a single line. Raises `ValueError` if it was changed."""
    found = SEALED.fullmatch(line.removesuffix(b"\n"))
    if found is None:
        raise ValueError("it has no checksum")
    body = found[1] + b"}"
    if zlib.crc32(body) != int(found[2], 16):
        raise ValueError("its checksum is wrong")
    try:
        event: Plain = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if b"\\ud" in body.lower():  # a lone surrogate could not be encoded anywhere else
        event = encodable(event)
    return Line(event, str(event.pop("after", "")), found[2].decode())


@dataclass(frozen=True)
class Lines:
    """A record file: its events, which `fold` checks, the bytes up to the last good line, and that line's checksum.

    `damage` describes what is wrong with the end.
    """

    events: list[Plain]
    good_bytes: int
    latest: str
    damage: str


def read_lines(path: Path) -> Lines:
    """The lines of a record file.

    Raises `InputError` for a damaged line other than the last, and for any that does not follow the line before it.
    """
    # Split as bytes, so that a line that does not decode leaves the others readable.
    *lines, half = path.read_bytes().split(b"\n")
    events: list[Plain] = []
    good, latest = 0, BEGINS
    for number, whole in enumerate(lines, start=1):
        try:
            line = read_line(whole.removeprefix(BYTE_ORDER_MARK) if number == 1 else whole)
        except ValueError as error:
            if number == len(lines) and not half:
                return Lines(events, good, latest, f"line {number} of {path}, the last one, was damaged ({error})")
            raise InputError(
                f"{path}, line {number} is damaged ({error}); restore the file from a copy, or start a new study"
            ) from None
        if number == 1:
            _check_version(path, line.event)
        if line.after != latest:
            raise InputError(
                f"{path}, line {number} does not follow the line before it: one was duplicated, deleted or moved;"
                " restore the file from a copy, or start a new study"
            )
        events.append(line.event)
        good, latest = good + len(whole) + 1, line.checksum
    return Lines(events, good, latest, f"line {len(lines) + 1} of {path}, the last one, was cut off" if half else "")


def _check_version(path: Path, begin: Plain) -> None:
    """Raises `InputError` for a record begun by version 0.1, whose events and settings have other names."""
    versions = begin.get("versions")
    earlier = str(versions.get("hcpr_tune", "")) if isinstance(versions, dict) else ""
    if earlier.startswith("0.1."):
        raise InputError(
            f"{path} was begun by hcpr_tune {earlier}, whose studies this version, {VERSION}, cannot read;"
            f" go on with hcpr_tune {earlier}, or start a new study"
        )
