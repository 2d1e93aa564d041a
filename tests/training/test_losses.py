"""The losses against the published code's figures and against loops written from the equations of the paper."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hcpr_tune.training.methods.losses import (
    misclassification_margin,
    modulated_logits,
    pair_consistency,
    self_paced_cross_entropy,
)


def draw(seed: int, images: int = 7, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Natural and adversarial cosine logits and labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    natural = 2.4 * torch.rand(images, classes, generator=generator, dtype=torch.float64) - 1.2
    adversarial = 2.4 * torch.rand(images, classes, generator=generator, dtype=torch.float64) - 1.2
    return natural, adversarial, torch.randint(classes, (images,), generator=generator)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def accuracy_by_loop(logits: np.ndarray, labels: np.ndarray, scale: float, margin: float, pace: float) -> list[float]:
    losses = []
    for z, y in zip(logits, labels, strict=True):
        u = []
        for j in range(len(z)):
            g = 1 + margin - z[j] if j == y else z[j] + margin
            u.append(scale * z[j] * (1 + pace * (g - 1)))
        losses.append(-math.log(softmax(u)[y]))
    return losses


def consistency_by_loop(
    natural: np.ndarray, adversarial: np.ndarray, scale: float, kl_weight: float, square_weight: float
) -> list[float]:
    losses = []
    for z, z_attacked in zip(natural, adversarial, strict=True):
        p, q = softmax([scale * value for value in z]), softmax([scale * value for value in z_attacked])
        loss = 0.0
        for j in range(len(z)):
            k = p[j] * math.log(p[j] / q[j])
            loss += kl_weight * k + square_weight * k * k
        losses.append(loss)
    return losses


@pytest.mark.parametrize("case", ["loss0", "loss1", "loss2"])
def test_accuracy_loss_and_gradient_are_the_published_ones(reference, case):
    logits = torch.from_numpy(reference[f"{case}_natural_logits"]).requires_grad_(True)
    labels = torch.from_numpy(reference[f"{case}_labels"])
    scale, margin = float(reference[f"{case}_scale"]), float(reference[f"{case}_margin"])
    loss = self_paced_cross_entropy(logits, labels, scale, margin).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    np.testing.assert_allclose(loss.item(), reference[f"{case}_accuracy_loss"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(gradient, reference[f"{case}_accuracy_loss_grad_natural"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", ["loss0", "loss1", "loss2"])
def test_consistency_loss_and_gradients_are_the_published_ones(reference, case):
    natural = torch.from_numpy(reference[f"{case}_natural_logits"]).requires_grad_(True)
    adversarial = torch.from_numpy(reference[f"{case}_adversarial_logits"]).requires_grad_(True)
    # The published sum, before beta, is n * KL + the sum of squares.
    weights = {"kl_weight": float(reference[f"{case}_offset"]), "square_weight": 1.0}
    loss = pair_consistency(natural, adversarial, float(reference[f"{case}_scale"]), **weights).mean()
    gradients = torch.autograd.grad(loss, (natural, adversarial))
    np.testing.assert_allclose(loss.item(), reference[f"{case}_consistency_loss"], rtol=0, atol=1e-9)
    for gradient, name in zip(gradients, ("natural", "adversarial"), strict=True):
        np.testing.assert_allclose(gradient, reference[f"{case}_consistency_loss_grad_{name}"], rtol=0, atol=1e-9)


SETTINGS = list(product(range(3), (1.0, 8.0, 20.0), (0.0, 0.2, 0.5)))


@pytest.mark.parametrize("pace", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("seed", "scale", "margin"), SETTINGS)
def test_accuracy_loss_is_the_double_loop(seed, scale, margin, pace):
    logits, _, labels = draw(seed)
    expected = accuracy_by_loop(logits.numpy(), labels.numpy(), scale, margin, pace)
    losses = self_paced_cross_entropy(logits, labels, scale, margin, pace)
    assert losses.shape == (7,)
    np.testing.assert_allclose(losses, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("kl_weight", "square_weight"), [(1.2, 6.0), (6.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize(("seed", "scale"), list(product(range(3), (1.0, 8.0, 20.0))))
def test_consistency_loss_is_the_double_loop(seed, scale, kl_weight, square_weight):
    natural, adversarial, _ = draw(seed)
    expected = consistency_by_loop(natural.numpy(), adversarial.numpy(), scale, kl_weight, square_weight)
    losses = pair_consistency(natural, adversarial, scale, kl_weight, square_weight)
    assert losses.shape == (7,)
    np.testing.assert_allclose(losses, expected, rtol=1e-10, atol=1e-12)


def test_consistency_with_kl_alone_is_torchs_kl():
    natural, adversarial, _ = draw(3)
    log_p, log_q = F.log_softmax(8 * natural, 1), F.log_softmax(8 * adversarial, 1)
    expected = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(pair_consistency(natural, adversarial, 8.0, 1.0, 0.0), expected)


def test_consistency_of_equal_logits_is_zero():
    natural, _, _ = draw(4)
    assert (pair_consistency(natural, natural.clone(), 8.0, 1.2, 6.0) == 0).all()


def test_consistency_stays_finite_where_softmax_underflows():
    natural, adversarial = torch.tensor([[1.0, -1.0]]), torch.tensor([[-1.0, 1.0]])
    (gradient,) = torch.autograd.grad(
        pair_consistency(natural, adversarial.requires_grad_(True), 1000.0, 1.2, 6.0).sum(), adversarial
    )
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("seed", range(3))
def test_pace_zero_is_the_cross_entropy_of_scaled_cosines(seed):
    logits, _, labels = draw(seed)
    expected = F.cross_entropy(8 * logits, labels, reduction="none")
    torch.testing.assert_close(self_paced_cross_entropy(logits, labels, 8.0, 0.2, pace=0.0), expected)


@pytest.mark.parametrize("seed", range(3))
def test_pace_one_is_the_published_modulation_and_the_default(seed):
    logits, _, labels = draw(seed)
    rows = torch.arange(len(labels))
    factors = logits + 0.2
    factors[rows, labels] = 1.2 - logits[rows, labels]
    torch.testing.assert_close(modulated_logits(logits, labels, 8.0, 0.2, 1.0), 8 * factors * logits)
    assert torch.equal(
        self_paced_cross_entropy(logits, labels, 8.0, 0.2), self_paced_cross_entropy(logits, labels, 8.0, 0.2, 1.0)
    )


@pytest.mark.parametrize("pace", [0.0, 0.5, 1.0])
def test_gradient_of_the_accuracy_loss_is_that_of_its_value(pace):
    logits, _, labels = draw(5)
    assert torch.autograd.gradcheck(
        lambda z: self_paced_cross_entropy(z, labels, 8.0, 0.2, pace), logits.requires_grad_(True)
    )


def test_gradient_of_the_consistency_loss_is_that_of_its_value():
    natural, adversarial, _ = draw(6)
    inputs = (natural.requires_grad_(True), adversarial.requires_grad_(True))
    assert torch.autograd.gradcheck(lambda z, a: pair_consistency(z, a, 5.0, 1.2, 6.0), inputs)


def test_gradient_of_the_margin_is_that_of_its_value():
    logits, _, labels = draw(7)
    assert torch.autograd.gradcheck(lambda z: misclassification_margin(z, labels), logits.requires_grad_(True))


@pytest.mark.parametrize(
    ("scale", "margin", "classes", "floor"),
    [(8.0, 0.2, 10, 0.383), (8.0, 0.2, 100, 1.81), (20.0, 0.2, 10, 0.0055)],
)
def test_accuracy_loss_has_its_known_floor(scale, margin, classes, floor):
    label = torch.tensor([0])
    optimum = torch.full((1, classes), -margin / 2, dtype=torch.float64)
    optimum[0, 0] = (1 + margin) / 2
    at_optimum = self_paced_cross_entropy(optimum, label, scale, margin).item()
    assert at_optimum == pytest.approx(floor, rel=5e-3)

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_(True)
    solver = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = self_paced_cross_entropy(logits, label, scale, margin).sum()
        loss.backward()
        return loss

    solver.step(closure)
    assert closure().item() == pytest.approx(at_optimum, rel=1e-6)
    torch.testing.assert_close(logits.detach(), optimum, rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_margin_is_the_loop_over_the_other_classes(seed):
    logits, _, labels = draw(seed)
    expected = [
        max(z[j] - z[y] for j in range(len(z)) if j != y) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert misclassification_margin(logits, labels).tolist() == expected
    assert torch.equal(misclassification_margin(logits, labels) < 0, logits.argmax(1) == labels)


@pytest.mark.parametrize("scale", [1e-4, 8.0, 1e4])
def test_sign_of_the_margin_does_not_depend_on_the_scale(scale):
    logits, _, labels = draw(8, images=200)
    assert torch.equal(
        misclassification_margin(scale * logits, labels).sign(),
        misclassification_margin(logits, labels).sign(),
    )


def test_a_tie_does_not_count_as_classified_rightly():
    logits = torch.tensor([[0.5, 0.5, -1.0]])
    assert (misclassification_margin(logits, torch.tensor([0])) == 0).all()
