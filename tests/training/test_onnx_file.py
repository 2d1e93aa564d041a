"""ONNX files: the same logits under ONNX Runtime as from the model, or no file."""

from __future__ import annotations

import json
import sys

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from hcpr_tune.errors import InputError
from hcpr_tune.training.models.classifier import build_model, save_weights
from hcpr_tune.training.models.export import load_model
from hcpr_tune.training.models.onnx_file import exported, largest_difference, write_onnx
from hcpr_tune.training.recipe import Model, Recipe, recipe_to_toml

GRAY, COLOUR = (1, 8, 8), (3, 8, 8)
MODELS = {
    "cosine": (Model(width=4), GRAY),
    "linear, normalised": (
        Model(width=4, head="linear", head_bias=False, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        COLOUR,
    ),
    "resnet18": (Model(name="resnet18"), COLOUR),
}


NAMES = ["naïve cat", "犬", *"cdefghij"]
SCORES = {
    "robust_accuracy_validation": {"share": 0.5, "low_95": 0.4, "high_95": 0.6, "count": 50, "total": 100},
    "clean_accuracy_validation": {"share": 0.9, "low_95": 0.8, "high_95": 0.95, "count": 90, "total": 100},
}


def folder_with(root, model=MODELS["cosine"][0], image=GRAY, names=NAMES):
    """A folder as a training leaves it. Batch normalisation has seen images, so its statistics do not cancel out."""
    recipe = Recipe(model=model, method="pgd_at")  # which takes either head
    channels, *size = image
    network = build_model(recipe.network, channels, 10, 3, tuple(size)).train()
    with torch.no_grad():
        network(torch.rand(16, *image, generator=torch.Generator().manual_seed(1)))
    root.mkdir()
    save_weights(network, root / "model.safetensors")
    (root / "recipe.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    inputs = {"channels": channels, "classes": 10, "image_size": size} | ({"class_names": names} if names else {})
    metrics = {"model_inputs": inputs, "chosen_from": 5, **SCORES}
    (root / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_with(tmp_path_factory.mktemp("models") / "model")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "resnet18" else ()) for name in MODELS]
)
def test_the_file_gives_the_models_logits_whatever_the_batch(name, tmp_path, capfd):
    model, image = MODELS[name]
    folder = folder_with(tmp_path / "model", model, image)
    target = tmp_path / "out.onnx"
    written = write_onnx(folder, target)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.onnx"]
    assert (written.image, written.classes, written.size) == (image, 10, target.stat().st_size)
    assert written.difference <= 1e-4
    onnx.checker.check_model(str(target), full_check=True)
    assert b"hcpr_tune" not in target.read_bytes()
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["batch", *image])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])
    network = load_model(folder)
    for batch in (1, 7):
        drawn = torch.rand(batch, *image, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(None, {"images": drawn.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(drawn), atol=1e-4, rtol=0)


def test_the_file_says_what_goes_in_what_comes_out_and_how_good_it_is(folder, tmp_path):
    """All of it from ONNX Runtime, as where this program is not installed."""
    write_onnx(folder, tmp_path / "out.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    said = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    task = Recipe().task
    assert said == {
        "class_names": NAMES,
        "image_shape": [1, 8, 8],
        "image_range": [0, 1],
        "channel_order": "gray",
        "threat_model": {"norm": "linf", "epsilon": task.epsilon},
        "scores": SCORES
        | {
            "attacks_validation": "margin attack, 20 steps",
            "note": "on the validation images by which the model was chosen, and so optimistic",
        },
    }


def test_a_loaded_model_names_its_classes(folder, tmp_path):
    assert load_model(folder).classes == tuple(NAMES)
    without = load_model(folder_with(tmp_path / "old", names=None))
    assert without.classes == tuple("0123456789")


class Counting(nn.Module):
    """A network that has already something called classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classes(images.mean((2, 3)))
        return logits


def test_a_networks_own_classes_are_left_to_it(tmp_path):
    folder = folder_with(tmp_path / "model", Model(name=f"{__name__}:Counting", head="linear"))
    model = load_model(folder)
    assert model.classes == tuple(NAMES)
    assert isinstance(model.network.classes, nn.Linear)
    assert model(torch.rand(2, *GRAY)).shape == (2, 10)
    assert not model.training
    assert write_onnx(folder, tmp_path / "out.onnx").difference <= 1e-4


class Drawing(nn.Module):
    """A network that draws: no file can give its logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.mean((2, 3)))
        return logits + 0.01 * torch.rand_like(logits)


class Branching(nn.Module):
    """A network whose way depends on what it sees: no file can hold it."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.mean((2, 3)))
        return logits if float(logits.sum()) > 0 else -logits


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("Drawing", r"would give other logits than the model, by up to 0.0\d+ \(at most 0.0001\); nothing was written"),
        ("Branching", r"cannot be exported to ONNX: .*; load it from Python with hcpr_tune.load_model"),
    ],
)
def test_a_network_that_no_file_can_give_leaves_none(network, words, tmp_path):
    folder = folder_with(tmp_path / "model", Model(name=f"{__name__}:{network}", head="linear"))
    with pytest.raises(InputError, match=words) as raised:
        write_onnx(folder, tmp_path / "out.onnx")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_weights_are_found(folder):
    """The comparison sees a weight that is a little off."""
    model = load_model(folder)
    data = exported(model, GRAY, "it")
    assert largest_difference(model, data, GRAY) <= 1e-4
    model.head.bias[0] += 0.01
    assert largest_difference(model, data, GRAY) == pytest.approx(0.01, rel=1e-3)
    model.head.bias[0] = float("nan")
    assert not largest_difference(model, data, GRAY) <= 1e-4


def inputs(channels, classes, size):
    return b'{"model_inputs": {"channels": %s, "classes": %s, "image_size": %s}}' % (
        channels.encode(),
        classes.encode(),
        size,
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"damaged", "model.safetensors cannot be read as safetensors"),
        ("model.safetensors", None, "holds no model.safetensors; give a folder such as results/NAME/best"),
        ("metrics.json", b"{}", "has no valid model_inputs .model_inputs is missing"),
        ("metrics.json", b"[" * 100_000, "has no valid model_inputs"),
        ("metrics.json", b'"x"', "has no valid model_inputs"),
        *(
            ("metrics.json", inputs("1", "10", size), "has no valid model_inputs .model_inputs.image_size")
            for size in (b"8", b"[8]", b"[8, 0]", b"[8, 1e400]", b'["8", "8"]')
        ),
        (
            "metrics.json",
            b'{"model_inputs": {"channels": 1, "classes": 10, "image_size": [8, 8], "class_names": ["a", "b"]}}',
            "model_inputs.class_names must be as many names as the 10 classes",
        ),
        ("metrics.json", inputs("true", "10", b"[8, 8]"), "model_inputs.channels must be a whole number"),
        (
            "metrics.json",
            inputs("1", "1" + "0" * 400, b"[8, 8]"),
            "model_inputs.classes must be a whole number .* got 1000",
        ),
        ("recipe.toml", b"epochs = 'many'", "epochs must be a whole number"),
    ],
)
def test_a_damaged_folder_is_refused(name, content, words, tmp_path):
    folder = folder_with(tmp_path / "model")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        write_onnx(folder, tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_the_extra(package, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(InputError, match=rf"ONNX files need {package} .*; pip install 'hcpr_tune\[onnx\]'"):
        write_onnx(folder, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
