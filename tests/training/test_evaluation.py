"""Counts that depend on the model and nothing else, an attack that a scale cannot fool, and intervals."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

from hcpr_tune.common.intervals import wilson_interval
from hcpr_tune.training.attacks.config import PGDConfig
from hcpr_tune.training.attacks.evaluation import chunk_of, evaluate, random_starts, scoring_attack
from hcpr_tune.training.attacks.pgd import evaluating, pgd
from hcpr_tune.training.data.dataset import Split
from hcpr_tune.training.recipe import Evaluation, Task

EPSILON = 0.1
TASK = Task(epsilon=EPSILON)
SETTINGS = Evaluation(steps=10)


class Scaled(nn.Module):
    """The logits of `inner` times 2^14; a power of two, so that no rounding tells the two apart."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return 2.0**14 * self.inner(images)


class Precise(nn.Module):
    """A copy of `inner` in float64 for images in float32, so that the batch size moves no sign by rounding."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images.double())


def starts_of(split: Split, epsilon: float, seed: int = 0) -> Tensor:
    """The one start of every image."""
    positions = torch.arange(len(split))
    task = Task(epsilon=epsilon)
    config = scoring_attack(task, Evaluation())
    (start,) = random_starts(split.fetch(positions), positions, task.threat, config, seed)
    return start


@pytest.fixture(scope="module")
def counted(trained, digits):
    """What the attack finds on the trained model."""
    return evaluate(trained.state.model, digits.validation, TASK, SETTINGS, 10)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_has_its_known_values(correct, total, low, high):
    # The last one is Newcombe's example, Statistics in Medicine 17 (1998), table I.
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(counts=st.integers(1, 20000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
@settings(deadline=None, database=None)
def test_wilson_interval_is_scipys_and_holds_the_share(counts):
    correct, total = counts
    low, high = wilson_interval(correct, total)
    known = binomtest(correct, total).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert 0 <= low <= correct / total <= high <= 1


@pytest.mark.parametrize("total", [1, 7, 359, 10000])
def test_wilson_interval_ends_exactly_at_none_and_at_all(total):
    assert wilson_interval(0, total)[0] == 0.0
    assert wilson_interval(total, total)[1] == 1.0


def test_wilson_interval_of_nothing_is_everything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_robust_is_at_most_clean_is_at_most_total(counted, digits):
    found = counted
    assert 0 < found.robust_correct < found.clean_correct < found.total == len(digits.validation)


def test_clean_count_is_that_of_the_largest_logit(trained, digits, counted):
    model, split = trained.state.model, digits.validation
    with evaluating(model), torch.no_grad():
        expected = int((model(split.to_unit(split.images)).argmax(1) == split.labels).sum())
    assert counted.clean_correct == expected


def test_evaluation_repeats_itself_and_draws_from_no_global_generator(trained, digits, counted):
    state = torch.get_rng_state()
    assert evaluate(trained.state.model, digits.validation, TASK, SETTINGS, 10) == counted
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_does_not_depend_on_the_models_mode_and_restores_it(trained, digits, counted):
    model = copy.deepcopy(trained.state.model)
    for training in {True, False} - {trained.state.model.training}:
        model.train(training)
        assert evaluate(model, digits.validation, TASK, SETTINGS, 10) == counted
        assert all(part.training == training for part in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), trained.state.model.buffers(), strict=True))


def test_counts_do_not_depend_on_the_batch_size(trained, digits):
    model = Precise(trained.state.model)
    few = replace(SETTINGS, steps=4)
    counts = {evaluate(model, digits.validation, TASK, replace(few, batch_size=size), 10) for size in (512, 100, 33)}
    assert len(counts) == 1


def test_the_attack_begins_at_the_random_starts(trained, digits):
    # A step too short to move anything leaves the clipped starts themselves; a wide ball makes them hard.
    model, split = trained.state.model, digits.validation
    images, starts = split.to_unit(split.images), starts_of(split, 0.5).clamp(0, 1)
    with evaluating(model), torch.no_grad():
        clean, moved = (model(shown).argmax(1) == split.labels for shown in (images, starts))
    found = evaluate(model, split, Task(epsilon=0.5), Evaluation(steps=1, relative_step_size=1e-7), 10)
    assert found.robust_correct == int((clean & moved).sum()) < found.clean_correct


def test_a_wider_ball_breaks_more(trained, digits, counted):
    narrow = evaluate(trained.state.model, digits.validation, Task(epsilon=0.05), SETTINGS, 10)
    assert narrow.robust_correct > counted.robust_correct


def test_starts_are_fixed_per_image_and_fill_the_ball(digits):
    split = digits.validation
    starts = starts_of(split, EPSILON)
    assert torch.equal(starts, starts_of(split, EPSILON))
    assert not torch.equal(starts, starts_of(split, EPSILON, seed=1))
    moved = starts - split.to_unit(split.images)
    assert moved.abs().max() <= EPSILON + 1e-6
    assert moved.min() < -0.99 * EPSILON
    assert moved.max() > 0.99 * EPSILON
    assert abs(float(moved.mean())) < 0.01 * EPSILON
    # The same direction in a smaller ball: radii are compared on the same draw.
    half = starts_of(split, EPSILON / 2) - split.to_unit(split.images)
    torch.testing.assert_close(half, moved / 2, rtol=0, atol=1e-6)


def cross_entropy_survivors(model: nn.Module, images: Tensor, labels: Tensor, start: Tensor) -> int:
    """What a search must not score with: how many images survive PGD on the cross-entropy."""
    adversarial = pgd(
        model,
        images,
        lambda logits: F.cross_entropy(logits, labels, reduction="none"),
        TASK.threat,
        PGDConfig(SETTINGS.steps, SETTINGS.relative_step_size * EPSILON),
        start,
    )
    with evaluating(model), torch.no_grad():
        return int((model(adversarial).argmax(1) == labels).sum())


def test_a_scale_of_the_logits_fools_cross_entropy_but_not_the_margin(trained, digits, counted):
    model, split, honest = trained.state.model, digits.validation, counted
    masked = evaluate(Scaled(model), split, TASK, SETTINGS, 10)
    assert masked == honest
    images, start = split.to_unit(split.images), starts_of(split, EPSILON, SETTINGS.seed)
    fooled = cross_entropy_survivors(Scaled(model), images, split.labels, start)
    assert fooled > masked.robust_correct + 0.1 * masked.total
    # Without the scale cross-entropy finds most of what the margin finds: it is the scale that hides the rest.
    assert cross_entropy_survivors(model, images, split.labels, start) < fooled - 0.05 * masked.total


@given(total=st.integers(1, 300), size=st.integers(1, 120))
@settings(deadline=None, database=None)
def test_chunks_hold_every_image_once_and_each_is_spread_over_all(total, size):
    positions = torch.arange(total)
    chunks = [chunk_of(positions, size, number) for number in range(-(-total // size))]
    assert sorted(torch.cat(chunks).tolist()) == positions.tolist()
    assert all(0 < len(chunk) <= size for chunk in chunks)
    if len(chunks[0]) > 1:
        apart = chunks[0].sort().values.diff()
        assert apart.max() <= 2 * len(chunks), "a stretch without an image: a class may lie in it"


def test_survivors_at_further_radii_are_those_of_attacks_there_and_epsilon_s_stay(trained, digits):
    model, radii = Precise(trained.state.model), (0.25, 0.5, 1.5, 3.0)
    plain = evaluate(model, digits.validation, TASK, SETTINGS, 10)
    found = evaluate(model, digits.validation, TASK, replace(SETTINGS, radii=radii), 10)
    assert replace(found, survivors=()) == plain
    assert [radius for radius, _ in found.survivors] == [0.25, 0.5, 1.0, 1.5, 3.0]
    alone = [
        evaluate(model, digits.validation, replace(TASK, epsilon=radius * EPSILON), SETTINGS, 10).robust_correct
        for radius, _ in found.survivors
    ]
    # An image that survives at one radius counts as surviving at all smaller ones, where it was not attacked.
    differences = [count - other for (_, count), other in zip(found.survivors, alone, strict=True)]
    assert all(0 <= one <= 4 for one in differences[:3])
    assert all(-4 <= one <= 0 for one in differences[3:])
    assert found.clean_correct > found.survivors[0][1] > found.survivors[-1][1]
