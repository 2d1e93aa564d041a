"""The cosine head, its projection, and weights that are drawn from their seed and read back from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hcpr_tune.errors import InputError
from hcpr_tune.training.models.architectures import LinearHead
from hcpr_tune.training.models.classifier import (
    CosineHead,
    build_model,
    load_weights,
    normalise_head,
    save_weights,
)
from hcpr_tune.training.models.registry import ARCHITECTURES
from hcpr_tune.training.recipe import Model


def small(seed: int = 0, width: int = 4, head_bias: bool = True) -> nn.Module:
    return build_model(Model(width=width, head_bias=head_bias), channels=1, classes=10, seed=seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head_with(weight: Tensor, bias: Tensor | None) -> CosineHead:
    head = CosineHead(weight.shape[1], weight.shape[0], bias is not None).double()
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias is not None:
            head.bias.copy_(bias)
    return head


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_head_gives_cosines_plus_bias(with_bias):
    features, weight, bias = random(6, 5), 3 * random(4, 5, seed=1), random(4, seed=2)
    head = head_with(weight, bias if with_bias else None)
    normalise_head(head)
    logits = head(features)
    for i in range(6):
        for j in range(4):
            cosine = (weight[j] @ features[i]) / (weight[j].norm() * features[i].norm())
            expected = cosine + bias[j] if with_bias else cosine
            assert logits[i, j].item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_heads_logits_do_not_depend_on_the_length_of_the_features():
    head = small().head.double()
    features = random(3, head.weight.shape[1])
    torch.testing.assert_close(head(features), head(1000 * features))


def test_projection_makes_unit_rows_of_the_same_direction_and_touches_nothing_else():
    model = nn.Sequential(nn.Linear(5, 5).double(), head_with(3 * random(4, 5), random(4, seed=1)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameter = model[1].weight
    normalise_head(model)
    assert model[1].weight is parameter
    assert parameter.requires_grad
    torch.testing.assert_close(parameter.detach(), before["1.weight"] / before["1.weight"].norm(dim=1, keepdim=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name != "1.weight")


def test_projecting_twice_changes_nothing_but_rounding():
    head = head_with(random(4, 5), None)
    normalise_head(head)
    once = head.weight.detach().clone()
    normalise_head(head)
    torch.testing.assert_close(head.weight.detach(), once, rtol=0, atol=1e-15)


def test_projection_leaves_the_momentum_alone():
    head = head_with(random(4, 5), random(4, seed=1))
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    head(random(6, 5, seed=2)).square().sum().backward()
    optimiser.step()
    buffer = optimiser.state[head.weight]["momentum_buffer"]
    before = buffer.clone()
    normalise_head(head)
    assert optimiser.state[head.weight]["momentum_buffer"] is buffer
    assert torch.equal(buffer, before)


def test_no_gradient_passes_through_the_norm_of_the_rows():
    # Through the norm the gradient would be orthogonal to the row; without it, it is the plain sum of unit features.
    head, features = head_with(random(4, 5), None), random(6, 5, seed=1)
    normalise_head(head)
    upstream = random(6, 4, seed=2)
    (gradient,) = torch.autograd.grad((head(features) * upstream).sum(), head.weight)
    torch.testing.assert_close(gradient, upstream.T @ (features / features.norm(dim=1, keepdim=True)))
    assert (gradient * head.weight).sum(1).abs().min() > 1e-3


def test_the_gradient_to_the_features_is_that_of_the_cosine():
    head = head_with(random(4, 5), random(4, seed=1))
    assert torch.autograd.gradcheck(head, random(3, 5, seed=2).requires_grad_(True))


def test_features_of_length_zero_give_the_bias():
    head = head_with(random(4, 5), random(4, seed=1))
    assert torch.equal(head(torch.zeros(2, 5, dtype=torch.float64)), head.bias.expand(2, 4))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long if name == "wide_resnet_34_10" else ()) for name in ARCHITECTURES],
)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16)])
def test_every_architecture_gives_projected_cosine_logits(name, channels, side):
    model = build_model(Model(name=name, width=4), channels, classes=7, seed=0)
    logits = model(torch.rand(5, channels, side, side))
    assert logits.shape == (5, 7)
    assert logits.abs().max() <= 1 + 1e-6  # the bias starts at 0
    heads = [part for part in model.modules() if isinstance(part, CosineHead)]
    assert len(heads) == 1
    torch.testing.assert_close(heads[0].weight.norm(dim=1).detach(), torch.ones(7))


def test_every_architecture_that_a_recipe_may_name_exists():
    assert set(ARCHITECTURES) == set(Model.__dataclass_fields__["name"].metadata["bounds"].choices)


def test_a_head_without_bias_has_none():
    assert small(head_bias=False).head.bias is None
    assert "head.bias" not in small(head_bias=False).state_dict()


def test_building_a_model_leaves_the_global_generator_as_found():
    before = torch.get_rng_state()
    small(seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_drawn_from_the_seed_alone():
    first = small(seed=5).state_dict()
    torch.manual_seed(123)
    again, other = small(seed=5).state_dict(), small(seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_weights_read_back_as_they_were_written(trained, tmp_path):
    save_weights(trained.state.model, tmp_path / "model.safetensors")
    model = small(seed=9)
    load_weights(model, tmp_path / "model.safetensors")
    expected = trained.state.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def damaged(folder: Path, kind: str) -> Path:
    """A file that does not hold the weights of `small()`."""
    path = folder / "model.safetensors"
    if kind == "missing":
        return path
    save_weights(small(width=8) if kind == "wider" else small(head_bias=kind != "without bias"), path)
    whole = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no safetensors":
        torch.save(small().state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["truncated", "empty", "missing", "no safetensors", "wider", "without bias"])
def test_a_file_that_does_not_hold_the_weights_is_refused_by_name(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises(
        InputError, match=r"does not hold the weights of this recipe's model|cannot be read as safetensors"
    ) as caught:
        load_weights(small(), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


OWN = """
import torch
from hcpr_tune import ArchitectureSpec

def build(inputs):
    pixels = inputs.channels * inputs.image_size[0] * inputs.image_size[1]
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(pixels, inputs.width), torch.nn.ReLU(), inputs.head(inputs.width)
    )

PERCEPTRON = ArchitectureSpec(build)
"""


def test_a_users_network_is_registered_as_a_built_in_one_is(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for head, kind in (("cosine", CosineHead), ("linear", LinearHead)):
        model = build_model(Model(name="my_networks:PERCEPTRON", width=5, head=head), 3, 7, 0, (8, 6))
        assert model(torch.rand(2, 3, 8, 6)).shape == (2, 7)
        assert isinstance(model[-1], kind)
        assert model[1].out_features == 5
