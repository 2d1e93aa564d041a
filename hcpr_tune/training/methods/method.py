"""The training methods behind one interface: what the attack maximises and what the update minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hcpr_tune.common.text import one_line
from hcpr_tune.errors import InputError
from hcpr_tune.training.methods.losses import (
    boosted_cross_entropy,
    cross_entropy,
    kl_divergence,
    margin_logits,
    misclassification_aware_kl,
    pair_consistency,
    self_paced_cross_entropy,
)
from hcpr_tune.training.recipe import Recipe

Objective = Callable[[Tensor], Tensor]
"""Logits (B, K) -> a value per image (B,)."""


class Terms(NamedTuple):
    """The two terms of a loss per image, (B,) each, weights included; the consistency schedule scales the second."""

    accuracy: Tensor
    consistency: Tensor


@dataclass(frozen=True)
class Method:
    """A method of adversarial training.

    `attack_objective(recipe, natural_logits, labels)` returns what the attack maximises; `terms(recipe, natural_logits,
    adversarial_logits, labels, pace)` what the update minimises. Natural logits are None if the method does not use
    them: then batch normalisation sees only the adversarial batch.
    """

    attack_objective: Callable[[Recipe, Any, Tensor], Objective]
    terms: Callable[[Recipe, Any, Tensor, Tensor, float], Terms]
    attack_uses_natural: bool
    uses_natural: bool


def _hcpr_objective(recipe: Recipe, natural: Tensor, labels: Tensor) -> Objective:
    hcpr = recipe.hcpr
    return lambda logits: pair_consistency(natural, logits, hcpr.scale, hcpr.kl_weight, hcpr.square_weight)


def _hcpr_terms(recipe: Recipe, natural: Tensor, adversarial: Tensor, labels: Tensor, pace: float) -> Terms:
    hcpr = recipe.hcpr
    return Terms(
        self_paced_cross_entropy(natural, labels, hcpr.scale, hcpr.margin, pace, hcpr.detached, recipe.label_smoothing),
        pair_consistency(natural, adversarial, hcpr.scale, hcpr.kl_weight, hcpr.square_weight),
    )


def _label_objective(recipe: Recipe, natural: None, labels: Tensor) -> Objective:
    return lambda logits: cross_entropy(logits, labels)


def _pgd_at_terms(recipe: Recipe, natural: None, adversarial: Tensor, labels: Tensor, pace: float) -> Terms:
    """Madry et al., ICLR 2018: cross-entropy of the adversarial images only."""
    return Terms(
        cross_entropy(adversarial, labels, recipe.label_smoothing), torch.zeros_like(labels, dtype=adversarial.dtype)
    )


def _trades_objective(recipe: Recipe, natural: Tensor, labels: Tensor) -> Objective:
    return lambda logits: kl_divergence(natural, logits)


def _trades_terms(recipe: Recipe, natural: Tensor, adversarial: Tensor, labels: Tensor, pace: float) -> Terms:
    """Zhang et al., ICML 2019: cross-entropy of the natural images, and beta * KL(natural || adversarial)."""
    return Terms(
        cross_entropy(natural, labels, recipe.label_smoothing), recipe.trades.beta * kl_divergence(natural, adversarial)
    )


def _mart_terms(recipe: Recipe, natural: Tensor, adversarial: Tensor, labels: Tensor, pace: float) -> Terms:
    """Wang et al., ICLR 2020: boosted cross-entropy of the adversarial images, and beta * KL * (1 - p_y(natural))."""
    return Terms(
        boosted_cross_entropy(adversarial, labels, recipe.label_smoothing),
        recipe.mart.beta * misclassification_aware_kl(natural, adversarial, labels),
    )


def _hypersphere_label_objective(recipe: Recipe, natural: None, labels: Tensor) -> Objective:
    settings = recipe.hypersphere
    return lambda logits: cross_entropy(margin_logits(logits, labels, settings.scale, settings.margin), labels)


def _hypersphere_pgd_at_terms(recipe: Recipe, natural: None, adversarial: Tensor, labels: Tensor, pace: float) -> Terms:
    """Pang et al., NeurIPS 2020: PGD-AT on the margin logits, in the attack and in the update."""
    settings = recipe.hypersphere
    return _pgd_at_terms(
        recipe, None, margin_logits(adversarial, labels, settings.scale, settings.margin), labels, pace
    )


def _hypersphere_trades_objective(recipe: Recipe, natural: Tensor, labels: Tensor) -> Objective:
    scale = recipe.hypersphere.scale
    return lambda logits: kl_divergence(scale * natural, scale * logits)


def _hypersphere_trades_terms(
    recipe: Recipe, natural: Tensor, adversarial: Tensor, labels: Tensor, pace: float
) -> Terms:
    """Pang et al., NeurIPS 2020: TRADES with the margin in the cross-entropy, and only the scale in the KL."""
    settings = recipe.hypersphere
    return Terms(
        cross_entropy(margin_logits(natural, labels, settings.scale, settings.margin), labels, recipe.label_smoothing),
        recipe.trades.beta * kl_divergence(settings.scale * natural, settings.scale * adversarial),
    )


METHODS: dict[str, Method] = {
    "hcpr": Method(_hcpr_objective, _hcpr_terms, attack_uses_natural=True, uses_natural=True),
    "pgd_at": Method(_label_objective, _pgd_at_terms, attack_uses_natural=False, uses_natural=False),
    "trades": Method(_trades_objective, _trades_terms, attack_uses_natural=True, uses_natural=True),
    "mart": Method(_label_objective, _mart_terms, attack_uses_natural=False, uses_natural=True),
    "hypersphere_trades": Method(
        _hypersphere_trades_objective, _hypersphere_trades_terms, attack_uses_natural=True, uses_natural=True
    ),
    "hypersphere_pgd_at": Method(
        _hypersphere_label_objective, _hypersphere_pgd_at_terms, attack_uses_natural=False, uses_natural=False
    ),
}


@cache
def method_of(name: str) -> Method:
    """The method of that name; for package.module:function, the user's loss, attacked with cross-entropy.

    The user's function takes (natural_logits, adversarial_logits, labels) and returns one value per image, (B,). Raises
    `InputError` if it cannot be imported.
    """
    if name in METHODS:
        return METHODS[name]
    from hcpr_tune.training.plugins import load

    return Method(
        _label_objective, partial(_own_terms, name, load(name, "method")), attack_uses_natural=False, uses_natural=True
    )


def _own_terms(
    name: str,
    function: Callable[..., Any],
    recipe: Recipe,
    natural: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    pace: float,
) -> Terms:
    from hcpr_tune.training.plugins import guarded

    with guarded():
        values = function(natural, adversarial, labels)
    if not isinstance(values, Tensor) or values.shape != labels.shape:
        got = tuple(values.shape) if isinstance(values, Tensor) else one_line(type(values).__name__)
        raise InputError(
            f"method {name} must return a tensor with one value per image, {tuple(labels.shape)}, got {got}; "
            "do not average in it"
        )
    return Terms(values, torch.zeros_like(values))
