"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.training.models.classifier import normalise_head


class Averaged:
    """A running average of a model's weights and batch-norm statistics.

    A step's weight halves every `half_life` epochs. The average of the first t steps is their normalised weighted mean:
    the initial random weights do not enter it. Batch-norm statistics are averaged like the weights; counters are
    copied.
    """

    def __init__(self, model: nn.Module, half_life: float, steps_per_epoch: int) -> None:
        self.decay = 0.5 ** (1 / (half_life * steps_per_epoch))
        self.steps = 0
        self._mean = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        # A separate copy: it is in eval mode, and its head is projected.
        self._model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model after one optimiser step to the average."""
        self.steps += 1
        # 1 at the first step, falling to 1 - decay: Adam's bias correction, folded into the step.
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        current = model.state_dict()
        floating = [name for name, tensor in current.items() if tensor.is_floating_point()]
        counters = [name for name, tensor in current.items() if not tensor.is_floating_point()]
        torch._foreach_lerp_([self._mean[name] for name in floating], [current[name] for name in floating], share)
        if counters:
            torch._foreach_copy_([self._mean[name] for name in counters], [current[name] for name in counters])

    @torch.no_grad()
    def model(self) -> nn.Module:
        """The averaged model, in eval mode. Averaged unit rows are shorter than 1, so its head is normalised."""
        self._model.load_state_dict(self._mean)
        normalise_head(self._model)
        return self._model

    def restart(self) -> None:
        """Begin a new average, starting with the next step."""
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers."""
        return {"steps": self.steps, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"])
        mean: dict[str, Tensor] = state["mean"]
        for name, tensor in self._mean.items():
            tensor.copy_(mean[name])
