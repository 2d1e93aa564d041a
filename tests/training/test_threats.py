"""L2 and L-inf balls, restarts, fixed subsets, attacked pairs, and the masking alarm with planted faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hcpr_tune.training.attacks.config import PGDConfig, Threat
from hcpr_tune.training.attacks.evaluation import evaluate, masking, random_starts, scored_positions, scoring_attack
from hcpr_tune.training.attacks.pgd import pgd, predict_under_attack, project, uniform_noise
from hcpr_tune.training.data.dataset import fixed_subset
from hcpr_tune.training.recipe import Evaluation, Task

SETTINGS = Evaluation(steps=5, relative_step_size=0.25)
TASK = Task(epsilon=0.15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lengths(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)


@pytest.mark.parametrize("seed", range(5))
def test_an_l2_attack_stays_in_both_sets(seed):
    images = torch.rand(6, 1, 4, 4, generator=generator(seed))
    moved = images + torch.randn(images.shape, generator=generator(seed + 10))
    inside = project(moved, images, Threat("l2", 0.5))
    assert (lengths(inside - images) <= 0.5 + 1e-6).all()
    assert inside.min() >= 0
    assert inside.max() <= 1
    near = images + 0.01 * torch.randn(images.shape, generator=generator(seed))
    torch.testing.assert_close(project(near, images, Threat("l2", 0.5)), near.clamp(0, 1))


def test_on_a_linear_model_the_l2_ascent_reaches_the_closed_form_optimum():
    weight = torch.randn(1, 16, generator=generator(), dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(5, 1, 4, 4, generator=generator(1), dtype=torch.float64)
    model = lambda x: x.flatten(1) @ weight.T  # noqa: E731 - a classifier is any function
    found = pgd(model, images, lambda z: z[:, 0], Threat("l2", 0.3), PGDConfig(8, 0.1), images)
    expected = images + (0.3 * weight / weight.norm()).view(1, 1, 4, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_an_image_without_gradient_does_not_move_in_l2():
    images = torch.rand(2, 1, 4, 4)
    found = pgd(
        lambda x: 0 * x.flatten(1),
        images,
        lambda z: z.sum(1),
        Threat("l2", 0.3),
        PGDConfig(2, 0.1),
        images,
    )
    assert torch.equal(found, images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_uniform_noise_fills_its_ball_evenly(norm):
    noise = uniform_noise((4000, 1, 2, 2), Threat(norm, 0.5), generator())
    radii = lengths(noise) if norm == "l2" else noise.flatten(1).abs().amax(1)
    # In 4 dimensions the share of the volume within radius r is (r / epsilon) ** 4.
    shares = torch.tensor([float((radii <= 0.5 * r).float().mean()) for r in (0.5, 0.7, 0.9)])
    torch.testing.assert_close(shares, torch.tensor([0.5**4, 0.7**4, 0.9**4]), rtol=0, atol=0.03)
    assert noise.flatten(1).mean(0).abs().max() < 0.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_belong_to_images_not_to_batches(norm, digits):
    task, settings = Task(epsilon=0.4, norm=norm), Evaluation(restarts=2)
    positions = torch.tensor([5, 9, 200])
    attack = task.threat, scoring_attack(task, settings), settings.seed
    together = random_starts(digits.validation.fetch(positions), positions, *attack)
    alone = [random_starts(digits.validation.fetch(one[None]), one[None], *attack) for one in positions]
    for restart in range(2):
        assert torch.equal(together[restart], torch.cat([one[restart] for one in alone]))
    assert not torch.equal(together[0], together[1])


def test_more_restarts_break_no_fewer(trained, digits):
    model = trained.state.model
    counts = [
        evaluate(model, digits.validation, TASK, replace(SETTINGS, restarts=n), 10).robust_correct for n in (1, 4)
    ]
    assert counts[1] <= counts[0]


def test_an_l2_evaluation_breaks_more_in_a_wider_ball(trained, digits):
    counts = [
        evaluate(trained.state.model, digits.validation, Task(norm="l2", epsilon=e), SETTINGS, 10).robust_correct
        for e in (0.1, 0.5, 1.0)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_the_subset_is_fixed_and_in_equal_shares(digits):
    positions = scored_positions(digits.validation, Evaluation(images=50))
    assert torch.equal(positions, scored_positions(digits.validation, Evaluation(images=50)))
    assert torch.bincount(digits.validation.labels[positions]).tolist() == [5] * 10
    assert len(scored_positions(digits.validation, Evaluation(images=10_000))) == len(digits.validation)
    labels = np.array([0] * 2 + [1] * 100)
    assert np.bincount(labels[fixed_subset(labels, 10, 0)]).tolist() == [2, 8]


def test_pairs_account_for_every_image_that_is_lost(trained, digits):
    found = evaluate(trained.state.model, digits.validation, TASK, SETTINGS, 10)
    assert sum(count for _, _, count in found.pairs) == found.total - found.robust_correct
    assert all(true != other for true, other, _ in found.pairs)
    assert sum(found.class_totals) == found.total
    assert found.class_totals == tuple(torch.bincount(digits.validation.labels).tolist())


def test_the_class_of_a_broken_image_is_the_wrong_one_that_it_is_taken_for(trained, digits):
    model, images, labels = (
        trained.state.model,
        digits.validation.fetch(torch.arange(60)),
        digits.validation.labels[:60],
    )
    clean, found = predict_under_attack(model, images, labels, Threat("linf", 0.15), PGDConfig(0, 0.1), [images])
    assert torch.equal(found, model.eval()(images).argmax(1))
    assert torch.equal(clean, found == labels)


def test_logits_that_are_no_numbers_are_a_class_of_their_own(digits):
    found = evaluate(
        lambda x: torch.full((len(x), 10), torch.nan, requires_grad=True) + x.sum(),
        digits.validation,
        TASK,
        SETTINGS,
        10,
    )
    assert (found.clean_correct, found.robust_correct) == (0, 0)
    assert {other for _, other, _ in found.pairs} == {-1}


class Saturated(nn.Module):
    """A scale that makes cross-entropy 0 in float32: its gradient is gone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return 1e4 * self.inner(images)


class Stepped(nn.Module):
    """Rounds its input: no gradient passes at all."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return self.inner((images * 16).round() / 16) + 0 * images.sum()


def test_an_honest_model_gives_no_alarm(trained, digits):
    found = masking(trained.state.model, digits.validation, TASK, Evaluation())
    assert found.images == 128
    assert found.alarms == ()
    assert found.without_gradient == 0


def test_planted_masks_give_alarms(trained, digits):
    saturated = masking(Saturated(trained.state.model), digits.validation, TASK, Evaluation())
    assert any("margin breaks" in alarm for alarm in saturated.alarms)
    stepped = masking(Stepped(trained.state.model), digits.validation, TASK, Evaluation())
    assert any("have no gradient" in alarm for alarm in stepped.alarms)
    assert masking(trained.state.model, digits.validation, TASK, Evaluation(masking_images=0)).alarms == ()


def test_cross_entropy_as_objective_still_counts_what_the_margin_says(trained, digits):
    model = trained.state.model
    weak = evaluate(Saturated(model), digits.validation, TASK, SETTINGS, 10, objective="cross_entropy")
    strong = evaluate(Saturated(model), digits.validation, TASK, SETTINGS, 10)
    assert weak.robust_correct > strong.robust_correct
    assert weak.clean_correct == strong.clean_correct
