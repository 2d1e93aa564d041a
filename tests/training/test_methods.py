"""Each method against double loops written from its paper's equations, and on real images."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.loop import initial_state, train
from hcpr_tune.training.methods.losses import (
    boosted_cross_entropy,
    cross_entropy,
    kl_divergence,
    margin_logits,
    misclassification_aware_kl,
    modulated_logits,
    self_paced_cross_entropy,
)
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.methods.registry import METHODS, Hcpr, Hypersphere, Mart, Trades
from hcpr_tune.training.recipe import Averaging, Recipe, WeightPerturbation, recipe_from_plain, recipe_to_toml
from tests.conftest import SMALL_SPACE

RECIPE = Recipe(
    hcpr=Hcpr(7.0, 0.3, 0.9, 4.0),
    trades=Trades(3.5),
    mart=Mart(2.5),
    hypersphere=Hypersphere(12.0, 0.15),
    label_smoothing=0.1,
)


def of(recipe, name):
    return method_of(replace(recipe, method=name))


def logits_of(seed, scale=1.0):
    drawn = torch.Generator().manual_seed(seed)
    natural, adversarial = (scale * torch.randn(6, 5, generator=drawn, dtype=torch.float64) for _ in range(2))
    return natural, adversarial, torch.randint(5, (6,), generator=drawn)


def softmax(row):
    shifted = [np.exp(value - max(row)) for value in row]
    return [value / sum(shifted) for value in shifted]


def smoothed_ce(row, label, smoothing=0.0):
    p, classes = softmax(row), len(row)
    return sum(-((1 - smoothing) * (j == label) + smoothing / classes) * np.log(p[j]) for j in range(classes))


def kl(natural, adversarial):
    p, q = softmax(natural), softmax(adversarial)
    return sum(p[j] * np.log(p[j] / q[j]) for j in range(len(p)))


def with_margin(row, label, scale, margin):
    return [scale * (row[j] - margin * (j == label)) for j in range(len(row))]


def hcpr_row(natural, adversarial, label):
    s, m = 7.0, 0.3
    u = [s * (1 + m - z if j == label else z + m) * z for j, z in enumerate(natural)]
    p, q = softmax([s * z for z in natural]), softmax([s * z for z in adversarial])
    k = [p[j] * np.log(p[j] / q[j]) for j in range(len(p))]
    return smoothed_ce(u, label, 0.1), 0.9 * sum(k) + 4.0 * sum(x * x for x in k)


def mart_row(natural, adversarial, label):
    q, p = softmax(adversarial), softmax(natural)
    baseline = max(q[j] for j in range(len(q)) if j != label)
    return smoothed_ce(adversarial, label, 0.1) - np.log(1 - baseline), 2.5 * kl(natural, adversarial) * (1 - p[label])


def scaled_kl(n, a):
    return 3.5 * kl([12 * z for z in n], [12 * z for z in a])


ROWS = {
    "hcpr": hcpr_row,
    "pgd_at": lambda n, a, y: (smoothed_ce(a, y, 0.1), 0.0),
    "trades": lambda n, a, y: (smoothed_ce(n, y, 0.1), 3.5 * kl(n, a)),
    "mart": mart_row,
    "hypersphere_trades": lambda n, a, y: (smoothed_ce(with_margin(n, y, 12, 0.15), y, 0.1), scaled_kl(n, a)),
    "hypersphere_pgd_at": lambda n, a, y: (smoothed_ce(with_margin(a, y, 12, 0.15), y, 0.1), 0.0),
}
ATTACKS = {
    "hcpr": lambda n, a, y: hcpr_row(n, a, y)[1],
    "pgd_at": lambda n, a, y: smoothed_ce(a, y),
    "trades": lambda n, a, y: kl(n, a),
    "mart": lambda n, a, y: smoothed_ce(a, y),
    "hypersphere_trades": lambda n, a, y: scaled_kl(n, a) / 3.5,
    "hypersphere_pgd_at": lambda n, a, y: smoothed_ce(with_margin(a, y, 12, 0.15), y),
}


def test_every_named_method_exists():
    assert set(METHODS) == set(ROWS) == set(ATTACKS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", METHODS)
def test_the_update_lowers_its_papers_loss(name, seed):
    natural, adversarial, labels = logits_of(seed)
    found = of(RECIPE, name).terms(natural, adversarial, labels, 1.0)
    expected = [
        ROWS[name](n, a, y) for n, a, y in zip(natural.tolist(), adversarial.tolist(), labels.tolist(), strict=True)
    ]
    np.testing.assert_allclose(torch.stack(found, dim=1).numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", METHODS)
def test_the_attack_raises_its_papers_objective(name, seed):
    natural, adversarial, labels = logits_of(seed)
    given = natural if METHODS[name].attack_uses_natural else None
    found = of(RECIPE, name).objective(given, labels)(adversarial)
    expected = [
        ATTACKS[name](n, a, y) for n, a, y in zip(natural.tolist(), adversarial.tolist(), labels.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].uses_natural])
def test_a_method_without_natural_logits_needs_none(name):
    _, adversarial, labels = logits_of(0)
    assert of(RECIPE, name).terms(None, adversarial, labels, 1.0).classification.shape == labels.shape


def test_gradients_are_those_of_the_functions():
    natural, adversarial, labels = logits_of(4)
    inputs = (natural.requires_grad_(True), adversarial.requires_grad_(True))
    assert torch.autograd.gradcheck(kl_divergence, inputs)
    assert torch.autograd.gradcheck(lambda n, a: misclassification_aware_kl(n, a, labels), inputs)
    assert torch.autograd.gradcheck(lambda a: boosted_cross_entropy(a, labels, 0.1), (adversarial,))
    assert torch.autograd.gradcheck(lambda n: cross_entropy(margin_logits(n, labels, 5, 0.2), labels), (natural,))


def test_detached_factors_are_constants_to_the_gradient():
    logits, _, labels = logits_of(5)
    logits.requires_grad_(True)
    (found,) = torch.autograd.grad(self_paced_cross_entropy(logits, labels, 8, 0.2, 0.7, detached=True).sum(), logits)
    factors = (modulated_logits(logits, labels, 8, 0.2, 0.7) / logits).detach()
    (expected,) = torch.autograd.grad(cross_entropy(factors * logits, labels).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    attached = self_paced_cross_entropy(logits, labels, 8, 0.2, 0.7)
    torch.testing.assert_close(attached, self_paced_cross_entropy(logits, labels, 8, 0.2, 0.7, detached=True))
    (other,) = torch.autograd.grad(attached.sum(), logits)
    assert not torch.allclose(found, other)


@pytest.mark.parametrize("name", METHODS)
def test_huge_logits_give_finite_losses_and_gradients(name):
    natural, adversarial, labels = (
        t.requires_grad_(True) if t.is_floating_point() else t for t in logits_of(6, scale=1e3)
    )
    recipe = replace(RECIPE, hcpr=Hcpr(), label_smoothing=0.0)
    terms = of(recipe, name).terms(natural, adversarial, labels, 0.0)
    total = (terms.classification + terms.consistency).sum()
    gradients = torch.autograd.grad(total, (natural, adversarial), allow_unused=True)
    assert total.isfinite()
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


def settings_for(tiny_recipe, name):
    """The method with everything on that a training carries along."""
    return replace(
        tiny_recipe, method=name, averaging=Averaging(half_life=0.5), weight_perturbation=WeightPerturbation(0.005)
    )


@pytest.mark.parametrize("name", METHODS)
def test_it_trains_on_real_images_and_goes_on_bit_for_bit(name, tiny_recipe, digits, tmp_path):
    recipe = settings_for(tiny_recipe, name)
    whole = initial_state(recipe, digits)
    straight = list(train(recipe, digits, whole))
    assert straight[-1].loss < straight[0].loss
    state = initial_state(recipe, digits)
    for epoch in train(recipe, digits, state):
        if epoch.epoch == 2:
            break
    torch.save(state.state_dict(), tmp_path / "state.pt")
    again = initial_state(recipe, digits)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    measured = list(train(recipe, digits, again))
    assert [one.validation for one in measured] == [one.validation for one in straight[2:]]
    for first, second in ((whole.model, again.model), (whole.scored_model(), again.scored_model())):
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_users_own_method_trains(tiny_recipe, digits, tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(
        "import torch.nn.functional as F\n"
        "def plain(natural, adversarial, labels):\n    return F.cross_entropy(adversarial, labels, reduction='none')\n"
        "def averaged(natural, adversarial, labels):\n    return F.cross_entropy(adversarial, labels)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = replace(tiny_recipe, epochs=1, segment_ends=(), method="my_losses:plain")
    assert len(list(train(recipe, digits, initial_state(recipe, digits)))) == 1
    wrong = replace(recipe, method="my_losses:averaged")
    with pytest.raises(
        InputError, match=r"method my_losses:averaged: terms must give .* one value per image.*got \(\)"
    ):
        list(train(wrong, digits, initial_state(wrong, digits)))
    with pytest.raises(InputError, match="my_losses has no such name"):
        of(recipe, "my_losses:nothing")


OWN = """
from dataclasses import dataclass
from hcpr_tune import Batch, MethodSpec, Settings, Terms, setting
from torch.nn.functional import cross_entropy

@dataclass(frozen=True)
class Mixed(Settings):
    alpha: float = setting(0.5, "Share of the natural images.", at_least=0, at_most=1)

def terms(mixed, batch):
    natural = cross_entropy(batch.natural, batch.labels, reduction="none")
    return Terms(mixed.alpha * natural, (1 - mixed.alpha) * objective(mixed, batch))

def objective(mixed, batch):
    return cross_entropy(batch.adversarial, batch.labels, reduction="none")

MIXED = MethodSpec(terms, objective, Mixed)
COSINE = MethodSpec(terms, objective, Mixed, needs_cosine_head=True)
"""


@pytest.fixture
def own(tmp_path, monkeypatch, tiny_recipe):
    (tmp_path / "my_methods.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return replace(tiny_recipe, epochs=1, segment_ends=(), method="my_methods:MIXED")


def test_a_users_method_has_coefficients_of_its_own(own, digits):
    natural, adversarial, labels = logits_of(0)
    for alpha in (0.0, 0.25, 1.0):
        recipe = own.replace({"coefficients.alpha": alpha})
        found = method_of(recipe).terms(natural, adversarial, labels, 1.0)
        expected = alpha * torch.nn.functional.cross_entropy(natural, labels, reduction="none")
        torch.testing.assert_close(found.classification, expected)
        assert recipe_from_plain(tomllib.loads(recipe_to_toml(recipe)), "it") == recipe
    assert len(list(train(recipe, digits, initial_state(recipe, digits)))) == 1
    for wrong, words in (({"coefficients.alpha": 2}, "alpha must be"), ({"coefficients.beta": 1}, "beta")):
        with pytest.raises(InputError, match=words):
            method_of(own.replace(wrong))
    with pytest.raises(InputError, match=r'model.head must be "cosine"'):
        method_of(own.replace({"method": "my_methods:COSINE", "model.head": "linear"}))


def test_a_space_searches_them(tmp_path, own):
    path = tmp_path / "space.toml"
    space = SMALL_SPACE.replace("epochs = 4", 'epochs = 4\nmethod = "my_methods:MIXED"\ncoefficients = { alpha = 0.5 }')
    space += '"coefficients.alpha" = { low = 0.1, high = 0.9 }\n'
    path.write_text(space, encoding="utf-8")
    study = read_study(path)
    assert study.space["coefficients.alpha"].ends() == (0.1, 0.9)
    assert params_of(study.recipe, study.space)["coefficients.alpha"] == 0.5
    tried = with_params(study.recipe, params_of(study.recipe, study.space) | {"coefficients.alpha": 0.7})
    assert method_of(tried).coefficients.alpha == 0.7
    assert read_study(path, [("coefficients.alpha", 0.2)]).recipe.coefficients.plain() == {"alpha": 0.2}
    path.write_text(space.replace("coefficients = { alpha = 0.5 }", ""), encoding="utf-8")
    with pytest.raises(InputError, match=r"search\.coefficients\.alpha has no value in the recipe"):
        read_study(path)
