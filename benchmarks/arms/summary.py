"""What the runs and the scores say: pure functions of the output file, and the picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from figures import spread
from shared import Plain

from arms.scoring import SEEDS, key_of

HALF = 0.5
Found = dict[tuple[str, int], Plain]
"""Runs by (arm, seed)."""


def summary_of_arms(runs: Sequence[Plain], scores: Sequence[Plain]) -> Plain:
    """True scores, paired differences, and when ours had what Ray Tune ended with."""
    found = {(run["arm"], run["seed"]): run for run in runs}
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    values = {key: value for key, run in found.items() if (value := true_value(run, scores)) is not None}
    rivals = [arm for arm in arms if arm != "ours"]
    return {
        "true_score": {arm: mean_interval([values[key] for key in values if key[0] == arm]) for arm in arms},
        "ours_minus": {arm: paired("ours", arm, values) for arm in rivals} if "ours" in arms else {},
        "trainings_of_choices": {arm: collapses(arm, found, scores) for arm in arms},
        "final_best_on_validation": {arm: spread(bests) for arm in arms if (bests := final_bests(arm, found))},
        "seconds": {arm: spread([run["seconds"] for key, run in found.items() if key[0] == arm]) for arm in arms},
        "ours_reaches_final_best_of": {arm: catching_up_with(arm, found) for arm in rivals} if "ours" in arms else {},
    }


def true_value(run: Plain, scores: Sequence[Plain]) -> float | None:
    """Mean share of a choice's trainings that withstand AutoAttack, collapsed ones left out; None before all are known,
    without a choice, or if all collapsed."""
    own = scores_of(run, scores)
    kept = [score["robust_correct"] / score["total"] for score in own if not score["collapsed"]]
    return statistics.mean(kept) if len(own) == len(SEEDS) and kept else None


def scores_of(run: Plain, scores: Sequence[Plain]) -> list[Plain]:
    if run["choice"] is None:
        return []
    keys = {key_of(run["choice"], seed) for seed in SEEDS}
    return [score for score in scores if key_of(score["choice"], score["seed"]) in keys]


def collapses(arm: str, found: Found, scores: Sequence[Plain]) -> Plain:
    """How many trainings of an arm's choices there are, how many collapsed, and the mean with those counted as they
    are."""
    own = [score for (name, _), run in found.items() if name == arm for score in scores_of(run, scores)]
    shares = [score["robust_correct"] / score["total"] for score in own]
    return {
        "trainings": len(own),
        "collapsed": sum(score["collapsed"] for score in own),
        "mean_with_collapsed": statistics.mean(shares) if shares else None,
        "runs_without_a_choice": sum(run["choice"] is None for (name, _), run in found.items() if name == arm),
    }


def paired(one: str, other: str, values: dict[tuple[str, int], float]) -> Plain:
    """Differences by study seed, where both arms have a score, with their mean and its interval."""
    seeds = sorted(seed for arm, seed in values if arm == one and (other, seed) in values)
    differences = [values[one, seed] - values[other, seed] for seed in seeds]
    return {"seeds": seeds, "values": differences, **mean_interval(differences)}


def mean_interval(values: Sequence[float]) -> Plain:
    """The mean with its 95 % interval by Student's t, over study seeds; no interval for fewer than two."""
    from scipy.stats import t

    n = len(values)
    result: Plain = {"n": n, "mean": statistics.mean(values) if n else None, "interval": None}
    if n > 1:
        half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
        result["interval"] = [result["mean"] - half, result["mean"] + half]
    return result


def final_bests(arm: str, found: Found) -> list[float]:
    return [run["final_best"] for (name, _), run in found.items() if name == arm and run["final_best"] is not None]


def catching_up_with(arm: str, found: Found) -> Plain:
    """`catching_up` by seed, the median fraction, and in how many seeds it is at most a half."""
    pairs = [(found.get(("ours", seed)), run) for (name, seed), run in sorted(found.items()) if name == arm]
    seeds = [catching_up(ours, run) for ours, run in pairs if ours and run["final_best"] is not None]
    fractions = [entry["fraction"] for entry in seeds]
    half = sum(fraction is not None and fraction <= HALF for fraction in fractions)
    return {"median_fraction": median_with_never(fractions), "in_half_of_the_time": half, "by_seed": seeds}


def catching_up(ours: Plain, other: Plain) -> Plain:
    """When `ours` first reaches the final best of `other` (None: never), and as a fraction of the time of `other`."""
    at = next((seconds for seconds, score in ours["timeline"] if score >= other["final_best"]), None)
    fraction = None if at is None else at / other["seconds"]
    return {"seed": ours["seed"], "seconds": at, "seconds_of_other": other["seconds"], "fraction": fraction}


def median_with_never(fractions: Sequence[float | None]) -> float | None:
    """The median where never is later than everything; None where it is never, or where there is nothing."""
    if not fractions:
        return None
    middle = statistics.median([math.inf if fraction is None else fraction for fraction in fractions])
    return middle if math.isfinite(middle) else None


STYLES = {
    "random": ("#999999", (0, (1, 1)), "random search, full length"),
    "stock_ray": ("#D55E00", "--", "Ray Tune (Optuna, ASHA)"),
    "optuna": ("#009E73", "-.", "Optuna (TPE, successive halving)"),
    "syne_tune_asha": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "syne-tune, ASHA"),
    "syne_tune_mobster": ("#E69F00", (0, (3, 1)), "syne-tune, MOBSTER"),
    "ours": ("#0072B2", "-", "hcpr_tune"),
}
"""Colours of Okabe and Ito, which colour-blind people tell apart; lines differ too."""


def plot(runs: Sequence[Plain], path: Path) -> None:
    """Best so far against wall-clock: the median over the seeds, and the band from the worst to the best."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    for arm, (colour, line, label) in STYLES.items():
        chosen = [run for run in runs if run["arm"] == arm and run["timeline"]]
        if not chosen:
            continue
        grid, values = on_grid(chosen)
        axes.fill_between(grid, values.min(axis=0), values.max(axis=0), step="post", color=colour, alpha=0.15, lw=0)
        axes.step(grid, np.median(values, axis=0), where="post", color=colour, linestyle=line, lw=2, label=label)
    seeds = len({run["seed"] for run in runs})
    axes.set_xlabel("seconds since the start of the process")
    axes.set_ylabel("best robust accuracy so far (validation, full length)")
    axes.set_title(f"Median over {seeds} seed{'s' * (seeds != 1)}, band from minimum to maximum", fontsize=10)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def on_grid(runs: Sequence[Plain]) -> tuple[np.ndarray, np.ndarray]:
    """Times at which any run rises, from when all have a score to the longest's end; best so far, (runs, times)."""
    first = max(run["timeline"][0][0] for run in runs)
    rises = {seconds for run in runs for seconds, _ in run["timeline"] if seconds >= first}
    grid = np.array(sorted({first, *rises, max(run["seconds"] for run in runs)}))
    values = [[max(score for at, score in run["timeline"] if at <= seconds) for seconds in grid] for run in runs]
    return grid, np.array(values)
