"""The whole training step against the published code: losses before each update, final weights, running statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hcpr_tune.training.attacks.pgd import evaluating, pgd
from hcpr_tune.training.loop import EpochSettings, TrainingState, attack, update
from hcpr_tune.training.methods.losses import pair_consistency
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.models.classifier import CosineHead, normalise_head
from hcpr_tune.training.recipe import Attack, Hcpr, Recipe, Schedule

BETA, OFFSET = 6.0, 0.2
STEPS = 6
RECIPE = Recipe(
    hcpr=Hcpr(scale=8.0, margin=0.2, kl_weight=BETA * OFFSET, square_weight=BETA),
    attack=Attack(epsilon=0.08, steps=Schedule(STEPS, STEPS), step_size=0.02, initial_noise=0.001),
)


class LinearTanh(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feature = nn.Linear(16, 6)
        self.head = CosineHead(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.feature(images.flatten(1))))


class ConvBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.head = CosineHead(45, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.conv(images))).flatten(1))


MODELS = {"step": LinearTanh, "bn": ConvBatchNorm}


def published(reference: dict[str, np.ndarray], case: str, stage: str) -> dict[str, Tensor]:
    """The published weights of one stage under the names of this file's models."""
    prefix = f"{case}_{stage}_"
    names = {name.replace(".", "_"): name for name in MODELS[case]().state_dict()}
    return {names[key]: torch.from_numpy(reference[prefix + key]) for key in names}


def start(reference: dict[str, np.ndarray], case: str) -> TrainingState:
    model = MODELS[case]().double()
    model.load_state_dict(published(reference, case, "initial"))
    normalise_head(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    return TrainingState(model, optimiser, None, epoch=0)


def step(state: TrainingState, images: Tensor, labels: Tensor, noise: Tensor) -> float:
    """One attack from the given noise and one update; the loss before the update."""
    hcpr, settings = RECIPE.hcpr, RECIPE.attack
    with evaluating(state.model), torch.no_grad():
        natural = state.model(images)
    adversarial = pgd(
        state.model,
        images,
        lambda logits: pair_consistency(natural, logits, hcpr.scale, hcpr.kl_weight, hcpr.square_weight),
        RECIPE.training_threat,
        settings.pgd(STEPS),
        images + settings.initial_noise * noise,
    )
    accuracy, consistency = update(
        RECIPE, method_of(RECIPE), state, images, adversarial, labels, EpochSettings.of(RECIPE, 1)
    )
    return (accuracy + consistency).item()


def batches(reference: dict[str, np.ndarray], case: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    names = ("images", "labels", "standard_normal_noise")
    return list(zip(*(torch.from_numpy(reference[f"{case}_{name}"]) for name in names), strict=True))


@pytest.mark.parametrize("case", ["step", "bn"])
def test_losses_and_final_state_are_the_published_ones(reference, case):
    state = start(reference, case)
    losses = [step(state, *batch) for batch in batches(reference, case)]
    np.testing.assert_allclose(losses, reference[f"{case}_losses"], rtol=0, atol=1e-9)
    final = state.model.state_dict()
    for name, expected in published(reference, case, "final").items():
        np.testing.assert_allclose(final[name], expected, rtol=0, atol=1e-9, err_msg=name)


def test_momentum_of_the_head_is_what_gives_the_published_raw_rows(reference):
    # The projection comes after the step and leaves the momentum alone: rows before - lr * buffer are the raw rows.
    state = start(reference, "step")
    head = state.model.head.weight
    for batch in batches(reference, "step"):
        before = head.detach().clone()
        step(state, *batch)
    raw = before - 0.1 * state.optimiser.state[head]["momentum_buffer"]
    np.testing.assert_allclose(raw, reference["step_final_head_weight_raw"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", ["step", "bn"])
def test_the_loops_attack_is_this_ascent_from_its_generators_noise(reference, case):
    state = start(reference, case)
    images, labels, _ = batches(reference, case)[0]
    found = attack(RECIPE, method_of(RECIPE), state, images, labels, STEPS, torch.Generator().manual_seed(11))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(11), dtype=images.dtype)
    hcpr = RECIPE.hcpr
    natural = state.model.eval()(images).detach()
    adversarial = images + 0.001 * noise
    for _ in range(STEPS):
        adversarial.requires_grad_(True)
        loss = pair_consistency(natural, state.model(adversarial), hcpr.scale, hcpr.kl_weight, hcpr.square_weight)
        (gradient,) = torch.autograd.grad(loss.sum(), adversarial)
        moved = adversarial.detach() + 0.02 * gradient.sign()
        adversarial = (images + (moved - images).clamp(-0.08, 0.08)).clamp(0, 1)
    torch.testing.assert_close(found, adversarial, rtol=0, atol=1e-12)
