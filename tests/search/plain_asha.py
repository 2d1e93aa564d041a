"""ASHA's rule as it reads: every answer by going through all trials. The specification that `scheduling` must match."""

from __future__ import annotations

import inspect
import math
import re
from fractions import Fraction
from statistics import NormalDist, mean, pstdev, variance

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import CALIBRATION, ENQUEUED, PUBLISHED
from hcpr_tune.search.scheduling.asha import LOST_AT_ONCE, NewTrial, first_job, over_budget
from hcpr_tune.search.scheduling.config import bracket_of
from hcpr_tune.search.scheduling.rung_correlation import FEWEST_POINTS, Correlation, spearman
from tests.search import own


def next_decision(history, asha_config, arrived, most_points):
    """`arrived`: (trial, rung) in the order of the record."""
    if over_budget(history, asha_config) or _hopeless(history):
        return "finished"
    broken_off = _broken_off(history, asha_config)
    if broken_off is not None:
        return broken_off
    if history.queue:
        return NewTrial(len(history.trials))
    promotion = _promotion(history, asha_config, arrived, most_points)
    if promotion is not None:
        return promotion
    if sum(trial.source != ENQUEUED for trial in history.trials.values()) < asha_config.trials:
        return NewTrial(len(history.trials))
    return "wait" if any(trial.status == "running" for trial in history.trials.values()) else "finished"


def _hopeless(history):
    if any(trial.rungs or (trial.status == "running" and trial.epochs) for trial in history.trials.values()):
        return False
    kinds = {re.sub(r"[-+.\w]*\d[-+.\w]*|nan|inf", "#", reason) for reason in history.lost_at_once}
    return len(history.lost_at_once) >= LOST_AT_ONCE and len(kinds) == 1


def _broken_off(history, asha_config):
    for trial in history.trials.values():
        if trial.status == "waiting" and (trial.target > trial.last_rung or not trial.target):
            if not trial.target:
                return first_job(trial, asha_config)
            return asha_config.job(trial, trial.last_rung, trial.target)
    return None


def _promotion(history, asha_config, arrived, most_points):
    for rung in reversed(asha_config.rungs[:-1]):
        for bracket in range(asha_config.brackets):
            for trial in _going_on(history, rung, bracket, asha_config, arrived, most_points):
                if trial.status == "waiting" and trial.last_rung == rung:
                    return asha_config.job(trial, rung, asha_config.following(rung))
    return None


def _going_on(history, rung, bracket, asha_config, arrived, most_points):
    """The trials of a bracket that may go on from `rung`: those always promoted in front, then the best, best first."""
    always = [
        trial
        for trial in history.trials.values()
        if rung in trial.rungs and bracket_of(trial, asha_config) == bracket and _always_promoted(trial, history)
    ]
    return always + _best(history, rung, bracket, asha_config, arrived, most_points)


def _always_promoted(trial, history):
    return trial.source in (PUBLISHED, CALIBRATION) or trial.number in history.audited


def _best(history, rung, bracket, asha_config, arrived, most_points):
    """The top 1 / reduction_factor of a bracket's trials at `rung`, best first; all if the rung predicts too little."""
    if rung < asha_config.rungs[bracket]:
        return []
    members = [trial for trial in history.trials.values() if bracket_of(trial, asha_config) == bracket]
    recorded = [trial for trial in members if rung in trial.rungs]
    lost = sum(trial.lost and rung not in trial.rungs and trial.target == rung for trial in members)
    if asha_config.method == "random":
        best = sorted(recorded, key=lambda trial: derive_seed(asha_config.seed, "promotion", rung, trial.number))
    else:
        best = history.goal.order(recorded, rung)
    if asha_config.method == "none":
        return best
    if ":" in asha_config.method:
        promoted = _promoted_by(
            asha_config, {trial.number: history.goal.values(trial.scores[rung])[0] for trial in best}, lost
        )
        best = sorted(best, key=lambda trial: trial.number not in promoted)
        places = len(promoted)
    else:
        places = math.floor((len(recorded) + lost) / asha_config.reduction_factor + 1e-9)
    halves = end_of(history, rung, asha_config, arrived, most_points).halves(asha_config.min_rank_correlation)
    return best[:places] if halves else best


def _promoted_by(asha_config, scores, lost):
    """What a rule of `tests.search.own` promotes."""
    rule = getattr(own, asha_config.method.partition(":")[2])
    offered = {"scores": scores, "lost": lost, "epoch": 0, "reduction_factor": asha_config.reduction_factor}
    return set(rule(**{name: offered[name] for name in inspect.signature(rule).parameters})) if scores else set()


def end_of(history, rung, asha_config, arrived, most_points):
    """The rung's correlation with the latest one that enough trials reached from it; with the last if there is none."""
    together = {end: _scored_at_both(rung, end, arrived)[:most_points] for end in asha_config.rungs if end > rung}
    end = max(
        (end for end, numbers in together.items() if len(numbers) >= FEWEST_POINTS), default=asha_config.rungs[-1]
    )
    numbers, everybody = together[end], _scored_at(rung, arrived)[:most_points]
    if len(numbers) < FEWEST_POINTS:
        return Correlation(rung, end, len(numbers), None)
    return min(
        (
            _among_all(history, rung, end, numbers, everybody, name)
            for name in sorted({*history.goal.objectives, *history.goal.floors})
        ),
        key=lambda one: one.rho if one.known else 1.0,
    )


def _among_all(history, rung, end, numbers, everybody, name):
    """The rank correlation without noise at the end, nor selection by the earlier score (on normal scores)."""
    first, second = ([history.trials[number].scores[at][name] for number in numbers] for at in (rung, end))
    at_rung = [history.trials[number].scores[rung][name] for number in everybody]

    def normal_score(score):
        share = (sum(other < score for other in at_rung) + sum(other <= score for other in at_rung)) / (
            2 * len(at_rung)
        )
        edge = 0.5 / len(at_rung)
        return NormalDist().inv_cdf(min(1 - edge, max(edge, share)))

    of_all, of_picked = pstdev(map(normal_score, at_rung)), pstdev(map(normal_score, first))
    spread = max(1.0, of_all / of_picked) if of_picked else 1.0
    reliability = _reliability(second, [history.trials[number].at_rung(end)["total_validation"] for number in numbers])
    return Correlation(rung, end, len(numbers), spearman(first, second), spread, reliability=reliability)


def _reliability(scores, images):
    """The share of the variance that is neither a count's nor a seed's (one point), in fractions."""
    exact = [Fraction(score) for score in scores]
    noise = mean(score * (1 - score) / count + Fraction(1, 10**4) for score, count in zip(exact, images, strict=True))
    varies = variance(exact)
    return max(-1.0, float(1 - noise / varies)) if varies else 0.0


def _scored_at(rung, arrived):
    """The trials with a score at a rung, in the order in which they came to it."""
    return list(dict.fromkeys(number for number, at in arrived if at == rung))


def _scored_at_both(rung, end, arrived):
    """The trials with a score at both rungs, in the order in which they came to the second of them."""
    seen, both = {rung: set(), end: set()}, []
    for number, at in arrived:
        if at in seen and number not in seen[at]:
            seen[at].add(number)
            if number in seen[rung] & seen[end]:
                both.append(number)
    return both


def earned_rungs(history, trial, asha_config, arrived, most_points):
    """The trial's rungs up to the one from which its own score would not have promoted it."""
    rungs = sorted(trial.rungs)
    if not _always_promoted(trial, history):
        return rungs
    bracket, earned = bracket_of(trial, asha_config), []
    for rung in rungs:
        earned.append(rung)
        judged = rung in asha_config.rungs[:-1] and rung >= asha_config.rungs[bracket]
        if judged and trial not in _best(history, rung, bracket, asha_config, arrived, most_points):
            break
    return earned
