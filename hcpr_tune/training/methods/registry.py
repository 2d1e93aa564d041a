"""The methods of adversarial training: one `MethodSpec` each, for the built-in ones as for a user's own.

Names and coefficients can be listed without torch, which the losses import when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hcpr_tune.common.settings import Settings, setting
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a loss is computed from: logits (B, K) and labels (B,).

    `natural` is None if the method's spec says that it is not used. In an attack, `adversarial` are the logits of the
    images of this step, and `natural` has no graph.
    """

    natural: Any
    adversarial: Tensor
    labels: Tensor
    pace: float = 1.0
    label_smoothing: float = 0.0


class Terms(NamedTuple):
    """The two terms of a loss per image, (B,) each, weights included; the consistency schedule scales the second."""

    classification: Tensor
    consistency: Tensor | None = None


@dataclass(frozen=True)
class NoCoefficients(Settings):
    """The coefficients of a method that has none."""


def _cross_entropy_objective(coefficients: Settings, batch: Batch) -> Tensor:
    from hcpr_tune.training.methods.losses import cross_entropy

    return cross_entropy(batch.adversarial, batch.labels)


@dataclass(frozen=True)
class MethodSpec:
    """A method of adversarial training.

    `terms(coefficients, batch)` is what the update minimises; `objective(coefficients, batch)` gives what the attack
    maximises, a value per image (B,); by default the cross-entropy of the adversarial images. `coefficients` is the
    type of the first argument: a frozen dataclass derived from `Settings`, whose fields are made by `setting`.
    """

    terms: Callable[[Any, Batch], Terms]
    objective: Callable[[Any, Batch], Tensor] = _cross_entropy_objective
    coefficients: type[Settings] = NoCoefficients
    tables: tuple[str, ...] = ()
    """Built-in methods only: the recipe's tables with the coefficients. An own method has `coefficients` there."""
    needs_cosine_head: bool = False
    paced: bool = False
    """Whether `batch.pace`, the self-paced schedule, changes the loss."""
    uses_natural: bool = True
    """Whether `terms` uses the natural logits. If not, batch normalisation sees only the adversarial images."""
    attack_uses_natural: bool = False


@dataclass(frozen=True)
class Hcpr(Settings):
    """Coefficients of the HCPR losses (notation of the paper: s, m, beta * n, beta)."""

    scale: float = setting(8.0, "Scale s of the cosine logits.", above=0, at_most=1000)
    margin: float = setting(0.2, "Margin m of the pair factors.", at_least=0, at_most=2)
    kl_weight: float = setting(1.2, "Weight of KL(natural || adversarial); beta * n in the paper.", at_least=0)
    square_weight: float = setting(6.0, "Weight of the sum of squared KL terms; beta in the paper.", at_least=0)
    detached: bool = setting(False, "Stop the gradient through the pair factors; the published code does not.")

    def check_together(self) -> None:
        if self.kl_weight == 0 and self.square_weight == 0:
            raise InputError(
                "kl_weight and square_weight must not both be 0: the attack would have no loss; raise one of them"
            )


@dataclass(frozen=True)
class Trades(Settings):
    """Coefficients of TRADES (Zhang et al., ICML 2019) and its hypersphere variant."""

    beta: float = setting(6.0, "Weight of KL(natural || adversarial).", at_least=0)


@dataclass(frozen=True)
class Mart(Settings):
    """Coefficients of MART (Wang et al., ICLR 2020)."""

    beta: float = setting(5.0, "Weight of the misclassification-aware KL(natural || adversarial).", at_least=0)


@dataclass(frozen=True)
class Hypersphere(Settings):
    """Coefficients of hypersphere embedding (Pang et al., NeurIPS 2020): cross-entropy on s * (z_y - m) and s * z_j."""

    scale: float = setting(15.0, "Scale s of the cosine logits.", above=0, at_most=1000)
    margin: float = setting(0.2, "Angular margin m, subtracted from the true class's cosine.", at_least=0, at_most=2)


@dataclass(frozen=True)
class HypersphereTrades(Settings):
    """The coefficients of hypersphere embedding and of TRADES."""

    hypersphere: Hypersphere = setting(Hypersphere(), "Scale and margin.")
    trades: Trades = setting(Trades(), "Weight of the KL.")


def _hcpr_objective(hcpr: Hcpr, batch: Batch) -> Tensor:
    from hcpr_tune.training.methods.losses import pair_consistency

    return pair_consistency(batch.natural, batch.adversarial, hcpr.scale, hcpr.kl_weight, hcpr.square_weight)


def _hcpr_terms(hcpr: Hcpr, batch: Batch) -> Terms:
    from hcpr_tune.training.methods.losses import self_paced_cross_entropy

    accuracy = self_paced_cross_entropy(
        batch.natural, batch.labels, hcpr.scale, hcpr.margin, batch.pace, hcpr.detached, batch.label_smoothing
    )
    return Terms(accuracy, _hcpr_objective(hcpr, batch))


def _pgd_at_terms(coefficients: Settings, batch: Batch) -> Terms:
    """Madry et al., ICLR 2018: cross-entropy of the adversarial images only."""
    from hcpr_tune.training.methods.losses import cross_entropy

    return Terms(cross_entropy(batch.adversarial, batch.labels, batch.label_smoothing))


def _trades_objective(trades: Trades, batch: Batch) -> Tensor:
    from hcpr_tune.training.methods.losses import kl_divergence

    return kl_divergence(batch.natural, batch.adversarial)


def _trades_terms(trades: Trades, batch: Batch) -> Terms:
    """Zhang et al., ICML 2019: cross-entropy of the natural images, and beta * KL(natural || adversarial).

    The published code puts the natural images through the network a second time for the KL. In train mode that gives
    the same logits and gradients; only the running statistics of batch normalisation count the natural images twice
    there, and once here.
    """
    from hcpr_tune.training.methods.losses import cross_entropy

    accuracy = cross_entropy(batch.natural, batch.labels, batch.label_smoothing)
    return Terms(accuracy, trades.beta * _trades_objective(trades, batch))


def _mart_terms(mart: Mart, batch: Batch) -> Terms:
    """Wang et al., ICLR 2020: boosted cross-entropy of the adversarial images, and beta * KL * (1 - p_y(natural))."""
    from hcpr_tune.training.methods.losses import boosted_cross_entropy, misclassification_aware_kl

    return Terms(
        boosted_cross_entropy(batch.adversarial, batch.labels, batch.label_smoothing),
        mart.beta * misclassification_aware_kl(batch.natural, batch.adversarial, batch.labels),
    )


def _hypersphere_pgd_at_objective(sphere: Hypersphere, batch: Batch) -> Tensor:
    return _hypersphere_pgd_at_terms(sphere, replace(batch, label_smoothing=0.0)).classification


def _hypersphere_pgd_at_terms(sphere: Hypersphere, batch: Batch) -> Terms:
    """Pang et al., NeurIPS 2020: PGD-AT on the margin logits, in the attack and in the update."""
    from hcpr_tune.training.methods.losses import cross_entropy, margin_logits

    logits = margin_logits(batch.adversarial, batch.labels, sphere.scale, sphere.margin)
    return Terms(cross_entropy(logits, batch.labels, batch.label_smoothing))


def _hypersphere_trades_objective(both: HypersphereTrades, batch: Batch) -> Tensor:
    from hcpr_tune.training.methods.losses import kl_divergence

    scale = both.hypersphere.scale
    return kl_divergence(scale * batch.natural, scale * batch.adversarial)


def _hypersphere_trades_terms(both: HypersphereTrades, batch: Batch) -> Terms:
    """Pang et al., NeurIPS 2020: TRADES with the margin in the cross-entropy, and only the scale in the KL."""
    from hcpr_tune.training.methods.losses import cross_entropy, margin_logits

    sphere = both.hypersphere
    logits = margin_logits(batch.natural, batch.labels, sphere.scale, sphere.margin)
    accuracy = cross_entropy(logits, batch.labels, batch.label_smoothing)
    return Terms(accuracy, both.trades.beta * _hypersphere_trades_objective(both, batch))


METHODS: dict[str, MethodSpec] = {
    "hcpr": MethodSpec(
        _hcpr_terms,
        _hcpr_objective,
        Hcpr,
        ("hcpr",),
        needs_cosine_head=True,
        paced=True,
        attack_uses_natural=True,
    ),
    "pgd_at": MethodSpec(_pgd_at_terms, uses_natural=False),
    "trades": MethodSpec(_trades_terms, _trades_objective, Trades, ("trades",), attack_uses_natural=True),
    "mart": MethodSpec(_mart_terms, coefficients=Mart, tables=("mart",)),
    "hypersphere_trades": MethodSpec(
        _hypersphere_trades_terms,
        _hypersphere_trades_objective,
        HypersphereTrades,
        ("hypersphere", "trades"),
        needs_cosine_head=True,
        attack_uses_natural=True,
    ),
    "hypersphere_pgd_at": MethodSpec(
        _hypersphere_pgd_at_terms,
        _hypersphere_pgd_at_objective,
        Hypersphere,
        ("hypersphere",),
        needs_cosine_head=True,
        uses_natural=False,
    ),
}
"""The built-in methods."""
TABLES = tuple(dict.fromkeys(table for spec in METHODS.values() for table in spec.tables))
"""The recipe's tables with the coefficients of built-in methods."""
