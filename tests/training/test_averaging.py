"""The running average is the weighted mean that its half-life says, and projects only what it hands out."""

from __future__ import annotations

import torch
from torch import nn

from hcpr_tune.training.models.architectures import CosineHead
from hcpr_tune.training.models.averaging import Averaged


def model():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), CosineHead(12, 4)).double()


def steps(count, seed=0):
    """Models as a training would leave them after each step."""
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(count):
        one = model()
        for tensor in one.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=drawn, dtype=torch.float64))
            else:
                tensor.fill_(7)
        yield one


def averaged_over(models, half_life=2.0, steps_per_epoch=3):
    averaged = Averaged(model(), half_life, steps_per_epoch)
    for one in models:
        averaged.update(one)
    return averaged


def test_it_is_the_normalised_weighted_mean_of_the_steps():
    seen = list(steps(20))
    found = averaged_over(seen).state_dict()["mean"]
    decay = 0.5 ** (1 / 6)
    weights = [decay ** (len(seen) - 1 - index) for index in range(len(seen))]
    for name in ("0.weight", "1.running_mean", "1.running_var", "3.weight"):
        expected = sum(w * one.state_dict()[name] for w, one in zip(weights, seen, strict=True)) / sum(weights)
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-12)
    assert int(found["1.num_batches_tracked"]) == 7


def test_a_steps_share_halves_every_half_life():
    averaged = Averaged(model(), half_life=2.0, steps_per_epoch=3)
    assert abs(averaged.decay**6 - 0.5) < 1e-12


def test_the_first_average_is_the_first_step_itself():
    (first,) = steps(1)
    found = averaged_over([first]).state_dict()["mean"]
    assert all(torch.equal(found[name], tensor) for name, tensor in first.state_dict().items())


def test_the_model_is_projected_and_the_mean_is_not():
    averaged = averaged_over(steps(5))
    rows = averaged.model()[3].weight.norm(dim=1)
    torch.testing.assert_close(rows, torch.ones(4, dtype=torch.float64))
    before = averaged.state_dict()["mean"]["3.weight"].clone()
    averaged.model()
    assert torch.equal(averaged.state_dict()["mean"]["3.weight"], before)
    assert not torch.allclose(before.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert not averaged.model().training
    assert not any(parameter.requires_grad for parameter in averaged.model().parameters())


def test_it_goes_on_where_it_was_saved(tmp_path):
    seen = list(steps(8))
    torch.save(averaged_over(seen[:5]).state_dict(), tmp_path / "a.pt")
    again = Averaged(model(), 2.0, 3)
    again.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    for one in seen[5:]:
        again.update(one)
    whole = averaged_over(seen).state_dict()["mean"]
    assert all(torch.equal(whole[name], tensor) for name, tensor in again.state_dict()["mean"].items())
