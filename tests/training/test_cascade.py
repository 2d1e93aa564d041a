"""The ladder of strong attacks: AutoAttack's own result, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from hcpr_tune.training.attacks.cascade import (
    CLEAN,
    CascadeConfig,
    Step,
    _in_ball_classes,
    _row_major,
    attacks_of,
    points_without_gradient,
    replaced_attacks,
    run_cascade,
    transfer,
)
from hcpr_tune.training.attacks.config import Threat
from hcpr_tune.training.data.dataset import load_data
from hcpr_tune.training.loop import initial_state, torch_threads, train
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.models.registry import ARCHITECTURES
from hcpr_tune.training.recipe import Attack, LrSchedule, Model, Recipe, Schedule, Task

TASK = Task(epsilon=0.1)
FEW = 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models are so small that two threads would wait for each other."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def model_and_images() -> tuple[nn.Module, Tensor, Tensor]:
    """A small model that withstands some of the attacks, images and labels."""
    recipe = Recipe(
        task=TASK,
        epochs=6,
        batch_size=64,
        model=Model(width=4),
        attack=Attack(epsilon=0.1, steps=Schedule(3, 3), step_size=0.05),
        lr_schedule=LrSchedule(shape="cosine"),
    )
    data = load_data(recipe.task)
    with torch_threads(1):
        state = initial_state(recipe, data)
        for _ in train(recipe, data, state):
            pass
    chosen = torch.arange(2 * FEW)
    return state.scored_model().eval(), data.validation.fetch(chosen), data.validation.labels[chosen]


def steps_of(
    model: nn.Module, images: Tensor, labels: Tensor, cascade: str = "autoattack", **more: object
) -> list[Step]:
    return list(run_cascade(model, images, labels, TASK.threat, CascadeConfig(10, 0, cascade), **more))  # type: ignore[arg-type]


class FirstFour(nn.Module):
    """Targeted attacks take every other class in turn: of four classes they take a third of the time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits[:, :4]


@pytest.fixture(scope="module")
def four_classes(model_and_images) -> tuple[nn.Module, Tensor, Tensor]:
    """The same model as one of four classes, with images of these."""
    split = load_data(TASK).validation
    chosen = torch.nonzero(split.labels < 4).flatten()[: 2 * FEW]
    return FirstFour(model_and_images[0]).eval(), split.fetch(chosen), split.labels[chosen]


@pytest.fixture(scope="module")
def first_chunk(four_classes) -> list[Step]:
    """The ladder's cheap half on the first of these images, once for all tests that look at it."""
    model, images, labels = four_classes
    with torch_threads(1):
        return list(run_cascade(model, images[:FEW], labels[:FEW], TASK.threat, CascadeConfig(4, 0, "strong")))


def survivors(step: Step, labels: Tensor) -> list[bool]:
    return [one == label for one, label in zip(step.classes, labels.tolist(), strict=True)]


@pytest.mark.parametrize("cascade", ["strong", pytest.param("autoattack", marks=pytest.mark.long)])
def test_it_is_autoattack_in_pieces_that_can_be_gone_on_with(model_and_images, cascade):
    from pyautoattack import AutoAttack

    model, images, labels = (model_and_images[0], *(one[:FEW] for one in model_and_images[1:]))
    whole = steps_of(model, images, labels, cascade)
    assert [step.attack for step in whole] == [CLEAN, *attacks_of(cascade, 10)]
    counts = [sum(survivors(step, labels)) for step in whole]
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[-1] < counts[0], "an attack that breaks all or nothing shows nothing"
    adversary = AutoAttack(model, device="cpu", eps=TASK.epsilon, norm="Linf", seed=0, version="standard")
    if cascade == "strong":
        adversary.attacks_to_run = adversary.attacks_to_run[:2]
    with torch.random.fork_rng():
        attacked, _ = adversary.run_standard_evaluation(images.clone(), labels.clone(), batch_size=FEW)
        expected = (model(attacked).argmax(dim=1) == labels).tolist()
    assert survivors(whole[-1], labels) == expected
    assert steps_of(model, images, labels, "strong", begun=whole[0]) == whole[1:3]
    assert steps_of(model, images, labels, cascade, begun=whole[1]) == whole[2:]
    assert steps_of(model, images, labels, cascade, begun=whole[-1]) == []
    assert steps_of(model, images, labels, "strong", begun=whole[-1]) == []


def test_a_chunk_depends_on_no_other_and_leaves_the_global_generator_alone(four_classes, first_chunk):
    model, images, labels = four_classes
    torch.rand(7)
    before = torch.get_rng_state()
    second, first = (
        list(run_cascade(model, images[part], labels[part], TASK.threat, CascadeConfig(4, 0, "strong")))
        for part in (slice(FEW, None), slice(FEW))
    )
    assert second != first == first_chunk
    assert torch.get_rng_state().equal(before)


def small_network(channels: int, classes: int, layout: torch.memory_format) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, classes)).eval().to(memory_format=layout)


ROWS, CHANNELS = torch.contiguous_format, torch.channels_last
LAYOUTS = pytest.mark.parametrize("layout", [ROWS, CHANNELS], ids=["rows", "channels"])


EVERY_INPUT = [
    ("strong", 1, 3, ROWS),
    ("strong", 3, 12, CHANNELS),
    ("strong", 4, 2, CHANNELS),
    *(
        pytest.param("autoattack", *one, marks=pytest.mark.long)
        for one in product((1, 3, 4), (2, 3, 12), (ROWS, CHANNELS))
    ),
]


@pytest.mark.parametrize(("cascade", "channels", "classes", "layout"), EVERY_INPUT)
def test_every_attack_runs_on_gray_colour_and_four_channels(cascade, channels, classes, layout):
    """On tensors of either layout; an attack sees only what earlier ones left, and little breaks in so small a ball."""
    model = small_network(channels, classes, layout)
    images = torch.rand(2, channels, 6, 6, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    config = CascadeConfig(classes, 0, cascade)
    for norm in ("linf", "l2") if cascade == "autoattack" else ("linf",):
        steps = list(run_cascade(model, images, labels, Threat(norm, 1e-4), config))
        assert [step.attack for step in steps] == [CLEAN, *attacks_of(cascade, classes)]
        assert survivors(steps[-1], labels) == [True, True]
    assert transfer(model, model, images, labels, Threat("linf", 1e-4), config) == 0


NAMES = [*ARCHITECTURES, "torchvision:mobilenet_v3_small"]
DEEPER = "wide_resnet_34_10"
"""The same blocks as wide_resnet_28_10."""


@LAYOUTS
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == DEEPER else ()) for name in NAMES]
)
def test_no_architecture_gives_autoattack_gradients_that_it_takes_no_view_of(name, layout):
    model = build_model(Model(name=name, width=4), 3, 4, 0, (8, 8)).eval().to(memory_format=layout)
    images = torch.rand(2, 3, 8, 8).to(memory_format=layout).requires_grad_()
    (gradient,) = torch.autograd.grad(_row_major(model)(images).square().sum(), images)
    assert gradient.view(2, -1).shape == (2, 192)
    (plain,) = torch.autograd.grad(model(images).square().sum(), images)
    assert gradient.equal(plain)


class Linear(nn.Module):
    """Two rows; the margin of label 0 is 2 w.x + b, which a ball of radius e moves by at most 2 e |w|_1."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        weight = torch.zeros(classes, 16)
        weight[0], weight[1] = 0.25, -0.25
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor([0.0, 0.0] + [-50.0] * (classes - 2)))

    def forward(self, images: Tensor) -> Tensor:
        # Around the middle of [0, 1], so that the ball is not cut off.
        return (images.flatten(1) - 0.5) @ self.weight.T + self.bias


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_what_lies_within_the_known_distance_breaks_and_nothing_else(classes):
    # The margin of an image with all pixels at 0.5 + d is 8 d; epsilon 0.1 moves it by 0.8.
    shifts = torch.tensor([0.02, 0.09, 0.099, 0.101, 0.11, 0.3])
    images = 0.5 + shifts.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    labels = torch.zeros(len(shifts), dtype=torch.long)
    last = list(run_cascade(Linear(classes).eval(), images, labels, TASK.threat, CascadeConfig(classes, 0, "strong")))[
        -1
    ]
    assert survivors(last, labels) == [False, False, False, True, True, True]
    assert last.attack == ("apgd-t" if classes > 3 else "margin")


@pytest.mark.parametrize("classes", [2, 3, 4, pytest.param(5, marks=pytest.mark.long)])
def test_all_of_the_ladder_runs_on_few_classes_and_draws_nothing_from_the_global_generator(classes):
    images = torch.full((2, 1, 4, 4), 0.5) + torch.tensor([0.09, 0.2]).view(-1, 1, 1, 1)
    labels, before = torch.zeros(2, dtype=torch.long), torch.get_rng_state()
    steps = list(run_cascade(Linear(classes).eval(), images, labels, TASK.threat, CascadeConfig(classes, 0)))
    assert [step.attack for step in steps] == [CLEAN, *attacks_of("autoattack", classes)]
    assert survivors(steps[0], labels) == [True, True]
    assert survivors(steps[-1], labels) == [False, True]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("classes", "words"), [(2, "2 classes are too few"), (3, "fab, square ran instead"), (4, ""), (10, "")]
)
def test_it_says_what_stands_in_for_targeted_attacks(classes, words):
    assert words in replaced_attacks(classes)
    assert bool(words) == bool(replaced_attacks(classes))


def test_an_l2_ball_is_kept(four_classes):
    model, images, labels = four_classes
    steps = list(run_cascade(model, images[:FEW], labels[:FEW], Threat("l2", 0.5), CascadeConfig(4, 0, "strong")))
    assert 0 < sum(survivors(steps[-1], labels[:FEW])) < sum(survivors(steps[0], labels[:FEW]))


def test_what_lies_outside_the_ball_or_is_no_image_counts_as_surviving(model_and_images):
    model, images, _ = model_and_images
    right = model(images).argmax(dim=1)
    wrong = (right + 1) % 10
    for attacked in (images + 0.3, images - 0.3, images.where(images < 2, images) + 2):
        assert _in_ball_classes(model, attacked, images, wrong, TASK.threat).equal(wrong)
    assert _in_ball_classes(model, images, images, wrong, TASK.threat).equal(right)


class Tricks(nn.Module):
    """A model that does something to its logits."""

    def __init__(self, network: nn.Module, trick: str) -> None:
        super().__init__()
        self.network, self.trick = network, trick

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        if self.trick == "random":
            # Little enough that no prediction changes: a point without a gradient of the DLR loss can be one that was
            # misjudged.
            return logits + 0.01 * torch.randn_like(logits)
        return logits.softmax(dim=1) if self.trick == "probabilities" else (4 * logits).round() / 4


@pytest.mark.parametrize(
    ("trick", "words"),
    [("random", "randomized defense"), ("probabilities", "probability distribution"), ("flat", "zero gradient")],
)
def test_tricks_are_warned_of(four_classes, trick, words):
    model, images, labels = Tricks(four_classes[0], trick).eval(), *(one[:FEW] for one in four_classes[1:])
    steps = run_cascade(model, images, labels, TASK.threat, CascadeConfig(4, 0, "strong"))
    warnings = [one for step in steps for one in step.warnings]
    assert any(words in one for one in warnings), warnings
    assert not any("See" in one for one in warnings)
    assert (points_without_gradient(tuple(warnings)) > 0) == (trick == "flat")


def test_an_ordinary_model_is_not_warned_of(first_chunk):
    assert not [one for step in first_chunk for one in step.warnings]


def test_images_attacked_on_the_same_model_break_it_and_no_others_are_counted(four_classes, first_chunk):
    model, images, labels = (four_classes[0], *(one[:FEW] for one in four_classes[1:]))
    clean, alone = first_chunk[:2]
    right = torch.tensor(survivors(clean, labels))
    count = transfer(model, model, images[right], labels[right], TASK.threat, CascadeConfig(4, 0))
    assert count > 0
    assert abs(count - (int(right.sum()) - sum(survivors(alone, labels)))) <= 2
    assert transfer(model, model, images[:0], labels[:0], TASK.threat, CascadeConfig(4, 0)) == 0
