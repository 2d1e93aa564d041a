"""Run a search to its end, with all that belongs to it: Ray, files, TensorBoard, trackers, report, small verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.sizes import measuring
from hcpr_tune.api.trust import begin, named_in_study, option_again
from hcpr_tune.common.shell import option, typed
from hcpr_tune.errors import ClusterLost, InputError, Interrupted, StorageError
from hcpr_tune.execution.connection.host import interruptible
from hcpr_tune.execution.connection.ray_options import LOOPBACK, RayOptions
from hcpr_tune.views.search_progress import (
    CHECKING,
    STARTING_RAY,
    STARTING_TRIALS,
    Phase,
    SearchProgress,
    SearchStart,
    joining,
)

if TYPE_CHECKING:
    from hcpr_tune.api.search_request import SearchRequest
    from hcpr_tune.execution.connection.capacity import Share
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.training.recipe import Recipe


@dataclass
class SearchResult:
    """How a search went.

    `interrupted`: by what it was interrupted, empty if it ended by itself; `verdict`: that of the small verdict, if
    there was one; `no_verdict`: why there was none, empty if none was wanted; `report`: where the report is, or how to
    get one; `troubles`: what trackers and metrics had.
    """

    study: StoredStudy
    report: str
    interrupted: str = ""
    verdict: dict[str, Any] | None = None
    no_verdict: str = ""
    troubles: list[str] = field(default_factory=list)


def check_request(request: SearchRequest, ray: RayOptions, log_to: Sequence[str], progress: SearchProgress) -> None:
    """Find out before Ray starts what would stop the search: sampler, data, model, trackers. Raises `InputError`."""
    from hcpr_tune.common.settings import located

    try:
        progress.phase(CHECKING)
        check_decisions(request.study.spec)
        if ray.address is None:
            progress.notes(check_recipe(request.study.spec.recipe))
            check_own_methods(request.study.spec)
    except InputError as error:
        raise located(error, request.where) from None
    if log_to:
        from hcpr_tune.views.trackers.trackers import check_tracker

        for name in log_to:
            check_tracker(name)


def check_decisions(spec: StudySpec) -> None:
    """Check that the user's own sampler and rule of early stopping can be used. Raises `InputError`."""
    from hcpr_tune.search.scheduling.stoppers import check_stopper
    from hcpr_tune.search.suggestion.sampler import check_sampler

    check_sampler(spec)
    check_stopper(spec.asha_config)


def check_recipe(recipe: Recipe) -> tuple[str, ...]:
    """Check that the data can be read and the model built; returns notes on the data. Raises `InputError`.

    Only for work on this machine: on a cluster both may be elsewhere. The embedded digits and the built-in models are
    known to work, so the import of torch is saved.
    """
    from hcpr_tune.training.methods.registry import METHODS
    from hcpr_tune.training.models.registry import ARCHITECTURES
    from hcpr_tune.training.recipe import Task

    usual = Task(split_seed=recipe.task.split_seed, norm=recipe.task.norm, epsilon=recipe.task.epsilon)
    if (
        recipe.task == usual
        and recipe.model.name in ARCHITECTURES
        and recipe.method in METHODS
        and not recipe.model.mean
    ):
        return ()
    from hcpr_tune.training.session import DataShelf, check_trainable

    return check_trainable(recipe, DataShelf(on_gpu=False))  # the GPU is for the trials


def check_own_methods(spec: StudySpec) -> None:
    """Check that the user's own methods that a space may choose take all values of their coefficients.

    Like a space itself, by the ends of each dimension and of each two. Raises `InputError`.
    """
    from hcpr_tune.search.spec.dimensions import field_of
    from hcpr_tune.training.methods.registry import METHODS

    choices = [end for name, one in spec.space.items() if field_of(name) == "method" for end in one.ends()]
    for method in sorted({spec.recipe.method, *map(str, choices)} - {*METHODS}):
        from hcpr_tune.training.methods.method import method_of

        ends = [
            {field_of(name): end}
            for name, one in spec.space.items()
            if field_of(name).startswith("coefficients.") and method in dict(one.when).get("method", (method,))
            for end in one.corners()
        ]
        for first, second in combinations([{}, *ends], 2) if ends else [({}, {})]:
            method_of(spec.recipe.replace({"method": method, **first, **second}))


def run_search(
    request: SearchRequest, ray: RayOptions, log_to: Sequence[str], progress: SearchProgress
) -> SearchResult:
    """Search until the budget is spent, then let a small verdict check the winner.

    Returns also if the search was interrupted after it had begun. Raises `InputError`, `Interrupted` if nothing was
    begun, and `StorageError`, `ClusterLost` and `PluginError` with the command that resumes the study.
    """
    from hcpr_tune.common.files import node_folder
    from hcpr_tune.execution.connection.cluster import allot, connected
    from hcpr_tune.execution.probing import check_data
    from hcpr_tune.search.storage.studies import exists
    from hcpr_tune.training.data.node_cache import release
    from hcpr_tune.training.plugins import PluginError

    study = request.study
    folder, spec, _ = study
    search = _Search(request, log_to, progress)
    progress.planned(study)
    progress.phase(ray_phase(ray))
    try:
        # Twice: Ray installs a handler of its own for SIGTERM when it starts.
        with (
            interruptible(),
            measuring(spec) as size,
            connected(ray.address, named_in_study(spec), ray.dashboard_host, study.name) as cluster,
            interruptible(),
        ):
            progress.phase(Phase("looking for a node with room for a trial", brief=True))
            share = allot(spec.settings.resources, cluster, request.where, ray.wait)
            progress.phase(Phase("finding out the size of a checkpoint", "5 to 15 s, once for a space", brief=True))
            own_ray = ray.address is None
            progress.started(study, SearchStart(cluster.dashboard_url, cluster.token, own_ray, share.workers, size()))
            if not own_ray and not study.history.version:
                progress.phase(Phase("checking the data on a worker", "10 to 30 s", brief=True))
                progress.notes(check_data(spec, share))
            if not exists(folder):
                begin(study)
            progress.phase(STARTING_TRIALS)
            search.run(share)
    except (Interrupted, KeyboardInterrupt) as error:
        search.result.interrupted = str(error) or "interrupted"
    except (StorageError, ClusterLost) as error:
        raise type(error)(f"{error} ({resume_command(study, ray, log_to)})") from None
    except PluginError as error:
        raise PluginError(f"{error} ({resume_command(study, ray, log_to)})", error.details) from None
    finally:
        progress.close()
    release(node_folder())
    if search.result.interrupted and not exists(folder):
        raise Interrupted(f"{search.result.interrupted} before the study was begun; nothing was written")
    return search.finished()


def ray_phase(ray: RayOptions) -> Phase:
    """What is waited for until this process is connected to Ray."""
    from hcpr_tune.execution.connection.cluster import _is_connected

    if ray.address is not None:
        return joining(ray.address)
    return Phase("connecting to this process's Ray", brief=True) if _is_connected() else STARTING_RAY


class _Search:
    """A search on the connected Ray, with its listeners."""

    def __init__(self, request: SearchRequest, log_to: Sequence[str], progress: SearchProgress) -> None:
        from hcpr_tune.views.report.report_file import ReportFile

        self._request, self._log_to, self._progress = request, log_to, progress
        folder, spec, _ = request.study
        self._report = ReportFile(folder, spec, typed("hcpr_tune"))
        self._watchers: list[Any] = []
        self.result = SearchResult(request.study, "")

    def run(self, share: Share) -> None:
        from hcpr_tune.api.verdict import small_verdict
        from hcpr_tune.execution import runner

        request = self._request

        def listeners() -> list[Any]:
            return self._listeners(share)

        runner.run(request.study, share, listeners, request.requests, request.patience)
        verdict = small_verdict(request.study, share, self._progress)
        if isinstance(verdict, str):
            self.result.no_verdict = verdict
        else:
            self.result.verdict = verdict

    def _listeners(self, share: Share) -> list[Any]:
        """Called once this process holds the study's lease: listeners rewrite its files."""
        from hcpr_tune.execution.ray_metrics import RayMetrics
        from hcpr_tune.views.tensorboard.writer import TensorBoardView

        study = self._request.study
        self._watchers.append(RayMetrics(study, share.gpus_per_trial))
        if self._log_to:
            from hcpr_tune.views.trackers.trackers import TrackerView

            self._watchers += [TrackerView(name, study) for name in dict.fromkeys(self._log_to)]
        return [*self._watchers, TensorBoardView(study), *self._progress.listeners(study), self._report]

    def finished(self) -> SearchResult:
        self.result.report = self._report.words
        self.result.troubles = [watcher.trouble for watcher in self._watchers if watcher.trouble]
        return self.result


def resume_command(study: StoredStudy, ray: RayOptions, log_to: Sequence[str] = ()) -> str:
    """The exact command that continues the study, from this folder and on the same cluster."""
    from hcpr_tune.views.next_commands import about

    return about("tune --resume", study.folder, *options_again(study, ray, log_to))


def options_again(study: StoredStudy, ray: RayOptions, log_to: Sequence[str] = ()) -> list[str]:
    """The options that further work on the study needs, beside those that name it."""
    more = [] if ray.address is None else [option("--address", ray.address)]
    more += [option("--wait", ray.wait)] if ray.wait else []
    more += [option("--dashboard-host", ray.dashboard_host)] if ray.dashboard_host != LOOPBACK else []
    more += [option("--log-to", name) for name in log_to]
    return [*more, *option_again(study)]
