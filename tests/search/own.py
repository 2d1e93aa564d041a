"""Code as a user writes it: a data set, a method, a network, a sampler, a stopping rule, each package.module:name."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np

from hcpr_tune import ArchitectureSpec, MethodSpec, Settings, Terms, setting
from hcpr_tune.search.suggestion.registry import SamplerSpec
from hcpr_tune.training.data.registry import DATASETS, DatasetSpec

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits(root, train):
    """The digits again, in colour, with a test part: uint8 images (N, H, W, C), labels and class names."""
    images, labels, _ = DATASETS["digits"].read()
    part = slice(0, 900) if train else slice(900, 1200)
    return np.repeat(images[part, ..., None] * 15, 3, axis=-1), labels[part], NAMES


def one_part():
    """The digits as they are: no part to be tested on, so that one is drawn."""
    images, labels, _ = DATASETS["digits"].read()
    return images * 15, list(map(int, labels))


class Digits:
    """The same as a map-style torch data set of PIL images, asked for its parts as torchvision's newer ones are."""

    def __init__(self, root, split="train", transform=None):
        self.images, labels, self.classes = digits(root, split == "train")
        self.targets = labels.tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from PIL import Image

        return Image.fromarray(self.images[index]), self.targets[index]


SPEC = DatasetSpec(one_part, shape=(1, 8, 8), classes=10, white=240)


@dataclass(frozen=True)
class Mixed(Settings):
    alpha: float = setting(0.5, "Share of the natural images.", at_least=0, at_most=1)
    steps: int = setting(2, "A whole number.", at_least=1)


def terms(mixed, batch):
    """Cross-entropy of both kinds of images, and their squared distance, which the pace brings in."""
    from torch.nn.functional import cross_entropy

    natural = cross_entropy(batch.natural, batch.labels, reduction="none")
    adversarial = cross_entropy(batch.adversarial, batch.labels, reduction="none")
    return Terms(mixed.alpha * natural + (1 - mixed.alpha) * adversarial, batch.pace * distance(mixed, batch))


def distance(mixed, batch):
    return (batch.natural - batch.adversarial).square().sum(dim=1)


MIXED = MethodSpec(terms, distance, Mixed, paced=True, attack_uses_natural=True)
ON_COSINES = MethodSpec(terms, coefficients=Mixed, needs_cosine_head=True, paced=True)


def adversarial_only(natural, adversarial, labels):
    """A plain function: a loss without coefficients."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(adversarial, labels, reduction="none")


def perceptron(inputs):
    import torch

    pixels = inputs.channels * inputs.image_size[0] * inputs.image_size[1]
    hidden = torch.nn.Linear(pixels, inputs.width)
    return torch.nn.Sequential(torch.nn.Flatten(), hidden, torch.nn.ReLU(), inputs.head(inputs.width))


PERCEPTRON = ArchitectureSpec(perceptron)


def softmax_regression(classes, channels):
    import torch

    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * channels, classes))


def sampler(seed):
    """Any Optuna sampler, built anew for each suggestion."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


def in_the_middle(study, number, attempt, trials):
    """A point that learns nothing: the middle of every range at first, then ever lower ones."""
    params = {}
    for name, dimension in study.space.items():
        if dimension.active(params):
            params[name] = dimension.at(0.5 ** (1 + number + attempt))
    return params


MIDDLE = SamplerSpec(point=in_the_middle)


def above_median(scores):
    """Early stopping by the median: whoever is better than half of the trials at the rung goes on."""
    middle = statistics.median(scores.values())
    return [number for number, score in scores.items() if score > middle]


def like_asha(scores, lost, reduction_factor):
    """The best 1 / reduction_factor, as `asha` has it."""
    return [*scores][: math.floor((len(scores) + lost) / reduction_factor + 1e-9)]


def no_one(epoch):
    return ()


def breaks(scores):
    return [max(scores) + 1]
