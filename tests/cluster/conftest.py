"""Shared by the searches on a real Ray: one that nothing happens to, and a store for those that lie in a bucket."""

from __future__ import annotations

import pytest

from tests.cluster.test_search import in_folder, outcome, record_of, search
from tests.conftest import SLOW_SPACE
from tests.s3 import s3_server

__all__ = ["s3_server"]

ONE_WORKER = ("--set", "resources.workers=1")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """An undisturbed search with one worker: what it decided and reached, and how long it took."""
    folder = in_folder(tmp_path_factory.mktemp("undisturbed"), SLOW_SPACE)
    done = search(folder, "--space", "small.toml", "--name", "whole", *ONE_WORKER)
    assert done.returncode == 0, done.stderr
    events = record_of(folder, "whole")
    return outcome(folder, "whole"), events[-1]["time"] - events[0]["time"]
