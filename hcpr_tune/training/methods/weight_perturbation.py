"""Adversarial weight perturbation (AWP; Wu et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hcpr_tune.training.models.classifier import cosine_head_parameters


@contextmanager
def perturbed(model: nn.Module, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Move each layer's weights by gamma * |w| along the gradient of `loss`, inside the block.

    A cosine head, whose rows must stay unit rows, and everything with one dimension (biases, batch norm) are not moved;
    a linear head is, as in the published code. Afterwards the weights are restored
    bit for bit; gradients computed inside the block stay. The extra forward pass does not change batch-norm statistics.
    """
    cosine = {id(parameter) for parameter in cosine_head_parameters(model)}
    weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1 and id(p) not in cosine]
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = torch.autograd.grad(loss(), weights)
    with torch.no_grad():
        for buffer, value in statistics:
            buffer.copy_(value)
        kept = [weight.clone() for weight in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            length = gradient.norm()
            # A layer whose gradient is zero or not finite is not moved.
            usable = length.isfinite() & (length > 0)
            size = torch.where(usable, gamma * weight.norm() / length.clamp_min(torch.finfo(length.dtype).tiny), 0.0)
            weight.add_(torch.where(usable, gradient, 0.0) * size)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
