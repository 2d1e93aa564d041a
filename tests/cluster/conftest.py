"""Shared by the searches on a real Ray: one that nothing happens to, and a store for those that lie in a bucket."""

from __future__ import annotations

import os

import pytest

from tests.cluster.here import disconnect
from tests.cluster.test_search import ONE_WORKER, in_folder, outcome, record_of, search
from tests.conftest import ROOT, SLOW_SPACE
from tests.s3 import s3_server

__all__ = ["ONE_WORKER", "s3_server"]


@pytest.fixture(scope="package", autouse=True)
def one_ray(tmp_path_factory):
    """Workers and commands find the modules of the tests; what `shared_ray` connected is over with the last test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
        disconnect()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """An undisturbed search with one worker: what it decided and reached, and how long it took."""
    folder = in_folder(tmp_path_factory.mktemp("undisturbed"), SLOW_SPACE)
    done = search(folder, "--space", "small.toml", "--name", "whole")
    assert done.returncode == 0, done.stderr
    events = record_of(folder, "whole")
    return outcome(folder, "whole"), events[-1]["time"] - events[0]["time"]
