"""A verdict in words, from the plain values in results/NAME/verdict/verdict.json that `hcpr_tune verdict` writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hcpr_tune.common.schema import Maybe, Number, Row, Table, Text, Truth, Wrong
from hcpr_tune.common.text import encodable
from hcpr_tune.search.record.events.search import TestAccess
from hcpr_tune.views.wording import counted

FORMAT = 2
"""Version of verdict.json. Increase it when the meaning of its values changes."""
VERDICT_JSON = "verdict/verdict.json"
UNKNOWN_GAIN = "Whether the search gained anything is not known"
SPLITS = ("test", "validation")
"""Test images first, as nothing was chosen by them."""


def read_verdict(folder: Path) -> dict[str, Any] | None:
    """The plain values in a study's folder; None without a verdict of this version."""
    try:
        text = (folder / VERDICT_JSON).read_text(encoding="utf-8")
        plain = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        return None
    try:
        VERDICT.check(plain, "")
    except Wrong:
        return None
    return encodable(plain) if "\\ud" in text.lower() else plain


MEAN = Table(
    needed={
        **dict.fromkeys(("mean", "low_95", "high_95"), Number()),
        "per_seed": Row(Number()),
        "standard_deviation": Maybe(Number()),
    }
)
DIFFERENCE = Table(
    needed={
        **dict.fromkeys(("low_95", "difference", "high_95", "p_holm"), Number()),
        "seeds": Number(integer=True),
        "found": Truth(),
    }
)
CANDIDATE = Table(
    needed={
        "name": Text(),
        "role": Text(),
        "elsewhere": Truth(),
        "unreliable": Row(Text()),
        "lost": Row(Table(needed={"seed": Number(integer=True), "reason": Text()})),
        "collapsed": Row(Table(needed={"seed": Number(integer=True)})),
        "models": Row(Table()),
        "optimism": Maybe(Table(needed=dict.fromkeys(("search", "again", "points", "low_95", "high_95"), Number()))),
    }
)
SPLIT = Table(
    needed={
        "images": Number(0, integer=True),
        "of": Maybe(Number(0, integer=True)),
        "collapsed": Table(others=Number(0, integer=True)),
        "smallest_difference": Maybe(Number(0)),
        "candidates": Table(others=Table(needed={"robust_accuracy": MEAN, "clean_accuracy": MEAN})),
        "differences": Table(others=DIFFERENCE),
    }
)
VERDICT = Table(
    needed={
        "study": Text(),
        "size": Text(),
        "settled": Truth(),
        "unfinished": Text(),
        "attacks_replaced": Text(),
        "failed_jobs": Table(others=Text()),
        "winner": Maybe(Text()),
        "baseline": Maybe(Text()),
        "picked_among": Table(needed=dict.fromkeys(("candidates", "trials"), Number(0, integer=True))),
        "seeds": Table(needed={"winner_and_baseline": Number(1, integer=True)}),
        "candidates": Row(CANDIDATE),
        "splits": Table(needed={"validation": SPLIT}, others=SPLIT),
        "attacks": Table(others=Text()),
        "test_accesses": Row(Table(needed={"time": Number(0), "number": Number(0, integer=True), "command": Text()})),
    }
)
"""The schema of what is read from verdict.json; a file that does not match is ignored."""


def short(plain: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A verdict in a few values: the winner, and its difference to its baseline on each split."""
    if plain is None:
        return None
    leads = {split: numbers["differences"].get(plain["baseline"]) for split, numbers in plain["splits"].items()}
    return {name: plain[name] for name in ("size", "settled", "winner", "baseline")} | {"winner_minus_baseline": leads}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def mean_words(mean: Mapping[str, Any], collapsed: int = 0) -> str:
    """A mean over seeds with its standard deviation; `collapsed`: further seeds, which are not in it."""
    count, deviation = len(mean["per_seed"]), mean["standard_deviation"]
    more = f", {collapsed} of {count + collapsed} collapsed" if collapsed else ""
    if deviation is None:
        return f"{percent(mean['mean'])} (one seed{more})"
    return f"{percent(mean['mean'])} ± {100 * deviation:.1f} ({count} seeds{more})"


def smallest_words(split: str, images: int, seeds: int, difference: float) -> str:
    """The smallest difference that a verdict can see on a split."""
    where, points = f"on {images} {split} images", f"a true difference of {100 * difference:.1f} points"
    if seeds == 1:
        return f"{where} {points} between two models is found in 80 % of cases; one seed says nothing about the recipes"
    return f"{where} with {seeds} seeds each, {points} between two recipes is found in 80 % of cases"


def difference_words(difference: Mapping[str, Any]) -> str:
    """A difference with its interval, and whether a difference was found."""
    low, value, high = (100 * difference[name] for name in ("low_95", "difference", "high_95"))
    words = f"{value:+.1f} points ({low:+.1f} to {high:+.1f}, p {p_words(difference['p_holm'])})"
    if difference["seeds"] == 1:
        return f"{words}, an interval over the images only: the noise of a single seed is not in it"
    return words if difference["found"] else f"{words}, no significant difference"


def p_words(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def verdict_lines(plain: Mapping[str, Any]) -> list[str]:
    """The verdict in a few lines, the most important first."""
    return [*_failures(plain), *_answer(plain), *_doubts(plain), *_notes(plain)]


def _failures(plain: Mapping[str, Any]) -> Iterator[str]:
    """What could not be done; shown first, as it affects how to read the answer."""
    attacks = {reason for job, reason in plain["failed_jobs"].items() if not job.startswith("train ")}
    for reason in sorted(attacks):
        yield f"LOST         some attacks failed, and their images are left out: {reason}"
    for one in plain["candidates"]:
        for lost in one["lost"]:
            yield f"LOST         {one['name']}, seed {lost['seed']}: {lost['reason']}"
    for one in plain["candidates"]:
        if one["collapsed"]:
            yield f"COLLAPSED    {collapse_words(one)}; left out of all means and differences."


def collapse_words(candidate: Mapping[str, Any]) -> str:
    """Which seeds of a candidate collapsed."""
    seeds = ", ".join(str(one["seed"]) for one in candidate["collapsed"])
    which = "seed" if len(candidate["collapsed"]) == 1 else "seeds"
    return f"{candidate['name']}, {which} {seeds}: no better than always predicting the most frequent class"


def _no_winner(plain: Mapping[str, Any]) -> str:
    """Why there is no winner."""
    if plain["size"] == "small":
        return f"{UNKNOWN_GAIN}: {plain['unfinished']}."
    if any(one["unreliable"] for one in plain["candidates"]):
        return "No winner: no candidate has reliable numbers."
    why = f": {plain['unfinished']}" if plain["unfinished"] else ""
    return f"No winner: no model was trained and attacked{why}."


def _answer(plain: Mapping[str, Any]) -> Iterator[str]:
    winner, baseline = plain["winner"], plain["baseline"]
    if winner is None:
        yield _no_winner(plain)
        return
    on_validation = plain["splits"]["validation"]["candidates"]
    finalists = [one["name"] for one in plain["candidates"] if one["role"] == "finalist"]
    is_published = any(one["role"] == "published" and one["name"] == winner for one in plain["candidates"])
    if plain["size"] == "small":
        yield _small_answer(plain, finalists)
    elif is_published and finalists and all(name in on_validation for name in finalists):
        yield "No finalist is more robust than the published recipe."
    for split in SPLITS:
        numbers = plain["splits"].get(split)
        if numbers is None or winner not in numbers["candidates"]:
            continue
        own = numbers["candidates"][winner]["robust_accuracy"]
        images = f"{numbers['images']} {split} images"
        if numbers["of"] and numbers["images"] < numbers["of"]:
            images = f"{numbers['images']} of the {numbers['of']} {split} images"
        collapsed = numbers["collapsed"]
        mean = mean_words(own, collapsed.get(winner, 0))
        yield f"{winner}: robust accuracy {mean} on {images}, under {plain['attacks'][split]}."
        for name, difference in numbers["differences"].items():
            theirs = mean_words(numbers["candidates"][name]["robust_accuracy"], collapsed.get(name, 0))
            if name == baseline or split == "test":
                yield f"  compared with {_called(plain, name)}, {theirs}: {difference_words(difference)}."
        if baseline is not None and baseline not in numbers["candidates"]:
            count = collapsed.get(baseline, 0)
            why = (
                f"{counted(count, 'seed')} of it collapsed" if count else "no model of it was attacked on these images"
            )
            yield f"  compared with {_called(plain, baseline)}: unknown, because {why}."


def _small_answer(plain: Mapping[str, Any], finalists: Sequence[str]) -> str:
    """What a small verdict states, in one sentence; its numbers follow."""
    if plain["unfinished"]:
        return f"{UNKNOWN_GAIN}: {plain['unfinished']}."
    if not finalists:
        return "The best recipe of the search is the published one itself: there is nothing to compare it with."
    winner, other = plain["winner"], next(one for one in (*finalists, plain["baseline"]) if one != plain["winner"])
    difference = plain["splits"]["validation"]["differences"][other]
    winner, other = _called(plain, winner), _called(plain, other)
    seeds = "the seeds by which the search chose its answer" if plain["seeds"].get("of_the_search") else "fresh seeds"
    if difference["seeds"] == 1:
        if difference["low_95"] <= 0:
            return f"With one fresh seed each, the models of {winner} and {other} do not differ significantly."
        return f"With one fresh seed each, the model of {winner} is more robust than that of {other}."
    if difference["found"]:
        return f"On {seeds}, {winner} is more robust than {other}."
    return f"On {seeds}, {winner} and {other} do not differ significantly."


def _called(plain: Mapping[str, Any], name: str) -> str:
    """A candidate's name in a sentence."""
    is_published = any(one["role"] == "published" and one["name"] == name for one in plain["candidates"])
    return "the published recipe" if is_published else name


def _doubts(plain: Mapping[str, Any]) -> Iterator[str]:
    for one in plain["candidates"]:
        if one["unreliable"]:
            yield f"UNRELIABLE   {one['name']} {barred_words(plain, one)}: {'; '.join(one['unreliable'])}."
        if one["elsewhere"]:
            yield (
                f"NOTE         {one['name']} was trained elsewhere, perhaps on these validation images: only the test"
                " images show how it compares."
            )
    if plain["unfinished"] and plain["winner"] is not None and plain["size"] == "full":
        yield f"UNFINISHED   {plain['unfinished']}: the numbers cover only what was done by then."
    if plain["attacks_replaced"]:
        yield f"NOTE         {plain['attacks_replaced']}."


def barred_words(plain: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    """The consequence of doubts about a candidate. A winner's doubts come from later seeds or from the test images."""
    return "was chosen before this was seen" if candidate["name"] == plain["winner"] else "cannot win"


def _notes(plain: Mapping[str, Any]) -> Iterator[str]:
    yield from picked_words(plain)
    scored = [
        one for one in plain["candidates"] if one["optimism"] is not None and one["role"] in ("finalist", "published")
    ]
    if scored:
        # The trial that the search chose, as it is the choice that makes its score optimistic.
        best = max(scored, key=lambda one: float(one["optimism"]["search"]))
        optimism = best["optimism"]
        yield (
            f"In the search, {best['name']} scored {percent(optimism['search'])}; trained again, under the same attack,"
            f" it scores {percent(optimism['again'])}. {_misjudged(optimism)}."
        )
    yield words_on_test_access(plain["test_accesses"])


def _misjudged(optimism: Mapping[str, Any]) -> str:
    points, low, high = (optimism[name] for name in ("points", "low_95", "high_95"))
    if points < 0:
        return f"The search underestimated it by {-points:.1f} points ({-high:+.1f} to {-low:+.1f})"
    return f"The search overestimated it by {points:.1f} points ({low:+.1f} to {high:+.1f})"


def optimism_words(optimism: Mapping[str, Any]) -> str:
    """By how many points the search was too optimistic, with the 95 % interval."""
    return f"{optimism['points']:+.1f} ({optimism['low_95']:+.1f} to {optimism['high_95']:+.1f})"


def picked_words(plain: Mapping[str, Any]) -> Iterator[str]:
    """What the winner was chosen by, so that its lead on validation is read as what it is."""
    among = plain["picked_among"]
    if plain["winner"] is None or among["candidates"] < 2 or not plain["splits"]["validation"]["differences"]:
        return
    trials = f", and these from {counted(among['trials'], 'trial')} of the search" if among["trials"] else ""
    words = (
        f"{plain['winner']} was chosen by its accuracy on validation from {among['candidates']} candidates{trials}:"
        " its lead there is optimistic"
    )
    if plain["splits"].get("test", {}).get("images"):
        seeds = counted(plain["seeds"]["winner_and_baseline"], "fresh seed")
        words += f"; on the test images it is evaluated with {seeds}, by which nothing was chosen"
    yield f"{words}."


def words_on_test_access(accesses: Sequence[TestAccess]) -> str:
    """How often the test images of a study were used."""
    if not accesses:
        return "The test images were not used."
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(accesses[0]["time"]))
    if len(accesses) == 1:
        return f"The test images were used once, on {when}."
    return (
        f"The test images were used {len(accesses)} times, first on {when}: later choices were made knowing their"
        " results."
    )


def table_rows(plain: Mapping[str, Any], split: str) -> list[list[str]]:
    """A row for each candidate on a split, the winner first.

    Columns: name, robust and clean accuracy, the winner's difference to it, and whether it is unreliable.
    """
    numbers = plain["splits"][split]
    roles = {one["name"]: one for one in plain["candidates"]}
    rows = []
    for name, of in sorted(numbers["candidates"].items(), key=lambda one: one[0] != plain["winner"]):
        difference = numbers["differences"].get(name)
        doubts = roles[name]["unreliable"] if name in roles else []
        rows.append(
            [
                name + (" (winner)" if name == plain["winner"] else ""),
                mean_words(of["robust_accuracy"], numbers["collapsed"].get(name, 0)),
                mean_words(of["clean_accuracy"]),
                difference_words(difference) if difference else "",
                "unreliable" if doubts else "",
            ]
        )
    alone = ((name, count) for name, count in numbers["collapsed"].items() if name not in numbers["candidates"])
    return rows + [[name, f"{counted(count, 'seed')} collapsed", "", "", ""] for name, count in alone]


TABLE_TITLES = ("candidate", "robust accuracy", "clean accuracy", "winner minus candidate", "")
