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
    a linear head is, as in the published code. Afterwards the weights are restored bit for bit; gradients computed
    inside the block stay. The extra forward pass does not change batch-norm statistics.
    """
    cosine = {id(parameter) for parameter in cosine_head_parameters(model)}
    weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1 and id(p) not in cosine]
    buffers = list(model.buffers())
    statistics = [buffer.clone() for buffer in buffers]
    gradients = torch.autograd.grad(loss(), weights)
    with torch.no_grad():
        if buffers:
            torch._foreach_copy_(buffers, statistics)
        kept = [weight.detach().clone() for weight in weights]
        lengths = torch.stack(torch._foreach_norm(gradients))
        sizes = gamma * torch.stack(torch._foreach_norm(kept)) / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)
        # A layer whose gradient is zero or not finite is not moved.
        usable = lengths.isfinite() & (lengths > 0)
        moves = [torch.where(able, gradient, 0.0) for able, gradient in zip(usable.unbind(), gradients, strict=True)]
        torch._foreach_mul_(moves, list(torch.where(usable, sizes, 0.0).unbind()))
        torch._foreach_add_([weight.detach() for weight in weights], moves)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_([weight.detach() for weight in weights], kept)
