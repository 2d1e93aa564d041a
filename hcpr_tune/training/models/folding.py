"""Faster copies of models for attacks: batch normalisation folded into convolutions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hcpr_tune.training.models.architectures import BasicBlock, PreActivationBlock


class _Fold(NamedTuple):
    """A convolution and the normalisation after it, and where their folded weight and bias are kept."""

    convolution: nn.Conv2d
    normalisation: nn.BatchNorm2d
    weight: Tensor
    bias: Tensor


class FoldedCopy:
    """A faster copy of a model, in eval mode, with batch normalisation folded into the convolution before it.

    Equal up to rounding (1e-9 in float64). It shares all other tensors with the model, so only convolutions have to be
    brought up to date by `refresh` when the model's weights have changed in place. If nothing can be folded, `network`
    is the model itself.

    `dtype`: of the convolutions' weights, if not the model's; autocast would cast them in every forward pass.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None) -> None:
        normalisations = {
            _dotted(name, first): _dotted(name, second)
            for name, module in model.named_modules()
            for first, second in _foldable(module)
        }
        convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
        self.network = model
        self._folds: list[_Fold] = []
        self._cast: list[tuple[Tensor, Tensor]] = []
        """Tensors of the model, and the same in `dtype`."""
        if not normalisations and (dtype is None or not convolutions):
            return
        # Share the model's tensors; only those of the convolutions are replaced.
        memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.network = copy.deepcopy(model, memo).eval()
        for name, convolution in convolutions.items():
            copied = self.network.get_submodule(name)
            if name in normalisations:
                normalisation = model.get_submodule(normalisations[name])
                assert isinstance(normalisation, nn.BatchNorm2d)
                weight = torch.empty_like(convolution.weight, dtype=dtype, requires_grad=False)
                bias = torch.empty_like(normalisation.bias, dtype=dtype, requires_grad=False)
                self._folds.append(_Fold(convolution, normalisation, weight, bias))
                copied.weight, copied.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
                parent, _, child = normalisations[name].rpartition(".")
                setattr(self.network.get_submodule(parent), child, nn.Identity())
            elif dtype is not None:
                for part, tensor in convolution.named_parameters(recurse=False):
                    self._cast.append((tensor, torch.empty_like(tensor, dtype=dtype, requires_grad=False)))
                    setattr(copied, part, nn.Parameter(self._cast[-1][1], False))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the model's present weights and statistics."""
        into, values = [], []
        if self._folds:
            for fold, scale, shift in zip(self._folds, *self._scales_and_shifts(), strict=True):
                of_convolution = fold.convolution.bias
                into += [fold.weight, fold.bias]
                values.append(fold.convolution.weight * scale.view(-1, 1, 1, 1))
                values.append(shift if of_convolution is None else shift + of_convolution * scale)
        for tensor, cast in self._cast:
            into.append(cast)
            values.append(tensor)
        if into:
            torch._foreach_copy_(into, values)

    def _scales_and_shifts(self) -> tuple[list[Tensor], list[Tensor]]:
        """The scale and shift of each normalisation in eval mode, (channels,) each."""
        variances, means = [], []
        for _, normalisation, _, _ in self._folds:
            assert normalisation.running_var is not None
            assert normalisation.running_mean is not None
            variances.append(normalisation.running_var)
            means.append(normalisation.running_mean)
        of = [fold.normalisation for fold in self._folds]
        roots = torch._foreach_rsqrt(torch._foreach_add(variances, [one.eps for one in of]))
        scales = list(torch._foreach_mul([one.weight for one in of], list(roots)))
        shifts = torch._foreach_sub([one.bias for one in of], list(torch._foreach_mul(means, scales)))
        return scales, list(shifts)


def _dotted(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent else child


def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """The network of a `FoldedCopy`, valid until the next optimiser step."""
    return FoldedCopy(model).network


def _foldable(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of (convolution, batch normalisation) children where the second directly follows the first."""
    if isinstance(module, BasicBlock):
        yield from (("conv1", "bn1"), ("conv2", "bn2"))
    elif isinstance(module, PreActivationBlock):
        yield "conv1", "bn2"
    elif type(module).forward is nn.Sequential.forward:
        for (first, one), (second, other) in pairwise(module.named_children()):
            if type(one) is nn.Conv2d and type(other) is nn.BatchNorm2d and other.affine and other.track_running_stats:
                yield first, second
