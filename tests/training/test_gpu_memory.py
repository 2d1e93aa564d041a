"""Shares of a GPU: waited for, capped, given back, and named where they were too small. Only the hardware is played."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hcpr_tune.errors import InputError
from hcpr_tune.training import gpu_memory
from hcpr_tune.training.gpu_memory import CONTEXT_BYTES, ENOUGH, cap, claim, out_of_memory, release, wait_for_room

GB = 10**9
OF_CONTEXT = CONTEXT_BYTES / (80 * GB)
GPU, CPU = torch.device("cuda"), torch.device("cpu")


class Room:
    """A GPU whose free memory changes with time, and the time itself, which passes only in `sleep`."""

    def __init__(self, *free_at, total=80 * GB):
        self.free_at, self.total, self.now, self.looks = free_at, total, 100.0, 0

    def look(self):
        self.looks += 1
        return [free for since, free in self.free_at if self.now - 100.0 >= since][-1], self.total

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds

    def clock(self):
        return self.now

    def wait(self, share, **more):
        return wait_for_room(share, self.look, self.sleep, self.clock, **more)


@pytest.mark.parametrize(("share", "free"), [(0.5, 36), (0.25, 18), (1.0, 72), (2.0, 72), (1, 80)])
def test_nobody_waits_where_there_is_room(share, free):
    room = Room((0, free * GB))
    assert room.wait(share) == 0
    assert room.looks == 1


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0, 4.0])
def test_it_waits_until_enough_of_its_share_is_free(share):
    enough = round(ENOUGH * min(share, 1) * 80 * GB)
    room = Room((0, enough - 1), (7, enough))
    assert 7 <= room.wait(share) < 8


@pytest.mark.parametrize("patience", [60.0, 0.3, 0.0])
def test_patience_ends(patience):
    assert Room((0, 0)).wait(0.5, patience=patience) == pytest.approx(patience)


def test_the_patience_is_a_minute():
    assert Room((0, 0)).wait(0.5) == pytest.approx(60)


@pytest.mark.parametrize("share", [0, -0.5, float("nan")])
def test_a_share_of_nothing_is_refused(share):
    with pytest.raises(ValueError, match="must be above 0"):
        wait_for_room(share, lambda: (1, 1), lambda _: None, lambda: 0.0)


@pytest.fixture
def no_cuda(monkeypatch):
    """Whatever touches CUDA fails."""

    def touched(*_):
        raise AssertionError("CUDA was touched")

    for name in ("mem_get_info", "set_per_process_memory_fraction", "empty_cache", "current_device"):
        monkeypatch.setattr(torch.cuda, name, touched)


@pytest.mark.usefixtures("no_cuda")
def test_a_cpu_has_no_share():
    assert claim(CPU, 0.0) == 0
    cap(0.5, CPU)
    release()


class FakeGpu:
    """Stands for torch.cuda: what it was asked, with the checks that torch makes of the arguments."""

    def __init__(self, monkeypatch, *free, total=80 * GB):
        self.free, self.total, self.initialised, self.done = list(free), total, False, []
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: self.initialised)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
        monkeypatch.setattr(torch.cuda, "mem_get_info", self.look)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.done.append("emptied"))
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self.cap)
        monkeypatch.setattr(gpu_memory.time, "sleep", lambda seconds: self.done.append("slept"))

    def look(self, device):
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        if isinstance(free, Exception):
            raise free
        return free, self.total

    def cap(self, fraction, device):
        assert isinstance(fraction, float)
        assert isinstance(device, int)  # torch refuses "cuda" without a number here
        self.initialised = True
        self.done.append((fraction, device))


@pytest.mark.parametrize(
    ("share", "device", "expected"),
    [
        (0.25, "cuda", (pytest.approx(0.25 - OF_CONTEXT), 3)),
        (0.5, "cuda:1", (pytest.approx(0.5 - OF_CONTEXT), 1)),
        (1, "cuda", (1.0, 3)),
        (2.0, "cuda:0", (1.0, 0)),
    ],
)
def test_the_cap_is_the_share(monkeypatch, share, device, expected):
    gpu = FakeGpu(monkeypatch, 80 * GB)
    cap(share, torch.device(device))
    assert gpu.done == [expected]


def test_a_share_without_room_for_more_than_the_context_is_refused(monkeypatch):
    FakeGpu(monkeypatch, 80 * GB)
    with pytest.raises(InputError, match=r"more than the 0.62 GB that CUDA itself takes .*, got 0.005 of 74.5 GB"):
        cap(0.005, GPU)


def test_the_first_claim_waits_and_caps_and_later_ones_cap(monkeypatch):
    gpu = FakeGpu(monkeypatch, 10 * GB, 39 * GB)
    assert claim(GPU, 0.5) >= 0
    assert gpu.done == ["slept", (pytest.approx(0.5 - OF_CONTEXT), 3)]
    # By now this process has filled its share: it must not wait for itself.
    gpu.free, gpu.done = [0], []
    assert claim(GPU, 0.25) == 0
    assert gpu.done == [(pytest.approx(0.25 - OF_CONTEXT), 3)]


def test_a_gpu_too_full_for_a_context_is_waited_for(monkeypatch):
    gpu = FakeGpu(monkeypatch, RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), 80 * GB)
    claim(GPU, 1.0)
    assert gpu.done == ["slept", (1.0, 3)]


def test_other_faults_of_a_gpu_are_not_waited_for(monkeypatch):
    FakeGpu(monkeypatch, RuntimeError("CUDA error: unspecified launch failure"))
    with pytest.raises(RuntimeError, match="launch failure"):
        claim(GPU, 1.0)


@pytest.mark.parametrize("initialised", [True, False])
def test_memory_is_given_back_where_cuda_was_used(monkeypatch, initialised):
    gpu = FakeGpu(monkeypatch, 0)
    gpu.initialised = initialised
    collected = []
    monkeypatch.setattr(gpu_memory.gc, "collect", lambda: collected.append(len(gpu.done)))
    release()
    # Collected first: what is in cycles could not be given back otherwise.
    assert (collected, gpu.done) == (([0], ["emptied"]) if initialised else ([], []))


GPU_MESSAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
]


@pytest.mark.parametrize("error", GPU_MESSAGES, ids=lambda error: str(error)[:30])
def test_a_full_gpu_is_named_with_the_way_out(error):
    reason = out_of_memory(error)
    assert reason.startswith("out of GPU memory")
    assert reason.endswith("lower batch_size or the model's width, or raise resources.gpus_per_trial")
    assert "\n" not in reason


def test_what_was_asked_for_is_said():
    assert "(2.50 GiB more requested)" in out_of_memory(GPU_MESSAGES[0])


def raised(work):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("work", [lambda: torch.empty(10**15), lambda: np.empty(10**17)], ids=["torch", "numpy"])
def test_a_full_machine_is_named_with_the_way_out(work):
    reason = out_of_memory(raised(work))
    assert re.fullmatch(
        r"out of host memory \(.+ more requested\); lower batch_size, or run fewer trials at once: resources.workers",
        reason,
    )
    assert out_of_memory(MemoryError()).startswith("out of host memory; ")


def test_the_place_is_the_innermost_function_of_the_package(monkeypatch):
    def fail(*_):
        raise GPU_MESSAGES[0]

    FakeGpu(monkeypatch, 80 * GB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fail)
    reason = out_of_memory(raised(lambda: claim(GPU, 0.5)))
    assert reason.startswith("out of GPU memory in gpu_memory.cap (2.50 GiB ")


def test_it_looks_through_what_an_error_was_raised_from():
    def wrapped():
        try:
            raise GPU_MESSAGES[1]
        except RuntimeError as error:
            raise RuntimeError("the compiled model failed") from error

    assert out_of_memory(raised(wrapped)).startswith("out of GPU memory")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("CUDA out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_have_no_such_name(error):
    assert out_of_memory(error) is None
