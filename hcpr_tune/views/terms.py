"""Terms that pages use, each in one sentence. docs/glossary.md has the same sentences, and more terms."""

from __future__ import annotations

from collections.abc import Iterable

TERMS = {
    "recipe": "everything that determines a training: method, coefficients, optimiser, schedules, seed.",
    "published recipe": "the recipe from the paper of the method, adapted to the task. It is trial 0 of every search,"
    " and what the others are compared with.",
    "robust accuracy": "the share of images that the model still classifies correctly under attack.",
    "margin attack": "projected gradient descent (PGD) on the margin: the highest logit of a wrong class minus the"
    " logit of the true class. It scores the trials of a search.",
    "AutoAttack": "the standard ensemble of four attacks: APGD on cross-entropy, targeted APGD, FAB and Square. It"
    " attacks the models of a verdict.",
    "rung": "an epoch at which trials are compared: the best of them continue, the others are stopped early.",
    "rank correlation": "how well the ranking at a rung agrees with the ranking at the end: 1 is the same order, 0 no"
    " relation (Spearman).",
    "pace": "how strongly the loss is reweighted towards pairs of classes that are hard to tell apart, from 0 (not at"
    " all) to 1 (as published).",
    "variant": "the space with some settings changed; the first one is the unchanged space.",
    "regret": "how much better the best trial of a search would have been than the one that it chose.",
    "worker-hours": "the time for which workers were occupied, summed over all workers.",
}
"""What a term means, by term."""


def terms(names: Iterable[str]) -> list[tuple[str, str]]:
    """These terms with their sentences, for a page."""
    return [(name, TERMS[name]) for name in names]
