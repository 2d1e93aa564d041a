"""Every model that can be named: its size, its gradients, its head, and the folded copy that is attacked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hcpr_tune.errors import InputError
from hcpr_tune.training.models.architectures import CosineHead
from hcpr_tune.training.models.classifier import build_model, normalise_head
from hcpr_tune.training.models.export import load_model
from hcpr_tune.training.models.folding import fuse_conv_bn
from hcpr_tune.training.recipe import Model

PUBLISHED_MILLIONS = {
    "resnet18": 11.17,
    "preact_resnet18": 11.17,
    "wide_resnet_28_10": 36.48,
    "wide_resnet_34_10": 46.16,
}


def unsettle(model):
    """Batch norm as after some training: its folding must not be an identity."""
    drawn = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
                (module.weight, 0.5),
                (module.bias, -0.5),
            ):
                tensor.data = low + torch.rand(tensor.shape, generator=drawn).to(tensor)
    return model


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_sizes_are_the_published_ones(name):
    model = build_model(Model(name=name), 3, 10, 0)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(
        PUBLISHED_MILLIONS[name], abs=0.01
    )


@pytest.mark.parametrize("head", ["cosine", "linear"])
@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "preact_resnet18", "torchvision:resnet18"])
def test_gradients_reach_every_parameter(name, head):
    model = build_model(Model(name=name, head=head), 1, 5, 0, (16, 16)).train()
    model(torch.rand(4, 1, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    heads = [module for module in model.modules() if isinstance(module, CosineHead)]
    assert len(heads) == (head == "cosine")


@pytest.mark.parametrize(
    "name",
    [
        "small_cnn",
        "resnet18",
        "preact_resnet18",
        "wide_resnet_28_10",
        "torchvision:mobilenet_v3_small",
        pytest.param("torchvision:vgg11", marks=pytest.mark.long),
    ],
)
def test_the_model_that_is_attacked_is_the_same_function(name):
    size = 64 if name.startswith("torchvision") else 16
    model = unsettle(build_model(Model(name=name), 3, 10, 0, (size, size)).double()).eval()
    images = torch.rand(2, 3, size, size, dtype=torch.float64, requires_grad=True)
    quick = fuse_conv_bn(model)
    logits, found = model(images), quick(images)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(one.square().sum(), images)[0] for one in (logits, found)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)
    normalisations = [sum(isinstance(m, nn.BatchNorm2d) for m in one.modules()) for one in (model, quick)]
    assert normalisations[1] < normalisations[0] or quick is model


def test_folding_leaves_the_model_as_it_was():
    model = unsettle(build_model(Model(), 1, 10, 0, (8, 8))).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quick = fuse_conv_bn(model)
    assert model.training
    assert not quick.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_head_stays_in_float32_under_autocast():
    model = build_model(Model(), 1, 10, 0, (8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(2, 1, 8, 8)).dtype == torch.float32


def test_normalisation_is_inside():
    plain, inside = (
        build_model(Model(**settings), 3, 10, 0) for settings in ({}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)})
    )
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(inside.eval()(images), plain.eval()((images - mean) / std))
    with pytest.raises(InputError, match=r"model.mean must have one value per channel, 1, got 3"):
        build_model(Model(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), 1, 10, 0)


RARER = [pytest.param(name, marks=pytest.mark.long) for name in ("vit_b_16", "densenet121")]


@pytest.mark.parametrize("name", ["efficientnet_b0", "googlenet", *RARER])
def test_torchvisions_classifiers_take_a_cosine_head(name):
    model = build_model(Model(name=f"torchvision:{name}"), 1, 4, 0, (64, 64))
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 4)
    (head,) = [module for module in model.modules() if isinstance(module, CosineHead)]
    normalise_head(model)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:resnet19", "torchvision has no such classifier; for instance torchvision:resnet1"),
        ("torchvision:squeezenet1_0", 'cannot have a cosine head; set model.head = "linear"'),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no such classifier"),
    ],
)
def test_what_torchvision_does_not_have_is_refused(name, words):
    with pytest.raises(InputError, match=words):
        build_model(Model(name=name), 3, 10, 0, (64, 64))


def test_a_model_too_deep_for_its_images_is_refused_before_training():
    with pytest.raises(InputError, match="cannot classify images of 3x8x8"):
        build_model(Model(name="torchvision:alexnet"), 3, 10, 0, (8, 8))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no recipe.toml; give a folder such as results/NAME/best"):
        load_model(tmp_path)
