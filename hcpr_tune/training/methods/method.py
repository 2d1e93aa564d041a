"""A recipe's method with its coefficients: what the attack maximises and what the update minimises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hcpr_tune.common.settings import Settings, read
from hcpr_tune.common.text import one_line
from hcpr_tune.errors import InputError
from hcpr_tune.training import plugins
from hcpr_tune.training.methods.registry import METHODS, Batch, MethodSpec, Terms
from hcpr_tune.training.recipe import Recipe

Objective = Callable[[Tensor], Tensor]
"""Logits (B, K) -> a value per image (B,)."""


class Means(NamedTuple):
    """One value per image, (B,): both terms of the loss, the second 0 for a method without it."""

    classification: Tensor
    consistency: Tensor


@dataclass(frozen=True)
class Method:
    """The method of one recipe. `own` is the name of a user's method, whose results are checked."""

    spec: MethodSpec
    coefficients: Settings
    label_smoothing: float
    own: str = ""

    def objective(self, natural: Tensor | None, labels: Tensor) -> Objective:
        """What the attack maximises; `natural` are the natural logits, without a graph."""

        def values(logits: Tensor) -> Tensor:
            with self._guarded():
                found = self.spec.objective(self.coefficients, Batch(natural, logits, labels))
            return self._checked(found, labels, "objective")

        return values

    def terms(self, natural: Tensor | None, adversarial: Tensor, labels: Tensor, pace: float) -> Means:
        """What the update minimises."""
        with self._guarded():
            found = self.spec.terms(self.coefficients, Batch(natural, adversarial, labels, pace, self.label_smoothing))
        if not isinstance(found, Terms):
            raise InputError(
                f"method {self.own}: terms must return Terms, got {one_line(type(found).__name__)}; "
                "return Terms(classification, consistency)"
            )
        consistency = found.consistency
        if consistency is None:
            consistency = torch.zeros_like(labels, dtype=adversarial.dtype)
        return Means(self._checked(found.classification, labels, "terms"), self._checked(consistency, labels, "terms"))

    def _guarded(self) -> AbstractContextManager[None]:
        return plugins.guarded() if self.own else nullcontext()

    def _checked(self, values: Any, labels: Tensor, function: str) -> Tensor:
        if isinstance(values, Tensor) and values.shape == labels.shape:
            return values
        got = tuple(values.shape) if isinstance(values, Tensor) else one_line(type(values).__name__)
        raise InputError(
            f"method {self.own}: {function} must give a tensor with one value per image, {tuple(labels.shape)}, "
            f"got {got}; do not average in it"
        )


def spec_of(name: str) -> MethodSpec:
    """The built-in method of that name, or the user's: package.module:NAME is a `MethodSpec`, or a function of natural
    logits, adversarial logits and labels that returns one value per image, (B,), and is attacked with cross-entropy.

    Raises `InputError` if it was not vouched for, cannot be imported or is something else.
    """
    if name in METHODS:
        return METHODS[name]
    found = plugins.load(name, "method", MethodSpec)
    if isinstance(found, MethodSpec):
        return found

    def terms(coefficients: Settings, batch: Batch) -> Terms:
        return Terms(found(batch.natural, batch.adversarial, batch.labels))

    return MethodSpec(terms)


def method_of(recipe: Recipe) -> Method:
    """The recipe's method. Raises `InputError` as `spec_of` does, and if the recipe's coefficients do not fit it."""
    spec = spec_of(recipe.method)
    if recipe.method in METHODS:
        tables = {name: getattr(recipe, name) for name in spec.tables}
        found = tables[spec.tables[0]] if len(tables) == 1 else spec.coefficients(**tables)
        return Method(spec, found, recipe.label_smoothing)
    own = read(spec.coefficients, recipe.coefficients.plain(), f"the coefficients of {recipe.method}", "coefficients.")
    recipe.check_head(spec)
    return Method(spec, own, recipe.label_smoothing, recipe.method)
