"""Where something is stored: a folder, or a prefix in a bucket, given by a URL with options after a `?`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_bucket(text: str) -> bool:
    """Whether `text` is a URL (`scheme://...`), not a path. `Bucket` checks scheme and bucket."""
    return SCHEME.match(text) is not None


@dataclass(frozen=True)
class Location:
    """A path, and the options of a URL, which may have a `/` of their own and belong to no part of the path."""

    path: str
    options: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """The location of a folder or a URL. A `/` at the end of the path means nothing."""
        path, _, options = text.partition("?") if is_bucket(text) else (text, "", "")
        return cls(path.rstrip("/") or path[:1], options)

    def __str__(self) -> str:
        return f"{self.path}?{self.options}" if self.options else self.path

    @property
    def name(self) -> str:
        """The last part of the path; empty for a whole bucket."""
        return self._ends[1]

    @property
    def parent(self) -> Location:
        """What contains it: with the name of a study, its storage. A whole bucket contains itself."""
        return replace(self, path=self._ends[0])

    def child(self, name: str) -> Location:
        """What is called `name` inside it."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")

    @property
    def _ends(self) -> tuple[str, str]:
        scheme = SCHEME.match(self.path)
        begins = scheme.end() if scheme else 0
        parent, mark, name = self.path[begins:].rpartition("/")
        if scheme:
            return (f"{scheme[0]}{parent}", name) if mark else (self.path, "")
        return parent or mark or ".", name
