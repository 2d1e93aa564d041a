"""The page of a plan: which variant of a search to take and why, as one self-contained HTML file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from hcpr_tune.views.report.figures.shown import Shown
from hcpr_tune.views.report.page import Cell, Row, Section, Table, figure_section, page_html
from hcpr_tune.views.terms import terms
from hcpr_tune.views.wording import amount, disk, lasting, number

FIGURES = {
    "scores": ("Score and cost of each variant", "A higher cost is worth paying only if the score rises."),
    "busy": ("Busy workers over time", "Idle workers cost as much as busy ones."),
    "rungs": (
        "What each rung saves, and what it may lose",
        "A rung saves the time that the stopped trials would have taken, but it may stop the best one.",
    ),
}
"""The figures by name: their titles, and the line above each."""
COSTS = {
    "attack_step": "one step of the training attack, over an epoch",
    "update": "the rest of the training of an epoch",
    "evaluation": "an evaluation",
    "last_evaluation": "the evaluation of the last epoch",
    "checkpoint": "writing a checkpoint",
    "start": "starting a job in a new process",
    "job": "starting a job in a process that has run one before",
    "report": "a worker's wait after a report, without the driver's own work",
    "driver_report": "the driver's work for a report",
    "driver_job": "the driver's work to hand out a job",
    "driver_worker": "what each worker adds to the driver's work for either",
}
"""Labels of the fields of `simulation.curves.costs.Costs` that count seconds."""


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
    """The fields of `simulation.curves.costs.Costs`, including `words` and `checkpoint_bytes`."""
    warnings: Sequence[str]
    results: Sequence[Result]
    """Each with `busy` and `gain_over_base`; the first one is that of the unchanged space."""
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
    tables = {"rungs": rungs_table(plan)}
    figures = [figure_section(name, *words, drawn[name], tables.get(name)) for name, words in FIGURES.items()]
    sections = [answer(plan), variants_section(plan), *figures, costs_section(plan), command_section(plan)]
    return page_html("plan", header(plan), sections, drawn)


def header(plan: PlanShown) -> dict[str, Any]:
    """What was planned, and warnings about its limits."""
    variants, times = number(len(plan.results), "variant"), number(plan.repeats, "time")
    banners = list(plan.warnings)
    if plan.guess:
        banners.insert(
            0,
            "The learning curves are a guess, so all scores, regrets and correlations on this page are guesses too."
            " Times and costs depend less on the curves: they follow from what was measured.",
        )
    if plan.repeats == 1:
        banners.append("A single repeat has no intervals: differences between variants may be due to chance.")
    return {
        "title": plan.title,
        "simulated": f"{variants}, each simulated {times} under a virtual clock",
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(plan.written or time.time())),
        "banners": banners,
    }


def answer(plan: PlanShown) -> Section:
    """Which variant to take."""
    take, *why = answer_lines(plan.results, plan.unbeaten, plan.chosen, plan.objective)
    shown = {"take": take, "why": " ".join(why), "terms": terms(("variant", "rung", "regret", "worker-hours"))}
    return Section("answer", "Answer", "plan_answer", shown)


def variants_section(plan: PlanShown) -> Section:
    """A sortable table of all variants."""
    unit, _ = work_unit(plan.results)
    titles = ["number", "variant", "status", "wall-clock", unit, "score", "regret (points)", "workers", "useful time"]
    titles += ["driver busy", "trials", "epochs", "worker deaths", "checkpoints kept", "checkpoints written"]
    note = (
        "Means over the repeats, score and regret with 95 % intervals. Score: the true score of the trial that the"
        " search chooses, without the noise of its measurement. Regret: how much higher the best of its trials would"
        " score at full length. Useful time: the share of the workers' time that went into training, evaluation and"
        " checkpoints that counted."
    )
    rows = [_row(plan, one, index) for index, one in enumerate(plan.results, start=1)]
    return Section("variants", "All variants", "variants", {"titles": titles, "rows": rows, "note": note})


def _row(plan: PlanShown, one: Result, index: int) -> Row:
    _, size = work_unit(plan.results)
    mean = {name: value["mean"] for name, value in one.items() if isinstance(value, Mapping) and "mean" in value}
    bytes_kept, bytes_written = mean["checkpoint_bytes_kept"], mean["checkpoint_bytes_written"]
    cells = [
        Cell(index),
        Cell(one["variant"], long=True),
        Cell(plans.KINDS[plans.kind_of(one["variant"], plan.unbeaten, plan.chosen)][0]),
        Cell(lasting(mean["wall_clock_seconds"]), mean["wall_clock_seconds"]),
        Cell(amount(mean["worker_seconds"] / size), mean["worker_seconds"]),
        Cell(percent_words(one["score"]), mean["score"]),
        Cell(points_words(one["loss"]), mean["loss"]),
        Cell(one["workers"]),
        Cell(f"{100 * mean['use']:.0f} %", mean["use"]),
        Cell(f"{100 * mean['driver_use']:.0f} %", mean["driver_use"]),
        *(Cell(amount(mean[name]), mean[name]) for name in ("trials", "epochs", "deaths")),
        Cell(disk(bytes_kept), bytes_kept),
        Cell(disk(bytes_written), bytes_written),
    ]
    return Row(cells, "best" if one["variant"] == plan.chosen else "")


def rungs_table(plan: PlanShown) -> Table:
    """Each rung of the chosen variant and of the unchanged space."""
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
        for words, one in {"recommended": best, "unchanged": base}.items()
        if words == "recommended" or one is not best
        for rung in one["rungs"]
    ]
    titles = ["rung", "trials that reach it", "trials stopped there", "rank correlation with the true final scores"]
    titles += ["as the search estimates it", "repeats in which it is high enough to stop trials", f"{unit} saved"]
    return Table([*titles, "repeats in which the best trial is stopped there"], rows, FIGURES["rungs"][0])


def costs_section(plan: PlanShown) -> Section:
    """Where the numbers come from."""
    shown = {
        "facts": [("learning curves", plan.curves), ("costs", plan.costs["words"])],
        "costs": [(words, f"{plan.costs[name]:.3g}") for name, words in COSTS.items()],
        "checkpoint": disk(plan.costs["checkpoint_bytes"]),
    }
    return Section("sources", "Where the numbers come from", "sources", shown)


def command_section(plan: PlanShown) -> Section:
    """How to make this page again."""
    return Section("command", "How to reproduce this page", "command", {"command": plan.command})
