"""A user's own factory: used where it is good, and its own traceback shown where it is not."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from hcpr_tune.errors import InputError
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.plugins import Ended, PluginError, guarded, guarded_steps, load
from hcpr_tune.training.recipe import Model

SOURCE = """
import torch
from torch import nn

def good(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))

def takes_views(classes, channels):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.last = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(256, classes)

        def forward(self, images):
            return self.last(self.convolution(images).view(len(images), -1))
    return Views()

def too_many(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes + 1))

def raises(classes, channels):
    return {}["nothing"]

def no_module(classes, channels):
    return 3

def infinite(classes, channels):
    class Infinite(nn.Module):
        def forward(self, images):
            return torch.full((len(images), classes), float("inf"))
    return Infinite()

number = 4
"""


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def build(name):
    return build_model(Model(name=name), 1, 10, 0, (8, 8))


def test_a_good_factory_gives_the_model():
    assert build("own_models:good")[1].out_features == 10


def test_a_network_that_takes_views_is_trained_in_row_major_order():
    model = build_model(Model(name="own_models:takes_views"), 3, 10, 0, (8, 8))
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    model(images).sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_models:too_many", r"must give logits of shape \(2, 10\) .* got \(2, 11\)"),
        ("own_models:no_module", "must return a torch.nn.Module, got int"),
        ("own_models:infinite", "must give finite logits"),
        ("own_models:missing", "own_models has no such name"),
        ("own_models:number", "has a int of that name, which is not callable"),
        ("no_such_module:factory", "importing no_such_module raised ModuleNotFoundError"),
    ],
)
def test_a_bad_factory_is_named_with_what_it_did(name, words):
    with pytest.raises(InputError, match=words) as caught:
        build(name)
    assert name in str(caught.value)


def test_what_a_factory_raises_is_shown_with_its_own_lines():
    with pytest.raises(PluginError, match="calling it with classes=10, channels=1 raised KeyError") as caught:
        build("own_models:raises")
    assert 'return {}["nothing"]' in caught.value.details
    assert "hcpr_tune" not in caught.value.details


def test_what_a_modules_import_raises_is_shown_with_its_own_lines():
    with pytest.raises(PluginError, match="importing own_broken raised ModuleNotFoundError") as caught:
        load("own_broken:anything", "method")
    assert "import not_there_at_all" in caught.value.details
    assert "importlib" not in caught.value.details


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_interruption_goes_through_and_the_handlers_are_as_before(number):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), guarded():
            os.kill(os.getpid(), number)
            signal.pause()
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("any")])
def test_what_would_end_the_process_becomes_an_error(raised):
    def steps():
        yield 1
        raise raised

    items = guarded_steps(steps())
    assert next(items) == 1
    with pytest.raises(Ended, match=f"ended with {type(raised).__name__}.*test_plugins.py, line"):
        next(items)
