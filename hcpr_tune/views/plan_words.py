"""A plan in words: its answer, a table of its variants for the terminal, and the rungs of the chosen one.

Everything here takes plain values, `Result`, as in the JSON of `hcpr_tune plan`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hcpr_tune.views.wording import amount, disk, lasting, printable

Result = Mapping[str, Any]
"""The results of a variant: its name as `variant`, `workers`, means with their 95 % intervals (`mean`, `low_95`,
`high_95`) under the names of `simulation.comparison.FIGURES`, and `rungs`. The answer also needs `gain_over_base`, the
paired difference of its score to the first variant's; the page needs `busy`, (seconds, running jobs) of the first
repeat. The first result is that of the unchanged space.
"""
Estimate = Mapping[str, float]
DOTTED = re.compile(r"\b[a-z_.]+\.(?=[a-z_]+=)")
CHOSEN, UNBEATEN = "*", "+"
INTERVALS = "intervals: 95 %, over the repeats"
MARKS_WORDS = f"{CHOSEN} recommended   {UNBEATEN} not dominated   {INTERVALS}"
HOURS, MINUTES = ("worker-hours", 3600.0), ("worker-minutes", 60.0)


def named(results: Sequence[Result], name: str) -> Result:
    return next(one for one in results if one["variant"] == name)


def short(name: str) -> str:
    """A variant's name with dotted names shortened to their last parts."""
    return DOTTED.sub("", printable(name))


def work_unit(results: Sequence[Result]) -> tuple[str, float]:
    """The unit of the workers' time and its seconds: the same for all results that are shown together."""
    return HOURS if max(one["worker_seconds"]["mean"] for one in results) >= 3600 else MINUTES


def percent_words(value: Estimate) -> str:
    """A share in per cent with its interval, if there is one."""
    return f"{100 * value['mean']:.1f} %{interval(within(value, 0, 1), 100)}"


def points_words(value: Estimate) -> str:
    """A difference of shares in points with its interval, if there is one."""
    return f"{100 * value['mean']:.1f}{interval(value, 100)}"


def within(value: Estimate, least: float, most: float) -> Estimate:
    """An estimate with its interval clipped to the possible values, which Student's interval may exceed."""
    return {**value, "low_95": max(least, value["low_95"]), "high_95": min(most, value["high_95"])}


def interval(value: Estimate, scale: float = 1.0, digits: int = 1) -> str:
    """` (low to high)`; empty for a single repeat, which has no interval."""
    if value["low_95"] == value["high_95"]:
        return ""
    return f" ({scale * value['low_95']:.{digits}f} to {scale * value['high_95']:.{digits}f})"


def answer_lines(results: Sequence[Result], unbeaten: Collection[str], chosen: str, objective: str) -> list[str]:
    """Which variant to take, why, and what it saves."""
    one, (unit, size) = named(results, chosen), work_unit(results)
    regret = 100 * one["loss"]["mean"]
    below = f"{regret:.1f} points{interval(one['loss'], 100)} less than" if regret >= 0.05 else "as much as"
    take = (
        f"Recommended: {'the unchanged space' if one is results[0] else chosen}. It takes"
        f" {lasting(one['wall_clock_seconds']['mean'])} on {_counted(one['workers'], 'worker')}"
        f" ({amount(one['worker_seconds']['mean'] / size)} {unit}). The trial that it chooses is expected to have a"
        f" {objective.replace('_', ' ')} of {percent_words(one['score'])}, {below} the best of its trials would reach"
        " at full length."
    )
    if len(results) == 1:
        return [take, "This is the only variant that was simulated; --vary KEY=VALUE,VALUE compares it with others."]
    base = results[0]
    lines = [take, _why(results, unbeaten, one)]
    return lines if base is one else [*lines, _saving(one, base, unit, size)]


def _why(results: Sequence[Result], unbeaten: Collection[str], one: Result) -> str:
    left = [other for other in results if other["variant"] in unbeaten]
    if len(left) == 1:
        others = "The other variant" if len(results) == 2 else f"Each of the other {len(results) - 1} variants"
        return (
            f"{others} is dominated by one that costs less and is not shown to score lower, or that costs the same and"
            " is shown to score higher."
        )
    best_of = "No variant is dominated by another"
    if len(left) < len(results):
        best_of = f"{len(left)} of the {len(results)} variants are not dominated by another"
    if one["score"]["mean"] >= max(other["score"]["mean"] for other in left):
        return f"{best_of}. Of these, this one has the highest score."
    return (
        f"{best_of}. Of these, this one takes the fewest worker-hours among those that are not shown to score lower"
        " than the best."
    )


def _saving(one: Result, base: Result, unit: str, size: float) -> str:
    """What it saves compared with the unchanged space, and what that costs in score."""
    clock = _saved(one, base, "wall_clock_seconds", lasting, ("less", "more"), "wall-clock time")
    work = _saved(one, base, "worker_seconds", lambda seconds: amount(seconds / size), ("fewer", "more"), unit)
    gain = one["gain_over_base"]
    points = 100 * gain["mean"]
    difference = "the same" if abs(points) < 0.05 else f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'}"
    shown = gain["low_95"] > 0 or gain["high_95"] < 0
    limits = f" ({100 * gain['low_95']:+.1f} to {100 * gain['high_95']:+.1f})" if interval(gain) else ""
    doubt = "" if shown or not limits else ", which is no significant difference"
    score = f"Its score is {difference}{limits}{doubt}"
    return f"Compared with the unchanged space, it takes {clock} and {work}. {score}."


def _saved(one: Result, base: Result, name: str, words: Any, comparatives: tuple[str, str], what: str) -> str:
    mine, theirs = one[name]["mean"], base[name]["mean"]
    share = f" ({100 * abs(theirs - mine) / theirs:.0f} %)" if theirs else ""
    return f"{words(abs(theirs - mine))} {comparatives[mine > theirs]} {what}{share}"


def _counted(count: float, what: str) -> str:
    return f"{amount(count)} {what}" + ("" if count == 1 else "s")


def plan_table(results: Sequence[Result], unbeaten: Collection[str], chosen: str) -> RenderableType:
    """The variants by number, within 80 columns, and their names below."""
    unit, size = work_unit(results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("")
    titles = (
        "wall-\nclock",
        unit.replace("-", "-\n"),
        "useful\ntime",
        "check-\npoints",
        "score (95 %)",
        "regret (95 %)",
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for index, one in enumerate(results, start=1):
        table.add_row(
            mark(one, unbeaten, chosen),
            str(index),
            lasting(one["wall_clock_seconds"]["mean"]),
            amount(one["worker_seconds"]["mean"] / size),
            f"{100 * one['use']['mean']:.0f} %",
            disk(one["checkpoint_bytes_kept"]["mean"]),
            percent_words(one["score"]),
            points_words(one["loss"]),
            style="bold" if one["variant"] == chosen else "",
        )
    names = [Text(f"{index:>4}  {short(one['variant'])}") for index, one in enumerate(results, start=1)]
    return Group(table, *names, Text(MARKS_WORDS if len(results) > 1 else INTERVALS))


def mark(one: Result, unbeaten: Collection[str], chosen: str) -> str:
    if one["variant"] == chosen:
        return CHOSEN
    return UNBEATEN if one["variant"] in unbeaten else ""


def plan_lines(results: Sequence[Result], chosen: str) -> list[str]:
    """Each rung of the chosen variant: its trials, its rank correlation, what it saves and what it may lose."""
    one, (unit, size) = named(results, chosen), work_unit(results)
    return [_rung_line(rung, unit, size) for rung in one["rungs"]]


def _rung_line(rung: Mapping[str, Any], unit: str, size: float) -> str:
    reached, stopped = rung["reached"], rung["stopped"]
    return (
        f"rung at epoch {rung['epoch']}: {_counted(reached, 'trial')} {'reaches' if reached == 1 else 'reach'} it,"
        f" {amount(stopped)} {'is' if stopped == 1 else 'are'} stopped there, which saves"
        f" {amount(rung['saved_worker_seconds'] / size)} {unit}. Rank correlation of its scores with the true final"
        f" scores: {correlation_words(rung['correlation_with_truth'])}; as the search estimates it:"
        f" {correlation_words(rung['correlation_measured'])}{_stops_words(rung['stops'])}. The best trial is stopped"
        f" there in {100 * rung['lost_the_best']:.0f} % of the repeats."
    )


def _stops_words(share: float) -> str:
    """Whether the rank correlation is too low for the rung to stop trials."""
    if share == 1:
        return ""
    return ", too low to stop trials" + (f" in {100 * (1 - share):.0f} % of the repeats" if share else "")


def correlation_words(rung_correlation: Estimate | None) -> str:
    """A rank correlation with its interval, if it is known."""
    return (
        "unknown (too few trials)"
        if rung_correlation is None
        else f"{rung_correlation['mean']:.2f}{interval(within(rung_correlation, -1, 1), digits=2)}"
    )
