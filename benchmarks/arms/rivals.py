"""Ray Tune and Optuna in their best form, on this service's recipe, space and trainer.

Both stop trials by asynchronous halving with the space's first rung and reduction factor, ask TPE after as many trials
as the space says (`sampler.startup_trials`), know which dimensions exist (define-by-run), keep their processes and data
from trial to trial, and are cut off when the time is up.
"""

from __future__ import annotations

import argparse
import functools
import logging
import time
from pathlib import Path
from typing import Any

from arms.tasks import first_points, rival_study
from arms.trainer import reports
from hcpr_tune.search.spec.dimensions import Params, Space
from hcpr_tune.search.spec.study import StudySpec


def stock_ray(options: argparse.Namespace, log_file: Path) -> None:
    """Ray Tune: a function that reports, OptunaSearch, ASHAScheduler, processes that are used again."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    study = rival_study(options)
    recipe, halving = study.recipe, study.settings.early_stopping

    def trainable(config: Params) -> None:
        trial = tune.get_context().get_trial_id()
        for epoch, score in reports(recipe, from_optuna(config), trial, log_file):
            tune.report({"robust_accuracy": score, "epoch": epoch})

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=options.workers, num_gpus=0, include_dashboard=False, **quiet)
    search = OptunaSearch(
        functools.partial(ask, study.space),  # Ray pickles it
        metric="robust_accuracy",
        mode="max",
        sampler=tpe(study, 0),
        points_to_evaluate=points(study),
    )
    scheduler = ASHAScheduler(
        time_attr="epoch",
        max_t=recipe.epochs,
        grace_period=halving.first_rung,
        reduction_factor=halving.reduction_factor,
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="robust_accuracy",
            mode="max",
            search_alg=search,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            time_budget_s=options.worker_seconds / options.workers,
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(log_file.parent / "ray"), verbose=0),
    )
    tuner.fit()
    ray.shutdown()


def optuna_alone(options: argparse.Namespace, log_file: Path) -> None:
    """Optuna: one process per worker on a study in a journal file, TPE and its own asynchronous halving.

    SuccessiveHalvingPruner rather than HyperbandPruner: the latter shares the trials out over one TPE for each bracket,
    and with some tens of trials none of them would leave its random start.
    """
    import multiprocessing

    import optuna

    shared = optuna.create_study(storage=journal(log_file.parent), study_name="arm", direction="maximize")
    for point in points(rival_study(options)):
        shared.enqueue_trial(point)
    until = time.time() + options.worker_seconds / options.workers
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=optuna_worker, args=(options, log_file, until, rank)) for rank in range(options.workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a worker of Optuna ended with exit code {process.exitcode}")


def optuna_worker(options: argparse.Namespace, log_file: Path, until: float, rank: int) -> None:
    """One of Optuna's processes. A trial that runs when the time is up ends after its epoch, as pruned."""
    import optuna

    from hcpr_tune.search.suggestion.optuna_adapter import asked

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = rival_study(options)
    halving = spec.settings.early_stopping

    def objective(trial: optuna.Trial) -> float:
        score = 0.0
        for epoch, score in reports(spec.recipe, asked(trial, spec.space), str(trial.number), log_file):
            trial.report(score, epoch)
            if epoch < spec.recipe.epochs and (time.time() >= until or trial.should_prune()):
                raise optuna.TrialPruned
        return score

    study = optuna.load_study(
        storage=journal(log_file.parent),
        study_name="arm",
        sampler=tpe(spec, rank),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=halving.first_rung, reduction_factor=max(2, round(halving.reduction_factor))
        ),
    )
    study.optimize(objective, timeout=until - time.time())


def journal(folder: Path) -> Any:
    """Optuna's storage for several processes."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))


def tpe(study: StudySpec, rank: int) -> Any:
    """Optuna's multivariate TPE, as it is for several workers: running trials count as bad ones (constant liar)."""
    import warnings

    import optuna

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    startup = study.settings.sampler.startup_trials
    seed = 1000 * study.settings.seed + rank
    return optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=startup, seed=seed
    )


def points(study: StudySpec) -> list[Params]:
    """The first points as Optuna's parameters."""
    from hcpr_tune.search.suggestion.optuna_adapter import to_optuna

    return [to_optuna(point, study.space) for point in first_points(study)]


def ask(space: Space, trial: Any) -> None:
    """The space as OptunaSearch takes it, define-by-run: it remembers what the trial is asked."""
    from hcpr_tune.search.suggestion.optuna_adapter import asked

    asked(trial, space)


def from_optuna(config: Params) -> Params:
    """What OptunaSearch drew as values of the dimensions."""
    from hcpr_tune.search.suggestion.optuna_adapter import IN_RANGE, KIND

    params = {name: value for name, value in config.items() if not name.endswith(KIND)}
    beside = {name.removesuffix(KIND): value for name, value in config.items() if name.endswith(KIND)}
    return params | {name: float(value) for name, value in beside.items() if value != IN_RANGE}


RIVALS = {"stock_ray": stock_ray, "optuna": optuna_alone}
