"""The answer of a report: the best recipe next to the published one, caveats, and the next commands."""

from __future__ import annotations

from typing import Any

from hcpr_tune.common.intervals import difference_interval
from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option
from hcpr_tune.search.record.answer import answer_of
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.record.metrics import rung_accuracies
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.views.next_commands import about, way_on
from hcpr_tune.views.report.context import CLEAN, ROBUST, ReportContext
from hcpr_tune.views.report.optuna_study import full_params
from hcpr_tune.views.report.page import Section
from hcpr_tune.views.summary import answer_words, gain_of
from hcpr_tune.views.terms import terms
from hcpr_tune.views.verdicts import words_on_test_access

MOST_MEMBERS = 8
"""The most trials of a front that are compared."""


def answer(context: ReportContext) -> Section:
    """The best recipe compared with the published one, caveats about the numbers, and the next commands."""
    best = context.history.best_trial
    if best is None:
        shown: dict[str, Any] = {"words": nothing_yet(context), "comparison": None}
    else:
        shown = {
            "words": best_words(context, best),
            "comparison": comparison(context, best),
            "caveats": caveats(context, best),
        }
    words = ["published recipe", "robust accuracy", "margin attack", "rung"]
    words += ["pace"] * any(name.startswith("pace.") for name in context.study.space)
    return Section(
        "answer", "Answer", "answer", {**shown, "terms": terms(words), "commands": next_commands(context, best)}
    )


def nothing_yet(context: ReportContext) -> str:
    """Why there is no best recipe."""
    if context.alive or not context.history.trials:
        return "No trial has reached its first rung yet, so there is no answer."
    reasons = sorted({trial.reason for trial in context.history.trials.values() if trial.reason})
    return "No trial reached its first rung, so there is no answer. " + "; ".join(reasons)


def best_words(context: ReportContext, best: Trial) -> str:
    """The answer in a few sentences."""
    accuracies = rung_accuracies(best) or {}
    again = answer_words(context.history)
    words = (
        f"{again} The weights in best/ are those of trial {best.number}"
        f"{'' if best.replicate_of is None else ', one of these trainings'}: {accuracies[ROBUST]} robust accuracy."
        if again
        else f"Trial {best.number}: {accuracies[ROBUST]} robust accuracy, {accuracies[CLEAN]} clean (95 % intervals),"
        f" on {accuracies[ROBUST].total} validation images."
    )
    short = context.study.goal.shortfall(best.scores[best.best_rung])
    if short:
        floor = context.study.settings.constraints.clean_accuracy
        words = (
            f"No trial satisfies the constraint of at least {floor:g} clean accuracy; the closest one is"
            f" {100 * short:.1f} points below. {words}"
        )
    members = context.history.best_trials
    if len(context.study.settings.objective) > 1:
        first = context.study.settings.objective[0].replace("_", " ")
        return (
            f"{words} It has the highest {first} of the {len(members)} trials on the Pareto front, which no other trial"
            " beats in both accuracies."
        )
    return words if again else f"{words} {gain_words(context, best)}"


def gain_words(context: ReportContext, best: Trial) -> str:
    """The gain of the best trial over the published recipe."""
    published = context.history.trials[0]
    gain = gain_of(context.history)
    if best is published:
        return "It is the published recipe: no other trial scored higher."
    if gain is None:
        return f"The published recipe has no score to compare with: {context.state_of(published)}."
    robust, of_published = ((rung_accuracies(trial) or {})[ROBUST] for trial in (best, published))
    low, high = difference_interval(robust, of_published)
    none = ", which includes zero" if low <= 0 <= high else ""
    epochs = f"at epoch {gain.epoch}"
    epochs += "" if gain.epoch == gain.published_epoch else f" (the published one at epoch {gain.published_epoch})"
    words = f"Gain over the published recipe {epochs}: {gain.points:+.1f} points"
    words += f" ({100 * low:+.1f} to {100 * high:+.1f}{none})."
    return words if gain.final else f"{words} It is no answer before both have reached the last rung."


def caveats(context: ReportContext, best: Trial) -> str:
    """Caveats about the numbers."""
    candidates = context.history.candidates
    accesses = words_on_test_access(context.history.test_accesses)
    words = (
        f"Robust accuracy is measured with the margin attack, {context.study.recipe.evaluation.steps} steps, on"
        " validation images, which the models were not trained on."
    )
    if answer_of(context.history) is not None:
        words += (
            f" The recipe was found among {candidates} by its accuracy on these images and chosen by these seeds, so"
            " its numbers are slightly optimistic. The interval of the gain covers the variation between seeds and"
            " between images."
        )
    elif candidates > 1 and best.number:
        words += (
            f" The best was chosen from {candidates} trials by its accuracy on these same images, so its numbers and"
            " its gain are optimistic. The interval of the gain does not account for that choice. It treats the two"
            " accuracies as if they had been measured on different images, which makes it rather too wide."
        )
    return f"{words} {accesses}"


def comparison(context: ReportContext, best: Trial) -> dict[str, Any]:
    """Accuracies and all searched values, the best next to the published recipe: titles, and rows of texts."""
    published = context.history.trials[0]
    several = len(context.study.settings.objective) > 1
    members = context.history.best_trials[:MOST_MEMBERS] if several else [best]
    chosen = [("front" if len(members) > 1 else "best", trial) for trial in members]
    chosen += [("published", published)] if published not in members else []
    trials = [trial for _, trial in chosen]
    accuracies = [rung_accuracies(trial) or {} for trial in trials]
    values = [full_params(context.study, trial.params) for trial in trials]
    return {
        "titles": [f"{title}, trial {trial.number}" for title, trial in chosen],
        "results": [
            ("robust accuracy", [one.get(ROBUST, "none") for one in accuracies]),
            ("clean accuracy", [one.get(CLEAN, "none") for one in accuracies]),
            ("scored at epoch", [trial.best_rung or "none" for trial in trials]),
        ],
        "params": [
            (name, [(value_words(of[name]), name in trial.params) for of, trial in zip(values, trials, strict=True)])
            for name in context.study.space
        ],
    }


def value_words(value: Any) -> str:
    """A searched value."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def next_commands(context: ReportContext, best: Trial | None) -> list[tuple[str, str]]:
    """The next commands; only those that work with the files that exist."""
    folder, lines = context.folder, list[tuple[str, str]]()
    if best is not None and there(folder.best / "recipe.toml"):
        recipe = option("--recipe", folder.best / "recipe.toml")
        again = command("train", recipe, program=context.program)
        lines.append(("Train it again (on the same machine with the same result)", again))
        if best.state != "completed":
            lines.append(("Train it to the end: it was stopped early", f"{again} --set stop_epoch=0"))
    if best is not None and there(folder.best / "model.safetensors"):
        model = option("--model", folder.best)
        attack = command("evaluate", model, "--attack autoattack", program=context.program)
        lines.append(("Evaluate the model under AutoAttack, on the same images", attack))
    if (
        best is not None
        and not context.alive
        and any(trial.status == "completed" for trial in context.history.trials.values())
    ):
        judge = about("verdict", folder, program=context.program)
        lines.append(("Train the best trials again with new seeds, and evaluate them under AutoAttack", judge))
        lines.append(("The same, and at the end evaluate once on the test images", f"{judge} --test"))
    if context.alive:
        lines.append(("Show its status", about("status", folder, program=context.program)))
    else:
        what = "Search further" if context.state == "finished" else "Continue the search"
        lines.append(
            (what, way_on(StoredStudy(folder, context.study, context.history), context.state, context.program))
        )
    return lines
