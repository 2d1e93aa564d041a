"""The picture of attacked images: it shows what the evaluation does, and neither changes nor is needed by training."""

from __future__ import annotations

import copy
import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hcpr_tune.common.drawing import class_word, font, png_size, shortened, width_of
from hcpr_tune.training import checkpoints, session
from hcpr_tune.training.attacks.evaluation import random_starts, scored_positions, scoring_attack
from hcpr_tune.training.attacks.examples import MOST_BYTES, SHOWN, Examples, draw_examples, examples_png, find_examples
from hcpr_tune.training.attacks.pgd import predict_under_attack
from hcpr_tune.training.loop import initial_state
from hcpr_tune.training.recipe import Averaging, Evaluation, Task
from hcpr_tune.training.session import DataShelf, train_segment

TASK, SETTINGS = Task(epsilon=0.1), Evaluation(steps=5)


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return replace(tiny_recipe, epochs=2, segment_ends=(1,))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """A training to the end: its folder and its reports."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, list(train_segment(recipe, DataShelf(), folder, 0, 2))


def weights(folder, epoch):
    return (checkpoints.folder_of(folder, epoch) / "state.pt").read_bytes()


@pytest.mark.parametrize("half_life", [0.0, 1.0])
def test_the_training_is_the_same_bit_for_bit_without_it(recipe, tmp_path, monkeypatch, half_life):
    recipe = replace(recipe, averaging=Averaging(half_life=half_life))
    torch.manual_seed(7)
    drawn = list(train_segment(recipe, DataShelf(), tmp_path / "drawn", 0, 2))
    after = torch.get_rng_state()
    monkeypatch.setattr(session, "examples_png", lambda *_: b"")
    torch.manual_seed(7)
    plain = list(train_segment(recipe, DataShelf(), tmp_path / "plain", 0, 2))
    assert torch.equal(after, torch.get_rng_state())
    for epoch in (1, 2):
        assert weights(tmp_path / "drawn", epoch) == weights(tmp_path / "plain", epoch)
        folders = [checkpoints.folder_of(tmp_path / name, epoch) for name in ("drawn", "plain")]
        assert [(folder / "examples.png").exists() for folder in folders] == [True, False]
    measured = ("loss", "clean_correct_validation", "robust_correct_validation", "attacked_pairs_validation")
    assert [[one.get(name) for name in measured] for one in drawn] == [
        [one.get(name) for name in measured] for one in plain
    ]


class Drawing(nn.Module):
    """A user's model that draws from the shared generator whenever it runs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images + 0.0 * torch.rand_like(images))


def test_model_and_generators_are_left_as_they_were(recipe, digits):
    state = initial_state(recipe, digits)
    state.model = Drawing(state.model)
    state.model.train()
    list(state.model.modules())[3].eval()
    before = copy.deepcopy(state.model.state_dict())
    modes = [module.training for module in state.model.modules()]
    draws, threads = torch.get_rng_state(), torch.get_num_threads()
    examples_png(recipe, digits, state)
    assert torch.equal(draws, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert [module.training for module in state.model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in state.model.state_dict().items())
    assert all(one.requires_grad and one.grad is None for one in state.model.parameters())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_shows_what_the_evaluation_counts(trained, digits, norm):
    # In float64: with another batch size a sign may turn by rounding.
    precise = copy.deepcopy(trained.state.model).double()

    def model(images):
        return precise(images.double())

    precise.eval()
    task = replace(TASK, norm=norm, epsilon=0.1 if norm == "linf" else 0.7)
    split = digits.validation
    found = find_examples(model, split, task, SETTINGS)
    everything = torch.arange(len(split))
    images, config = split.fetch(everything), scoring_attack(task, SETTINGS)
    starts = random_starts(images, everything, task.threat, config, SETTINGS.seed)
    clean, attacked = predict_under_attack(model, images, split.labels, task.threat, config, starts)
    for number in range(SHOWN):
        (at,) = torch.nonzero((split.fetch(everything) == torch.from_numpy(found.images[number])).flatten(1).all(1))
        assert found.true[number] == split.labels[at]
        assert found.attacked_classes[number] == attacked[at]
        assert (found.clean_classes[number] == found.true[number]) == clean[at]
    images, changed = torch.from_numpy(found.images), torch.from_numpy(found.attacked)
    assert model(images).argmax(1).tolist() == found.clean_classes
    assert model(changed).argmax(1).tolist() == found.attacked_classes
    order = {"linf": torch.inf, "l2": 2}[norm]
    assert torch.linalg.vector_norm((changed - images).flatten(1), ord=order, dim=1).max() <= task.epsilon * (1 + 1e-5)
    assert any(one != other for one, other in zip(found.true, found.attacked_classes, strict=True))


def test_the_images_are_the_same_for_every_model_and_of_different_classes(recipe, digits, trained):
    first = find_examples(trained.state.model, digits.validation, TASK, SETTINGS)
    other = find_examples(initial_state(recipe, digits).model, digits.validation, TASK, SETTINGS)
    assert np.array_equal(first.images, other.images)
    assert len(set(first.true)) == SHOWN
    few = replace(SETTINGS, images=20)
    scored = digits.validation.fetch(scored_positions(digits.validation, few)).numpy()
    shown = find_examples(trained.state.model, digits.validation, TASK, few).images
    assert all(any(np.array_equal(one, image) for image in scored) for one in shown)


def test_what_is_wrong_before_the_attack_is_not_attacked(digits):
    def always_three(images):
        return torch.nn.functional.one_hot(torch.full((len(images),), 3), 10) + 0.0 * images.flatten(1).sum(1)[:, None]

    found = find_examples(always_three, digits.validation, TASK, SETTINGS)
    assert set(found.clean_classes) == set(found.attacked_classes) == {3}
    wrong = np.array(found.true) != 3
    assert np.array_equal(found.attacked[wrong], found.images[wrong])


def test_only_rungs_have_a_picture(recipe, tmp_path):
    for report in train_segment(replace(recipe, epochs=3), DataShelf(), tmp_path, 0, 3):
        path = checkpoints.folder_of(tmp_path, report["epoch"]) / "examples.png"
        assert path.exists() == report["is_rung"]
    assert png_size(path.read_bytes()) is not None


@pytest.mark.parametrize("damage", ["missing", "cut off", "empty", "altered"])
def test_nothing_goes_on_from_it(recipe, whole, tmp_path, damage):
    shutil.copytree(checkpoints.folder_of(whole[0], 1), checkpoints.folder_of(tmp_path, 1))
    path = checkpoints.folder_of(tmp_path, 1) / "examples.png"
    data = path.read_bytes()
    changed = {"cut off": data[:40], "empty": b"", "altered": data[:-9] + b"?" + data[-8:]}
    path.write_bytes(changed[damage]) if damage in changed else path.unlink()
    (again,) = train_segment(recipe, DataShelf(), tmp_path, 1, 2)
    assert (again["epoch"], again["losses"]) == (2, [])
    assert weights(tmp_path, 2) == weights(whole[0], 2)
    assert again["loss"] == whole[1][-1]["loss"]


def of_noise(channels, height, width, count=SHOWN):
    draws = np.random.default_rng(3)
    images = draws.random((count, channels, height, width))
    attacked = (images + draws.choice([-0.1, 0.1], images.shape)).clip(0, 1)
    return Examples(images, attacked, range(count), range(count), [1, 0, 2, -1, 4, 0][:count])


@pytest.mark.parametrize(
    ("channels", "height", "width", "tile"),
    [
        (1, 8, 8, (64, 64)),
        (1, 28, 28, (56, 56)),
        (3, 32, 32, (64, 64)),
        (3, 96, 96, (96, 96)),
        (3, 224, 112, (48, 96)),
        (2, 16, 16, (64, 64)),
        (4, 16, 16, (64, 64)),
        (3, 4000, 2, (1, 96)),
        (1, 1, 1, (64, 64)),
    ],
)
def test_images_of_any_shape_are_shown_at_a_size_that_one_sees(channels, height, width, tile):
    found = of_noise(channels, height, width)
    image = draw_examples(found, TASK, SETTINGS, [str(number) for number in range(6)], 3)
    widest = width_of("3", 12) + 18 + width_of("none", 12)
    across = 92 + 6 * (max(tile[0], widest) + 10)
    assert image.size == (across, 44 + 3 * tile[1] + 2 * (16 + 10) + 10)


def test_pixels_stand_where_they_belong_and_the_change_is_amplified():
    images = np.full((6, 1, 8, 8), 0.5)
    attacked = images.copy()
    attacked[0, 0, 0, 0], attacked[0, 0, 7, 7] = 0.6, 0.4
    found = Examples(images, attacked, range(6), range(6), range(6))
    image = draw_examples(found, TASK, SETTINGS, [str(number) for number in range(6)], 3).convert("L")
    left = 92
    tops = [44 + row * (64 + 16 + 10) for row in range(3)]
    corner, middle, last = (2, 2), (32, 32), (61, 61)
    read = [[image.getpixel((left + x, top + y)) for x, y in (corner, middle, last)] for top in tops]
    assert read == [[128, 128, 128], [153, 128, 102], [255, 128, 0]]


def test_few_images_and_strange_names_are_drawn():
    names = ["", "猫", "café\n  noir", "x" * 300, "\udcff", "\U0001f436 dog"]
    assert [class_word(number, names) for number in range(-1, 7)] == [
        "none", "0", "1", "cafe noir", "x" * 300, "4", "5", "6",
    ]  # fmt: skip
    assert draw_examples(of_noise(1, 8, 8, count=2), TASK, SETTINGS, names, 3).size[0] > 92
    assert draw_examples(of_noise(1, 8, 8), TASK, SETTINGS, names, 3).size[0] > 92
    cut = shortened("x" * 300, 60, 12)
    assert cut.endswith("…")
    assert width_of(cut, 12) <= 60


def test_the_font_has_the_letters_that_are_used():
    missing = bytes(font(12).getmask("\U000f1234"))
    assert all(bytes(font(12).getmask(chr(code))) != missing for code in range(33, 127))
    assert bytes(font(12).getmask("…")) != missing


def test_a_picture_that_would_be_large_is_brought_to_fewer_colours(recipe, digits, monkeypatch):
    state = initial_state(recipe, digits)
    monkeypatch.setattr("hcpr_tune.training.attacks.examples.find_examples", lambda *_: of_noise(3, 96, 96))
    data = examples_png(recipe, digits, state)
    assert len(data) < 1.2 * MOST_BYTES
    assert Image.open(io.BytesIO(data)).mode == "P"
