"""The page of a plan: which variant of a search to take and why, as one self-contained HTML file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.views.plan_words import (
    Result,
    answer_lines,
    correlation_words,
    named,
    percent_words,
    points_words,
    work_unit,
)
from hcpr_tune.views.report.figures import plans
from hcpr_tune.views.report.figures.shown import Shown, number
from hcpr_tune.views.report.page.skeleton import (
    Section,
    cell,
    commands,
    facts,
    figure_section,
    sortable,
    table,
    whole_page,
)
from hcpr_tune.views.wording import amount, disk, lasting

FIGURES = {
    "scores": ("Score and cost of each variant", "More work pays off only if the score rises."),
    "busy": ("Workers over time", "Workers that wait are paid for too."),
    "rungs": (
        "What each rung saves and loses",
        "A rung saves what the stopped trials would have taken, and may lose the best.",
    ),
}
"""The figures by name: their titles, and the line above each."""
COSTS = {
    "attack_step": "one attack step of an epoch",
    "update": "the rest of an epoch's training",
    "evaluation": "an evaluation",
    "last_evaluation": "the evaluation of the last epoch",
    "checkpoint": "writing a checkpoint",
    "start": "start of a job on a new process",
    "job": "start of a job on a used process",
    "report": "waiting after a report, apart from the driver's part",
    "driver_report": "the driver, for a report",
    "driver_job": "the driver, for a job that it hands out",
    "driver_worker": "what each worker adds to these two",
}
"""Labels of the fields of `planning.costs.Costs` that count seconds."""


@dataclass(frozen=True)
class PlanShown:
    """What the page needs to know about a plan."""

    title: str
    """The name of the space."""
    curves: str
    """The source of the learning curves."""
    guess: bool
    """Whether the learning curves are a guess, not measured."""
    costs: Mapping[str, Any]
    """The fields of `planning.costs.Costs`, including `words` and `checkpoint_bytes`."""
    warnings: Sequence[str]
    results: Sequence[Result]
    """Each with `busy` and `gain_over_base`; the first one is the study as the space has it."""
    unbeaten: frozenset[str]
    """Names of the variants that no other beats."""
    chosen: str
    objective: str
    command: str
    """The user's command."""
    repeats: int
    written: float = 0.0


def write_plan_page(path: Path, plan: PlanShown) -> None:
    """Write the page atomically. Raises `OSError`."""
    write_bytes_whole(path, plan_html(plan).encode("utf-8", "replace"))


def plan_html(plan: PlanShown) -> str:
    """The whole page."""
    drawn: dict[str, Shown] = {
        "scores": plans.scores(plan.results, plan.unbeaten, plan.chosen, plan.objective),
        "busy": plans.busy(plan.results, plan.unbeaten, plan.chosen),
        "rungs": plans.rungs(plan.results, plan.chosen),
    }
    more = {"rungs": rungs_table(plan)}
    figures = [figure_section(name, *words, drawn[name], more.get(name, "")) for name, words in FIGURES.items()]
    sections = [answer(plan), variants_section(plan), *figures, costs_section(plan), command_section(plan)]
    return whole_page(f"{plan.title}: hcpr_tune plan", header(plan), sections, drawn)


def header(plan: PlanShown) -> str:
    """What was planned, and warnings about its limits."""
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(plan.written or time.time()))
    played = (
        f"{number(len(plan.results), 'variant')}, each simulated {number(plan.repeats, 'time')} with a virtual clock"
    )
    banners = list(plan.warnings)
    if plan.guess:
        banners.insert(
            0,
            "The learning curves are a guess, and so are all scores, losses and correlations here. Times and costs"
            " depend less on it: they follow from what was measured.",
        )
    if plan.repeats == 1:
        banners.append("One repeat has no intervals: differences between variants may be chance.")
    return (
        f"<h1>Plan of {escape(plan.title)}</h1>"
        f"<p class='dim'>{escape(played)}. Nothing was trained for it. Written {when}.</p>"
        + "".join(f'<p class="banner">{escape(one)}</p>' for one in banners)
    )


def answer(plan: PlanShown) -> Section:
    """Which variant to take."""
    take, *why = answer_lines(plan.results, plan.unbeaten, plan.chosen, plan.objective)
    return Section("answer", "Answer", f'<p class="lead">{escape(take)}</p><p>{escape(" ".join(why))}</p>')


def variants_section(plan: PlanShown) -> Section:
    """A sortable table of all variants."""
    unit, _ = work_unit(plan.results)
    titles = ["number", "variant", "kind", "wall-clock", unit, "score", "loss (points)", "workers", "used"]
    titles += ["driver busy", "trials", "epochs", "deaths", "checkpoints kept", "written"]
    rows = "".join(_row(plan, one, place) for place, one in enumerate(plan.results, start=1))
    words = (
        "Means over the repeats, score and loss with 95 % intervals. Used: the share of the workers' time for training,"
        " evaluation and checkpoints that counted. Score: the true score of the trial that the search chooses; loss:"
        " how much higher the true score of the best trial that it started is."
    )
    body = sortable(titles, rows, "All variants")
    return Section("variants", "All variants", f"{body}<p class='dim'>{escape(words)}</p>")


def _row(plan: PlanShown, one: Result, place: int) -> str:
    _, size = work_unit(plan.results)
    mean = {name: value["mean"] for name, value in one.items() if isinstance(value, Mapping) and "mean" in value}
    cells = [
        cell(place),
        f'<td class="long">{escape(one["variant"])}</td>',
        cell(plans.kind_of(one["variant"], plan.unbeaten, plan.chosen)),
        cell(lasting(mean["wall_clock_seconds"]), mean["wall_clock_seconds"]),
        cell(amount(mean["worker_seconds"] / size), mean["worker_seconds"]),
        cell(percent_words(one["score"]), mean["score"]),
        cell(points_words(one["loss"]), mean["loss"]),
        cell(one["workers"]),
        cell(f"{100 * mean['use']:.0f} %", mean["use"]),
        cell(f"{100 * mean['driver_use']:.0f} %", mean["driver_use"]),
        *(cell(amount(mean[name]), mean[name]) for name in ("trials", "epochs", "deaths")),
        *(
            cell(disk(mean[f"checkpoint_bytes_{name}"]), mean[f"checkpoint_bytes_{name}"])
            for name in ("kept", "written")
        ),
    ]
    style = ' class="best"' if one["variant"] == plan.chosen else ""
    return f"<tr{style}>{''.join(cells)}</tr>"


def rungs_table(plan: PlanShown) -> str:
    """Each rung of the chosen variant and of the study as it is."""
    base, best = plan.results[0], named(plan.results, plan.chosen)
    unit, size = work_unit(plan.results)
    rows = [
        [
            f"{words}, epoch {rung['epoch']}",
            amount(rung["reached"]),
            amount(rung["stopped"]),
            correlation_words(rung["correlation_with_truth"]),
            correlation_words(rung["correlation_measured"]),
            f"{100 * rung['stops']:.0f} %",
            amount(rung["saved_worker_seconds"] / size),
            f"{100 * rung['lost_the_best']:.0f} %",
        ]
        for words, one in {"chosen": best, "as the space has it": base}.items()
        if words == "chosen" or one is not best
        for rung in one["rungs"]
    ]
    if not rows:
        return ""
    titles = ["rung", "trials that reach it", "that stop there", "rank correlation with the truth"]
    titles += ["as the search measures it", "enough to stop trials, of the repeats", f"{unit} saved"]
    return table([*titles, "best trial lost there, of the repeats"], rows, "What each rung saves and loses")


def costs_section(plan: PlanShown) -> Section:
    """Where the figures come from."""
    rows = [[words, f"{plan.costs[name]:.3g}"] for name, words in COSTS.items()]
    sources = facts({"learning curves": plan.curves, "costs": plan.costs["words"]})
    size = f"<p>A checkpoint has {escape(disk(plan.costs['checkpoint_bytes']))}.</p>"
    body = sources + table(["on a worker of speed 1", "seconds"], rows, "Costs in seconds") + size
    return Section("sources", "Where the figures come from", body)


def command_section(plan: PlanShown) -> Section:
    """How to make this page again."""
    return Section("command", "How to make it again", commands([("The command that was typed", plan.command)]))
