"""Weights are moved by exactly their share, up the loss, and come back bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hcpr_tune.training.methods.losses import cross_entropy
from hcpr_tune.training.methods.weight_perturbation import perturbed
from hcpr_tune.training.models.classifier import build_model, head_parameters
from hcpr_tune.training.recipe import Model


@pytest.fixture(params=["cosine", "linear"])
def case(request):
    model = build_model(Model(width=4, head=request.param), 1, 10, 0, (8, 8)).train()
    drawn = torch.Generator().manual_seed(0)
    images, labels = torch.rand(32, 1, 8, 8, generator=drawn), torch.randint(10, (32,), generator=drawn)
    return model, lambda: cross_entropy(8 * model(images), labels).mean()


def test_each_layer_moves_by_its_share_and_the_rest_stays(case, request):
    """A linear head is one of the layers, as in the published code; the unit rows of a cosine head are not."""
    model, loss = case
    before = {name: value.clone() for name, value in model.named_parameters()}
    cosine = request.node.callspec.params["case"] == "cosine"
    head = {id(parameter) for parameter in head_parameters(model)} if cosine else set()
    with perturbed(model, loss, 0.01):
        for name, parameter in model.named_parameters():
            moved = (parameter - before[name]).norm()
            if parameter.dim() > 1 and id(parameter) not in head:
                torch.testing.assert_close(moved, 0.01 * before[name].norm(), rtol=1e-4, atol=0)
            else:
                assert moved == 0
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_the_loss_is_higher_inside_and_its_gradients_stay(case):
    model, loss = case
    outside = loss().item()
    with perturbed(model, loss, 0.05):
        inside = loss()
        inside.backward()
    assert inside.item() > outside
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_extra_forward_leaves_no_trace_in_the_statistics(case):
    model, loss = case
    before = [buffer.clone() for buffer in model.buffers()]
    with perturbed(model, loss, 0.01):
        pass
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before, strict=True))


def test_weights_come_back_when_the_block_raises(case):
    model, loss = case
    before = [value.clone() for value in model.parameters()]
    with pytest.raises(ZeroDivisionError), perturbed(model, loss, 0.01):
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_layer_without_gradient_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with perturbed(model, lambda: 0 * model(torch.ones(1, 4)).sum(), 0.1):
        assert all(parameter.isfinite().all() for parameter in model.parameters())
