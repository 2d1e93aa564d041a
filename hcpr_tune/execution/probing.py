"""Run the probe on the cluster, on as many workers at once as a search would use, up to `MOST_WORKERS`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hcpr_tune.common.settings import to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.capacity import Share
from hcpr_tune.search.spec.study import StudySpec

PROBE_SECONDS = 80.0
"""Together with Ray's start and imports this stays within two minutes."""
MOST_WORKERS = 8
CHECK_SECONDS = 120.0
"""Limit for reading file names and headers; a folder that takes longer is left to the trials."""


def probe_cluster(study: StudySpec, share: Share) -> list[dict[str, Any]]:
    """What the published recipe costs on each of the probed workers: the fields of `training.probe.Probe`."""
    import ray

    remote = ray.remote(num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial, max_retries=0)(_probe)
    recipe, on_gpu = to_plain(study.recipe), share.gpus_per_trial > 0
    tasks = [remote.remote(recipe, on_gpu, PROBE_SECONDS) for _ in range(min(share.workers, MOST_WORKERS))]
    try:
        found: list[dict[str, Any]] = ray.get(tasks, timeout=2 * PROBE_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise InputError(
            f"the probe had no answer from the cluster within {2 * PROBE_SECONDS:.0f} seconds: it may be busy with"
            " other work; try again later, or leave --probe out"
        ) from None
    except ray.exceptions.RayTaskError as error:
        raise InputError(f"the probe failed on a worker: {error.cause!r}; fix that before you search") from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the probe's worker was lost: {reason}; check the memory of the machine, and try again"
        ) from None
    return found


def check_data(study: StudySpec, share: Share) -> tuple[str, ...]:
    """Before the study starts, have a worker check a user's images, which the driver may not see.

    Of a folder, only file names and headers are read. Returns notes for the user, or nothing if no worker answers in
    time. Raises `InputError` for anything that would stop the search or its verdict.
    """
    import ray

    from hcpr_tune.training.data.registry import DATASETS

    if study.recipe.task.dataset in DATASETS:
        return ()
    task = ray.remote(num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial, max_retries=0)(_check_data)
    answer = task.remote(to_plain(study.recipe))
    try:
        refusal, notes = ray.get(answer, timeout=CHECK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(answer, force=True)
        return ()
    except ray.exceptions.RayError:
        # The first trials will run into the same error and report it.
        return ()
    if refusal:
        raise InputError(refusal)
    return tuple(notes)


def _check_data(recipe: dict[str, Any]) -> tuple[str, list[str]]:
    # On the worker: why the data cannot be used, and notes for the user.
    from hcpr_tune.training.data.sources import check_parts
    from hcpr_tune.training.recipe import recipe_from_plain

    try:
        return "", list(check_parts(recipe_from_plain(recipe, "the recipe").task))
    except InputError as error:
        return str(error), []


def _probe(recipe: dict[str, Any], on_gpu: bool, seconds: float) -> dict[str, Any]:
    # On the worker: torch is imported here, not on the driver.
    from hcpr_tune.training.probe import probe
    from hcpr_tune.training.recipe import recipe_from_plain
    from hcpr_tune.training.session import DataShelf

    return asdict(probe(recipe_from_plain(recipe, "the probe's recipe"), DataShelf(on_gpu), seconds))
