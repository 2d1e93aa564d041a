"""The inner maximisation of a training: the attack on each batch, on tensors that stay where they are.

So on a GPU one of its steps can be captured as a CUDA graph and replayed: launching the several hundred kernels of a
step one by one takes the host several times as long as the GPU needs for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcpr_tune.common.text import first_line
from hcpr_tune.training.attacks.pgd import Classifier, evaluating, pgd_step, random_start
from hcpr_tune.training.formats import format_of, forward_in
from hcpr_tune.training.methods.method import Method
from hcpr_tune.training.models.folding import FoldedCopy
from hcpr_tune.training.recipe import BFLOAT16, Recipe

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
    is compiled for whole batches.
    """

    def __init__(self, recipe: Recipe, method: Method, model: nn.Module, compiled: Classifier | None) -> None:
        self.recipe, self._method, self._model = recipe, method, model
        self._threat = recipe.training_threat
        self._device = next(model.parameters()).device
        name = format_of(recipe.precision, self._device)
        self._folded = FoldedCopy(model, torch.bfloat16 if name == BFLOAT16 else None)
        self._on_short = forward_in(name, self._folded.network)
        self._on_whole = self._on_short if compiled is None else forward_in(name, compiled)
        self._graphed = self._device.type == "cuda" and compiled is None
        self._fixed: Buffers | None = None
        """Of the whole batches; a last, shorter batch is attacked on tensors of its own."""
        self._replay: Callable[[], None] | None = None

    def __call__(self, images: Tensor, labels: Tensor, steps: int, noise: torch.Generator) -> Tensor:
        """Adversarial copies of `images` that maximise the method's objective, from a random start.

        The natural logits do not change during the attack: if the objective needs them, they are computed once, without
        a graph.
        """
        whole = len(images) == self.recipe.batch_size
        forward = self._on_whole if whole else self._on_short
        with evaluating(self._model):
            self._folded.refresh()
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
            moved, _ = pgd_step(forward, batch.adversarial, batch.images, objective, self._threat, step_size)
            batch.adversarial.copy_(moved)

        return step


def captured(function: Callable[[], None], written: Tensor) -> Callable[[], None]:
    """A function of fixed tensors as a CUDA graph, which is launched at once; the function itself if that fails.

    `written`: the tensor that it changes; afterwards it is as before. A failure is logged in one line.
    """
    before = written.clone()
    try:
        return _capture(function)
    except RuntimeError as error:  # a user's objective may do what a graph cannot hold, such as look at a value
        LOG.warning("the attack runs without a CUDA graph: %s", first_line(error))
        return function
    finally:
        written.copy_(before)


def _capture(function: Callable[[], None]) -> Callable[[], None]:
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile, such as the one that pins the next batch's memory.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay
