"""The process that calls us is left as it was: its environment variables and the levels of its loggers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LOGGERS = ("ray", "ray.tune", "ray.data", "ray.rllib", "ray.serve", "ray.train")
"""The loggers whose level Ray or we change."""


def restore(name: str, before: str | None) -> None:
    """Put an environment variable back as it was."""
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before


@contextmanager
def borrowed(environment: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs; afterwards they and the log levels are as before."""
    before = {name: os.environ.get(name) for name in environment}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            restore(name, value)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
