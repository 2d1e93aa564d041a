"""The attacks: inside ball and box, the model left as found, no forward pass too many, and the closed-form optimum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hcpr_tune.training.attacks.config import PGDConfig, Threat
from hcpr_tune.training.attacks.evaluation import random_starts
from hcpr_tune.training.attacks.pgd import (
    OBJECTIVES,
    evaluating,
    pgd,
    predict_under_attack,
    predict_under_targeted_attack,
    project,
)
from hcpr_tune.training.loop import TrainingState, attack
from hcpr_tune.training.methods.losses import misclassification_margin, pair_consistency
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.recipe import Model, Recipe

EPSILON = 0.05
THREAT = Threat("linf", EPSILON)

HCPR = method_of(Recipe())


def draw(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear_model(seed: int, classes: int) -> nn.Sequential:
    """Logits that are linear in 3x3 images, float64, and equal where all pixels are 0.5, so that each class occurs."""
    layer = nn.Linear(9, classes).double()
    with torch.no_grad():
        layer.weight.copy_(draw(seed, classes, 9) - 0.5)
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


@contextmanager
def passing(model: nn.Module) -> Iterator[list[int]]:
    """How many images each forward pass of `model` takes."""
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()


def margin_survivors(model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, steps: int = 10) -> Tensor:
    """Which images survive the attack on the margin from one start, (B,) bool."""
    config = PGDConfig(steps, EPSILON / 4)
    return predict_under_attack(model, images, labels, THREAT, config, [start])[1] == labels


def state_of(model: nn.Module) -> TrainingState:
    return TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), None, epoch=0)


def unusual_model() -> nn.Module:
    """A small network in train mode but for one part, with one parameter that wants no gradient."""
    model = build_model(Model(width=4), channels=1, classes=10, seed=0).train()
    model.features[1].eval()
    model.head.bias.requires_grad_(False)
    return model


def condition(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return [part.training for part in model.modules()], [part.requires_grad for part in model.parameters()]


@given(
    seed=st.integers(0, 10**6),
    epsilon=st.floats(0.001, 0.5),
    relative_step=st.floats(0.1, 3.0),
    steps=st.integers(1, 5),
    noise=st.floats(0.0, 1.0),
)
@settings(max_examples=50, deadline=None, database=None)
def test_attacked_images_lie_in_the_ball_and_in_the_box(seed, epsilon, relative_step, steps, noise):
    images, model = draw(seed, 5, 1, 3, 3), linear_model(seed, 3)
    labels = torch.arange(5) % 3
    adversarial = pgd(
        model,
        images,
        lambda logits: misclassification_margin(logits, labels),
        Threat("linf", epsilon),
        PGDConfig(steps, relative_step * epsilon),
        images + noise * (2 * draw(seed + 1, 5, 1, 3, 3) - 1),
    )
    assert (adversarial - images).abs().max() <= epsilon + 1e-12
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad


def test_every_image_that_a_model_is_shown_lies_in_the_ball_and_in_the_box():
    images, model = draw(0, 50, 1, 3, 3), linear_model(0, 2)
    labels, shown = model(images).argmax(1), []
    handle = model.register_forward_hook(lambda module, inputs, output: shown.append(inputs[0].detach()))
    margin_survivors(model, images, labels, images + 0.3 * (2 * draw(1, 50, 1, 3, 3) - 1), steps=3)
    handle.remove()
    assert len(shown) == 5
    for some in shown:
        nearest = (some[:, None] - images[None]).flatten(2).abs().amax(2).amin(1)
        assert nearest.max() <= EPSILON + 1e-12
        assert some.min() >= 0
        assert some.max() <= 1


def test_projection_keeps_what_is_inside_and_is_the_nearest_point():
    images = torch.tensor([0.0, 0.5, 0.5, 1.0, 0.95])
    moved = torch.tensor([-0.05, 0.55, 0.9, 0.7, 1.2])
    torch.testing.assert_close(project(moved, images, Threat("linf", 0.1)), torch.tensor([0.0, 0.55, 0.6, 0.9, 1.0]))


def test_the_model_is_left_as_found(digits):
    images, labels = digits.train.to_unit(digits.train.images[:8]), digits.train.labels[:8]
    model = unusual_model()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    before, weights = condition(model), {name: value.clone() for name, value in model.state_dict().items()}
    attack(Recipe(), HCPR, state_of(model), images, labels, 2, torch.Generator().manual_seed(0))
    margin_survivors(model, images, labels, images)
    assert condition(model) == before
    assert all((parameter.grad == 3).all() for parameter in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_model_is_left_as_found_when_the_objective_raises(digits, monkeypatch):
    images, labels = digits.train.to_unit(digits.train.images[:8]), digits.train.labels[:8]
    model = unusual_model()
    before = condition(model)

    def broken(*_: Tensor, **__: Tensor) -> Tensor:
        raise ZeroDivisionError

    monkeypatch.setitem(OBJECTIVES, "broken", broken)

    with pytest.raises(ZeroDivisionError):
        pgd(model, images, broken, THREAT, PGDConfig(2, 0.05), images)
    assert condition(model) == before
    with pytest.raises(ZeroDivisionError):
        predict_under_attack(model, images, labels, THREAT, PGDConfig(2, 0.05, objective="broken"), [images])
    assert condition(model) == before


def test_during_the_attack_all_is_in_eval_mode_and_no_parameter_wants_a_gradient(digits):
    images, model = digits.train.to_unit(digits.train.images[:8]), unusual_model()
    seen = []

    def objective(logits: Tensor) -> Tensor:
        seen.append(condition(model))
        return logits.amax(1)

    pgd(model, images, objective, THREAT, PGDConfig(3, 0.05), images)
    assert len(seen) == 3
    assert not any(any(modes) or any(wanting) for modes, wanting in seen)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluating_may_be_nested():
    model = unusual_model()
    before = condition(model)
    with evaluating(model):
        with evaluating(model):
            pass
        assert condition(model) == ([False] * len(before[0]), [False] * len(before[1]))
    assert condition(model) == before


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_natural_logits_are_computed_once_per_attack(digits, steps):
    images, model = digits.train.to_unit(digits.train.images[:8]), unusual_model()
    with passing(model) as sizes:
        attack(
            Recipe(), HCPR, state_of(model), images, digits.train.labels[:8], steps, torch.Generator().manual_seed(0)
        )
    assert sizes == [8] * (steps + 1)


def test_attack_raises_the_consistency_loss(trained, digits):
    images, model = digits.train.to_unit(digits.train.images[:64]), trained.state.model
    adversarial = attack(
        trained.recipe, HCPR, trained.state, images, digits.train.labels[:64], 5, torch.Generator().manual_seed(0)
    )
    noisy = images + 0.001 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    with evaluating(model), torch.no_grad():
        natural, before, after = model(images), model(noisy), model(adversarial)
    raised = pair_consistency(natural, after, 8, 1.2, 6) > pair_consistency(natural, before, 8, 1.2, 6)
    assert raised.all()
    assert pair_consistency(natural, after, 8, 1.2, 6).mean() > 0.05


@pytest.mark.parametrize("box", ["free", "binding"])
@pytest.mark.parametrize("seed", range(5))
def test_on_a_linear_model_the_ascent_reaches_the_closed_form_optimum(seed, box):
    images, model = draw(seed, 6, 1, 3, 3), linear_model(seed, 2)
    if box == "free":
        images = 0.1 + 0.8 * images
    adversarial = pgd(
        model,
        images,
        lambda logits: logits[:, 1] - logits[:, 0],
        THREAT,
        PGDConfig(10, EPSILON / 4),
        images,
    )
    direction = (model[1].weight[1] - model[1].weight[0]).sign().view(1, 1, 3, 3).detach()
    expected = images + EPSILON * direction
    assert box == "binding" or (expected.min() > 0 and expected.max() < 1)
    torch.testing.assert_close(adversarial, expected.clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_on_two_linear_classes_survivors_are_those_of_the_closed_form(seed):
    images, model = 0.1 + 0.8 * draw(seed, 200, 1, 3, 3), linear_model(seed, 2)
    labels = torch.arange(200) % 2
    reach = EPSILON * (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    clean = misclassification_margin(model(images).detach(), labels)
    survived = margin_survivors(model, images, labels, images + EPSILON * (2 * draw(seed + 1, *images.shape) - 1))
    assert torch.equal(survived, clean + reach < 0)
    assert 0 < survived.sum() < (clean < 0).sum()


@pytest.mark.parametrize("seed", range(5))
def test_on_three_linear_classes_survivors_are_those_of_the_closed_form(seed):
    # Each class sums three pixels of its own, so that the nearest class stays the nearest on the way.
    images, model = 0.1 + 0.8 * draw(seed, 200, 1, 3, 3), linear_model(seed, 3)
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3, dtype=torch.float64).repeat_interleave(3, dim=1))
        model[1].bias.zero_()
    labels = model(images).argmax(1)
    survived = margin_survivors(model, images, labels, images)
    assert torch.equal(survived, misclassification_margin(model(images).detach(), labels) + 6 * EPSILON < 0)
    assert 0 < survived.sum() < 200


@pytest.mark.parametrize("seed", range(5))
def test_no_image_is_called_broken_that_cannot_be_broken(seed):
    images, model = 0.1 + 0.8 * draw(seed, 200, 1, 3, 3), linear_model(seed, 4)
    logits, weight = model(images).detach(), model[1].weight.detach()
    labels = logits.argmax(1)
    reach = EPSILON * (weight[None] - weight[labels][:, None]).abs().sum(2)
    worst = (logits - logits.gather(1, labels[:, None]) + reach).scatter(1, labels[:, None], -torch.inf).amax(1)
    survived = margin_survivors(model, images, labels, images)
    assert survived[worst < 0].all()
    assert (worst < 0).any()


class SquareRoot(nn.Module):
    """Class 0 always wins where the logits are numbers; they are none for a mean pixel below 0.5."""

    def forward(self, images: Tensor) -> Tensor:
        root = (images.flatten(1).mean(1) - 0.5).sqrt()
        return torch.stack((1 + root, 0 * root), dim=1)


def test_logits_that_are_no_numbers_count_as_broken():
    means = torch.tensor([0.3, 0.52, 0.9])
    images = means[:, None, None, None].expand(3, 1, 3, 3)
    survived = margin_survivors(SquareRoot(), images, torch.zeros(3, dtype=torch.int64), images)
    # The first is none at the start, the second once it is attacked, the third stays out of reach.
    assert survived.tolist() == [False, False, True]


def test_a_misclassified_image_is_not_attacked():
    images, model = 0.1 + 0.8 * draw(0, 50, 1, 3, 3), linear_model(0, 3)
    wrong = (model(images).argmax(1) + 1) % 3
    with passing(model) as sizes:
        survived = margin_survivors(model, images, wrong, images)
    assert sizes == [50]
    assert not survived.any()


def test_a_broken_image_costs_no_more_forward_passes():
    images, model = 0.1 + 0.8 * draw(1, 200, 1, 3, 3), linear_model(1, 2)
    labels = torch.arange(200) % 2
    clean = misclassification_margin(model(images).detach(), labels)
    per_step = EPSILON / 4 * (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    with passing(model) as sizes:
        margin_survivors(model, images, labels, images, steps=4)
    # Before step k + 1 an image has moved k steps: those still right then are passed.
    alive = [int((clean + moved * per_step < 0).sum()) for moved in range(4)]
    assert sizes == [200, alive[0], *alive]
    assert alive[0] > alive[-1]


def can_be_broken(model: nn.Sequential, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Whether any point of ball and box is misclassified by a linear model, (B,) bool: each pixel at its best end."""
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    low, high = ((images + change).clamp(0, 1).flatten(1) for change in (-epsilon, epsilon))
    found = torch.zeros(len(images), dtype=torch.bool)
    for target in range(len(bias)):
        slope = weight[target] - weight[labels]
        best = torch.where(slope > 0, high, low)
        found |= ((slope * best).sum(1) + bias[target] - bias[labels] >= 0) & (labels != target)
    return found


def test_aimed_at_every_class_the_margin_breaks_all_that_can_be_broken_of_a_linear_model():
    missed = 0
    for seed in range(20):
        images, model = draw(seed, 200, 1, 3, 3), linear_model(seed, 10)
        labels = model(images).argmax(1)
        config, starts = PGDConfig(3, EPSILON), [images]
        _, plain = predict_under_attack(model, images, labels, THREAT, config, starts)
        _, aimed = predict_under_targeted_attack(model, images, labels, THREAT, config, starts, 9)
        assert torch.equal(aimed != labels, can_be_broken(model, images, labels, EPSILON))
        assert torch.equal(aimed[plain != labels], plain[plain != labels]), "what is broken stays as it was"
        missed += int(((plain == labels) & (aimed != labels)).sum())
    assert missed > 0, "the untargeted attack finds all: there is nothing to aim for"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_aiming_at_more_classes_never_spares_an_image(trained, digits, norm):
    model, split = trained.state.model, digits.validation
    positions, threat = torch.arange(len(split)), Threat(norm, {"linf": 0.1, "l2": 0.6}[norm])
    images, labels = split.fetch(positions), split.labels
    config = PGDConfig(5, threat.epsilon / 4, restarts=2)
    starts = random_starts(images, positions, threat, config, 0)
    clean, before = predict_under_attack(model, images, labels, threat, config, starts)
    plain, survive = before, []
    for targets in (0, 1, 3, 9, 50):
        same, after = predict_under_targeted_attack(model, images, labels, threat, config, starts, targets)
        assert torch.equal(same, clean)
        assert not ((before != labels) & (after == labels)).any()
        survive.append(int((after == labels).sum()))
        before = after
    assert survive[0] == int((plain == labels).sum()) > survive[2]
    assert survive[3] == survive[4], "there are nine other classes"


def test_aimed_attacks_show_the_model_only_what_survives(trained, digits):
    model, positions = trained.state.model, torch.arange(100)
    images, labels = digits.validation.fetch(positions), digits.validation.labels[:100]
    threat, config = Threat("linf", 0.1), PGDConfig(2, 0.05)
    starts = random_starts(images, positions, threat, config, 0)
    left = int((predict_under_attack(model, images, labels, threat, config, starts)[1] == labels).sum())
    with passing(model) as sizes:
        predict_under_targeted_attack(model, images, labels, threat, config, starts, 2)
    # Untargeted: the clean images, two steps and the end; then the logits that choose the targets.
    assert sizes[4] == left
    assert max(sizes[5:]) <= left
    assert len(sizes) == 4 + 1 + 2 * 4
