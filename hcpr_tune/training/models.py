"""Networks with a projected cosine head. Input in [0, 1], output cosine logits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hcpr_tune.errors import InputError
from hcpr_tune.training.recipe import Model


class CosineHead(nn.Module):
    """z_j = <w_j, f/|f|> + b_j with unit rows w_j, (B, D) -> (B, K).

    The rows are kept on the unit sphere by `project`, called after construction and after every optimiser step, not by this
    forward pass: no gradient passes through the row norm, as in the published code, and the forward stays pure.
    """

    def __init__(self, features: int, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(classes)) if bias else None

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features, dim=1), self.weight, self.bias)


@torch.no_grad()
def project(model: nn.Module) -> None:
    """Overwrite the rows of every cosine head in `model` by unit rows."""
    for module in model.modules():
        if isinstance(module, CosineHead):
            module.weight.copy_(F.normalize(module.weight, dim=1))


class SmallCnn(nn.Module):
    """Three 3x3 convolutions with batch normalisation, two of them with stride 2, and a cosine head on 2x2 averages."""

    def __init__(self, channels: int, classes: int, width: int, head_bias: bool) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for index, (into, out) in enumerate(pairwise(widths)):
            stride = 1 if index == 0 else 2
            layers += [
                nn.Conv2d(into, out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.head = CosineHead(4 * widths[-1], classes, head_bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        # On 8x8 images the maps are 2x2 already, and the pooling, an identity there, would take a tenth of the time.
        if maps.shape[-2:] != (2, 2):
            maps = F.adaptive_avg_pool2d(maps, 2)
        logits: Tensor = self.head(maps.flatten(1))
        return logits


ARCHITECTURES = {"small_cnn": SmallCnn}


def build_model(settings: Model, channels: int, classes: int, seed: int) -> nn.Module:
    """A new network with weights drawn from `seed`; the global generator is left as it was found."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ARCHITECTURES[settings.name](channels, classes, settings.width, settings.head_bias)
    project(model)
    # Convolutions are faster on images whose channels lie together, on the CPU and on the GPU.
    return model.to(memory_format=torch.channels_last)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the network's parameters and buffers as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file. Raises `InputError` where the file is damaged or of another architecture."""
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not hold the weights of this recipe's model: {reason}; give the recipe it was trained with"
        ) from error
