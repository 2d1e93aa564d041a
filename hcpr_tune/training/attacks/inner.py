"""The inner maximisation of a training: the attack on each batch, on tensors that stay where they are.

So on a GPU one of its steps can be captured as a CUDA graph and replayed: launching the several hundred kernels of a
step one by one takes the host several times as long as the GPU needs for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.common.text import first_line
from hcpr_tune.training.attacks.pgd import Classifier, evaluating, pgd_step, random_start
from hcpr_tune.training.cuda_context import broken
from hcpr_tune.training.formats import format_of, forward_in
from hcpr_tune.training.gpu_memory import out_of_memory
from hcpr_tune.training.methods.method import Method
from hcpr_tune.training.models.folding import FoldedCopy
from hcpr_tune.training.recipe import BFLOAT16, Recipe

TORCHVISION = "torchvision:"
LOG = logging.getLogger("hcpr_tune")
WARM_UP = 3
"""Eager steps before a capture, in which cuDNN chooses its algorithms and allocates what they need."""


@dataclass(frozen=True)
class Buffers:
    """What a step reads and writes: images (B, C, H, W) and their adversarial copies, labels (B,), natural logits."""

    images: Tensor
    adversarial: Tensor
    labels: Tensor
    natural: Tensor | None

    def clone(self) -> Buffers:
        natural = None if self.natural is None else self.natural.clone()
        return Buffers(self.images.clone(), self.adversarial.clone(), self.labels.clone(), natural)

    def take(self, other: Buffers) -> None:
        """Copy the values of another batch of the same size."""
        self.images.copy_(other.images)
        self.adversarial.copy_(other.adversarial)
        self.labels.copy_(other.labels)
        if self.natural is not None and other.natural is not None:
            self.natural.copy_(other.natural)


class InnerMaximisation:
    """The attack of one training on a model whose weights change in place.

    It runs in eval mode without parameter gradients on a `FoldedCopy`, or on the compiled model, if there is one, which
    is compiled for whole batches. A network of the user's own is copied anew for each batch and never captured, nor is
    a method of the user's own: both may keep more than tensors, and change it in Python.
    """

    def __init__(self, recipe: Recipe, method: Method, model: nn.Module, compiled: Classifier | None) -> None:
        self.recipe, self._method, self._model = recipe, method, model
        self._threat = recipe.training_threat
        self._device = next(model.parameters()).device
        self._format = format_of(recipe.precision, self._device)
        self._own_network, self._compiled = ":" in recipe.model.name.removeprefix(TORCHVISION), compiled
        self._fold()
        self._graphed = not (self._device.type == "cpu" or compiled is not None or self._own_network or method.own)
        self._fixed: Buffers | None = None
        """Of the whole batches; a last, shorter batch is attacked on tensors of its own."""
        self._replay: Callable[[], None] | None = None

    def _fold(self) -> None:
        cast = torch.bfloat16 if self._format == BFLOAT16 and not self._own_network else None
        self._folded = FoldedCopy(self._model, cast)
        self._on_short = forward_in(self._format, self._folded.network)
        self._on_whole = self._on_short if self._compiled is None else forward_in(self._format, self._compiled)

    def __call__(self, images: Tensor, labels: Tensor, steps: int, noise: torch.Generator) -> Tensor:
        """Adversarial copies of `images` that maximise the method's objective, from a random start.

        The natural logits do not change during the attack: if the objective needs them, they are computed once, without
        a graph.
        """
        whole = len(images) == self.recipe.batch_size and not self._own_network
        with evaluating(self._model):
            if self._own_network:
                self._fold()
            else:
                self._folded.refresh()
            forward = self._on_whole if len(images) == self.recipe.batch_size else self._on_short
            natural = None
            if self._method.spec.attack_uses_natural:
                with torch.no_grad():
                    natural = forward(images)
            start = random_start(images, self._threat, self.recipe.attack.pgd(steps), noise)
            batch = Buffers(images, start, labels, natural)
            step, batch = self._on_fixed(batch) if whole else (self._step_on(batch, forward), batch)
            for _ in range(steps):
                step()
        return batch.adversarial.clone()

    def _on_fixed(self, batch: Buffers) -> tuple[Callable[[], None], Buffers]:
        """The step on the fixed tensors, and these, with the batch in them."""
        if self._fixed is None or self._replay is None:
            self._fixed = batch.clone()
            eager = self._step_on(self._fixed, self._on_whole)
            self._replay = captured(eager, self._fixed.adversarial) if self._graphed else eager
        else:
            self._fixed.take(batch)
        return self._replay, self._fixed

    def _step_on(self, batch: Buffers, forward: Classifier) -> Callable[[], None]:
        """One step of ascent, in place."""
        objective = self._method.objective(batch.natural, batch.labels)
        step_size = self.recipe.attack.step_size

        def step() -> None:
            here = batch.adversarial
            pgd_step(forward, here, batch.images, objective, self._threat, step_size, into=here)

        return step


def captured(function: Callable[[], None], written: Tensor) -> Callable[[], None]:
    """A function of fixed tensors as a CUDA graph, which is launched at once; the function itself if that fails.

    `written`: the tensor that it changes; afterwards it is as before. A failure is logged in one line, but for those
    that are none of a capture's: out of memory, and a broken context.
    """
    before = written.clone()
    try:
        return _capture(function)
    except RuntimeError as error:
        if out_of_memory(error) or broken(error):
            raise
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__  # the last error is only that the capture cannot be ended
        LOG.warning("the attack runs without a CUDA graph: %s", first_line(cause))
        return function
    finally:
        written.copy_(before)


@cache
def _capture_stream() -> Any:
    """One for the process: for each stream cuBLAS keeps a workspace until the process ends."""
    return torch.cuda.Stream()


def _capture(function: Callable[[], None]) -> Callable[[], None]:
    current, beside = torch.cuda.current_stream(), _capture_stream()
    beside.wait_stream(current)
    try:
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP - 1):
                function()
            with _no_waits():
                function()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile, such as the one that pins the next batch's memory.
        with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            function()
    finally:
        torch.cuda.set_stream(current)  # a capture that fails leaves its own stream behind
        current.wait_stream(beside)
    return graph.replay


@contextmanager
def _no_waits() -> Iterator[None]:
    """Raise a `RuntimeError` where the host would wait for the GPU, which ends a capture in a worse way."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
