"""The status of a study as plain values, for the terminal and for `--json`. Names are those of best/metrics.json."""

from __future__ import annotations

from typing import Any

from hcpr_tune.common.paths import there
from hcpr_tune.common.settings import to_plain
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.ledger import ledger
from hcpr_tune.search.record.metrics import TrialMetrics, rung_accuracies, rungs_plain, trial_metrics
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.scheduling.asha import hopeless, next_decision, over_budget, usual_epochs
from hcpr_tune.search.scheduling.stoppers import without_own_code
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.lease import LeaseHolder
from hcpr_tune.views.summary import Alarm, alarms, gain_of, stopped_at
from hcpr_tune.views.verdicts import read_verdict, short

MOST_LEADERS = 10
TRIAL_STATES = ("running", "completed", "stopped", "interrupted", "diverged", "failed", "killed")
STATES = {
    "running": "running",
    "finished": "finished",
    "out of time": "its time budget is spent",
    "given up": "given up: all trials were lost for one reason",
    "interrupted": "interrupted",
    "died": "its process died",
    "failed": "it failed",
    "storage": "its storage failed",
    "unfinished": "its budget is not used up",
    "not begun": "not begun",
}
"""The states of a study, and the words for them."""
OPTIMISTIC = (
    "the best trial was chosen by its score on the same images, and the published recipe, trial 0, is one of the trials"
    " that it was chosen from"
)

Plain = dict[str, Any]


def state_of(study: StudySpec, history: History, holder: LeaseHolder | None) -> str:
    """One of `STATES`; `holder` is the process that holds the lease."""
    if holder is not None:
        return "running"
    if not history.fingerprint:
        return "not begun"
    if not history.ended:
        return "died"
    if history.ended != "finished":
        return history.ended
    if hopeless(history):
        return "given up"
    if over_budget(history, study.asha_config):
        return "out of time"
    # A session that only creates a study, for a cluster to continue it, also ends as finished.
    decision = next_decision(history, without_own_code(study.asha_config))
    return "finished" if decision == "finished" else "unfinished"


def holder_plain(holder: LeaseHolder | None, now: float) -> Plain | None:
    """The holder of a study's lease."""
    if holder is None:
        return None
    return {"host": holder.host, "process": holder.process, "seconds_since_heard_of": round(holder.silence(now), 1)}


def study_status(study: StudySpec, history: History, alive: bool = True) -> Plain:
    """A snapshot of everything that is shown of a study. `alive`: whether a search is running."""
    ranked, best, published = history.ranked(), history.best_trial, history.trials.get(0)
    running = sorted(history.running, key=lambda trial: trial.number) if alive else []
    return {
        "objective": list(study.settings.objective),
        "rungs": list(study.rungs),
        "budget": to_plain(study.settings.budget),
        "workers": history.workers,
        "seconds": history.seconds,
        "seconds_left": seconds_left(study, history) if alive else 0.0,
        "share_done": None if alive else share_done(study, history),
        "worker_seconds": history.worker_seconds,
        "trials": counts(study, history, alive),
        "stopped_at": {str(rung): count for rung, count in stopped_at(history).items()},
        "chosen_from": history.candidates,
        "best": None if best is None else metrics(best, alive),
        "published": None if published is None else metrics(published, alive),
        **gain_plain(history),
        "gain_is_optimistic": OPTIMISTIC,
        "leaders": [{"rank": rank, **metrics(trial, alive)} for rank, trial in leading(ranked)],
        "front": [trial.number for trial in history.best_trials],
        "running": [running_plain(trial) for trial in running],
        "alarms": [alarm_plain(alarm) for alarm in alarms(study, history)],
        "losses": list(history.losses),
        "rank_correlations": rungs_plain(study, history),
    }


def gain_plain(history: History) -> Plain:
    """The gain over the published recipe with its epochs, None while it is not known (see `summary.Gain`)."""
    gain = gain_of(history)
    return {
        "gain_points": None if gain is None else gain.points,
        "gain_at_epoch": None if gain is None else gain.epoch,
        "gain_published_at_epoch": None if gain is None else gain.published_epoch,
        "gain_is_final": gain is not None and gain.final,
        "gain_is_of_fresh_seeds": gain is not None and gain.fresh,
    }


def answer(folder: StudyFolder, study: StudySpec, history: History, alive: bool) -> Plain:
    """The status, with the time account, the paths and the verdict."""
    account = ledger(history, study.asha_config)
    totals = {name: value for name, value in account.items() if name != "trials"}
    more = {
        "ledger": totals,
        "paths": paths(folder),
        "verdict": short(read_verdict(folder.root)),
        "test_accesses": history.test_accesses,
    }
    return study_status(study, history, alive) | more


def paths(folder: StudyFolder) -> Plain:
    """The files of a study on this machine; None for those that do not exist."""
    files = {
        "study": folder.study,
        "record": folder.record,
        "trials": folder.table,
        "best_recipe": folder.best / "recipe.toml",
        "best_metrics": folder.best / "metrics.json",
        "best_weights": folder.best / "model.safetensors",
        "report": folder.root / "report.html",
        "verdict": folder.root / "verdict" / "verdict.md",
        "verdict_json": folder.root / "verdict" / "verdict.json",
        "verdict_weights": folder.root / "verdict" / "model.safetensors",
    }
    return {"folder": str(folder.root)} | {name: str(path) if there(path) else None for name, path in files.items()}


def metrics(trial: Trial, alive: bool) -> TrialMetrics:
    """A trial's metrics. If no search is running, a trial that was running when it was killed is interrupted."""
    plain = trial_metrics(trial)
    return plain if alive or trial.state != "running" else plain | {"status": "interrupted"}


def counts(study: StudySpec, history: History, alive: bool = True) -> dict[str, int]:
    """The number of trials in each state; a waiting trial counts as stopped unless it is promoted later.

    Replicates count among the trials, and are added to the budget once they begin.
    """
    replicates = len(history.replicates)
    result = {
        "suggested": len(history.trials),
        "budget": study.settings.budget.trials + replicates,
        "replicates": replicates,
        **dict.fromkeys(TRIAL_STATES, 0),
    }
    for trial in history.trials.values():
        result[trial.state if alive or trial.state != "running" else "interrupted"] += 1
    return result


def done(count: dict[str, int]) -> int:
    """The number of trials that have ended, including those that ASHA stopped."""
    return count["suggested"] - count["running"] - count["interrupted"]


def leading(ranked: list[Trial]) -> list[tuple[int, Trial]]:
    """The best trials with their ranks, and the published recipe wherever it is."""
    return [(rank, trial) for rank, trial in enumerate(ranked, 1) if rank <= MOST_LEADERS or trial.number == 0]


SORTS = ("score", "newest", "state")
"""Orders of the board: best score first, latest trial first, running ones first."""


def board(history: History, alive: bool) -> dict[str, list[Plain]]:
    """The first trials in each of `SORTS`, as `metrics` with the `target` of those that run; trial 0 is always there.

    `alive`: whether a search is running.
    """
    newest = [history.trials[number] for number in range(len(history.trials) - 1, -1, -1)[:MOST_LEADERS]]
    running = sorted(history.running, key=lambda trial: trial.number) if alive else []
    scored_ones = history.ranked()[: MOST_LEADERS + len(running)]
    orders = {
        "score": scored_ones,
        "newest": newest,
        "state": [*running, *(trial for trial in scored_ones if not (alive and trial.job is not None))],
    }
    published = history.trials.get(0)
    rows = {}
    for order, trials in orders.items():
        chosen = trials[:MOST_LEADERS]
        if published is not None and all(trial.number for trial in chosen):
            chosen.append(published)
        rows[order] = [metrics(trial, alive) | {"target": trial.target} for trial in chosen]
    return rows


def scored(trial: Trial | None) -> Plain | None:
    """The score of a trial: its number, epoch and accuracies."""
    accuracies = None if trial is None else rung_accuracies(trial)
    if trial is None or accuracies is None:
        return None
    shares = {name: proportion.to_plain() for name, proportion in accuracies.items()}
    return {"trial": trial.number, "epoch_of_score": trial.best_rung, **shares}


def alarm_plain(alarm: Alarm) -> Plain:
    """An alarm for JSON."""
    return {"kind": alarm.kind, "words": alarm.words, "trials": list(alarm.trials)}


def running_plain(trial: Trial) -> Plain:
    """A running trial. `worker`: IP address and process id of the last report, None until its first epoch."""
    worker = None if trial.fresh or not trial.epochs else trial.epochs[max(trial.epochs)].get("worker")
    return {"trial": trial.number, "epoch": trial.last_epoch, "target": trial.target, "worker": worker}


def share_done(study: StudySpec, history: History) -> float:
    """The share of a search that is done, if it is not running; 1 only if nothing is left to do."""
    if state_of(study, history, None) in ("finished", "out of time"):
        return 1.0
    trained = sum(len(trial.epochs) for trial in history.trials.values())
    return min(0.99, trained / max(1, expected_epochs(study)))


def expected_epochs(study: StudySpec) -> int:
    """The epochs that the search takes if each rung promotes exactly its quota."""
    return usual_epochs(study.asha_config, study.calibration)


def epochs_to_begin(study: StudySpec, history: History) -> int:
    """The fewest epochs of what has not begun: each new trial trains to the first rung, a replicate to the last."""
    again = len(history.replicates)
    trials = max(0, study.settings.budget.trials - (len(history.trials) - again))
    return trials * study.rungs[0] + max(0, study.asha_config.replicates - again) * study.rungs[-1]


def seconds_left(study: StudySpec, history: History) -> float | None:
    """An estimate: the usual number of epochs minus those done, at their pace, within the time budget."""
    trained = sum(len(trial.epochs) for trial in history.trials.values())
    if not trained:
        return None
    epochs = sum(trial.target - trial.last_epoch for trial in history.running)
    least = epochs + epochs_to_begin(study, history)
    if least > epochs:
        epochs = max(least, expected_epochs(study) - trained)
    worker_seconds = sum(trial.seconds for trial in history.trials.values()) / trained * epochs
    asha_config, workers = study.asha_config, max(1, history.workers)
    in_budget = min(
        asha_config.seconds - history.seconds, (asha_config.worker_seconds - history.worker_seconds) / workers
    )
    return max(0.0, min(worker_seconds / workers, in_budget))
