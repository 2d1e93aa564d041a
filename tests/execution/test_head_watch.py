"""A head that is gone is told once, also while the driver cannot."""

from __future__ import annotations

import socket
import threading

from hcpr_tune.execution.connection.head_watch import watched


def test_a_head_that_is_gone_is_told_once_and_one_that_answers_is_not():
    told: list[str] = []
    said = threading.Event()

    def say(words: str) -> None:
        told.append(words)
        said.set()

    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with watched(address, say, lost=0.2, poll=0.02):
            assert not said.wait(0.5)
            head.close()
            assert said.wait(30)
            assert not threading.Event().wait(0.5)
    assert len(told) == 1
    assert f"the head of the Ray cluster at {address} has not answered for" in told[0]
    assert "--resume" in told[0]
