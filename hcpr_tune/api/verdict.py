"""Evaluate what a search found, or a model from elsewhere, on fresh seeds and under strong attacks."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.search import check_recipe, ray_phase
from hcpr_tune.api.trust import Trust, begin, named_as_model, named_in_study, trust_space, trust_study
from hcpr_tune.common.paths import is_file, reading
from hcpr_tune.common.shell import command, storage_words, typed
from hcpr_tune.common.text import named
from hcpr_tune.errors import ClusterLost, InputError, Interrupted, MovedOn, StorageError
from hcpr_tune.execution.connection.host import interruptible
from hcpr_tune.execution.connection.ray_options import RayOptions
from hcpr_tune.views.search_progress import (
    CHECKING,
    DRAWING,
    STARTING_VERDICT,
    Phase,
    SearchProgress,
)

if TYPE_CHECKING:
    from hcpr_tune.execution.connection.capacity import Share
    from hcpr_tune.search.record.events.search import Request
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.simulation.verdict_forecast import VerdictForecast
    from hcpr_tune.verdict.plan import Candidate, Plan


@dataclass(frozen=True)
class ExternalModel:
    """A model that was trained elsewhere.

    `path`: its weights, safetensors or a state dict; `architecture`: as `model.name` of a recipe; `classes`: its
    classes in the order of its outputs, by default the task's order.
    """

    path: Path
    architecture: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerdictRequest:
    """What to evaluate.

    `name`: the study, by its name in `storage` or its path; None for an external `model` alone, on the task of `space`.
    `settings`: values over the study's table [verdict]; `recipe_values`: fields over the recipes that are trained
    again, or over the external model's, by dotted name. `compare`: methods that are searched as baselines. `test`:
    attack the test images at the end.
    `command`: how to do it again, which is recorded with a test access. `label`: a setting's name in messages.
    """

    storage: str
    name: str | None
    settings: Mapping[str, Any]
    command: str
    recipe_values: tuple[tuple[str, Any], ...] = ()
    compare: tuple[str, ...] = ()
    test: bool = False
    model: ExternalModel | None = None
    space: str | None = None
    label: Callable[[str], str] = str


@dataclass(frozen=True)
class VerdictResult:
    """`plain`: the verdict, as in verdict.json; `report`: where the study's report is, or why there is none."""

    study: StoredStudy
    plain: dict[str, Any]
    report: str


def run_verdict(request: VerdictRequest, ray: RayOptions, trust: Trust, progress: SearchProgress) -> VerdictResult:
    """Do what the request asks for and is not done yet. If interrupted, the same request continues.

    Raises `InputError` before any work, `Interrupted`, and `StorageError` or `ClusterLost` if it cannot go on.
    """
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        try:
            return _Evaluation(request, ray, trust, progress).run(Path(scratch))
        except MovedOn:
            # The process before this one had not quite ended when its record was read.
            return _Evaluation(request, ray, trust, progress).run(Path(scratch))
        finally:
            progress.close()


def simulate_verdict(request: VerdictRequest, workers: int | None, trust: Trust) -> VerdictForecast:
    """How long the verdict on a study would take on so many workers (default: as many as the search had).

    Nothing is trained or attacked, nothing is written. Raises `InputError`, also for baselines and external models,
    whose costs are not known.
    """
    return _Evaluation(request, RayOptions(), trust, SearchProgress()).forecast(workers)


class _Evaluation:
    """One attempt at a verdict."""

    def __init__(self, request: VerdictRequest, ray: RayOptions, trust: Trust, progress: SearchProgress) -> None:
        self._request, self._ray, self._trust, self._progress = request, ray, trust, progress

    def run(self, scratch: Path) -> VerdictResult:
        from hcpr_tune.execution.connection.cluster import allot, connected
        from hcpr_tune.execution.probing import check_storage
        from hcpr_tune.simulation.verdict_forecast import power_of
        from hcpr_tune.verdict.baselines import check_methods
        from hcpr_tune.verdict.run import known_state

        request, ray = self._request, self._ray
        self._progress.phase(CHECKING)
        study = self._study()
        check_methods(request.compare, study.spec)
        external = self._external(study.spec, scratch)
        others = [] if external is None else [external[0]]
        plan = self._plan(study, others)  # raises before any work
        known = known_state(study.folder)
        _check_free(study)
        if ray.address is None:
            self._progress.notes(check_recipe(study.spec.recipe, study.history.class_names))
            if request.test:
                from hcpr_tune.training.data.heldout import open_test

                open_test(study.spec.recipe.task)  # raises if there are no test images
        if len(plan.candidates) > 1:
            for power in power_of(study.spec, study.history, plan, known):
                self._progress.message(str(power))
        named = named_in_study(study.spec)
        named |= set() if request.model is None else named_as_model(request.model.architecture)
        self._progress.phase(ray_phase(ray))
        try:
            with (
                interruptible(),
                connected(ray.address, named, ray.dashboard_host, study.name) as cluster,
                interruptible(),
            ):
                self._progress.phase(STARTING_VERDICT)
                share = allot(study.spec.settings.resources, cluster, str(study.folder.study), ray.wait)
                if ray.address is not None:
                    check_storage(study.folder, share)
                for method in request.compare:
                    baseline = self._searched_baseline(study, method, share)
                    others += [] if baseline is None else [baseline]
                if request.compare:  # hours have passed
                    study = self._study()
                    self._progress.phase(STARTING_VERDICT)
                if external is not None:
                    _keep(study, external)
                plain = _carry_out(study, self._plan(study, others), share, request.command, self._progress)
        except (Interrupted, KeyboardInterrupt) as error:
            reason = str(error) or "interrupted"
            raise Interrupted(f"{reason}; everything done so far is kept; continue with: {request.command}") from None
        except (StorageError, ClusterLost) as error:
            raise type(error)(f"{error} ({request.command})") from None
        self._progress.phase(DRAWING)
        return VerdictResult(study, plain, _write_report(study))

    def forecast(self, workers: int | None) -> VerdictForecast:
        from hcpr_tune.simulation.verdict_forecast import forecast_verdict
        from hcpr_tune.verdict.run import known_state

        if self._request.name is None or self._request.compare:
            raise InputError("a verdict with --model or --compare cannot be simulated: their costs are not known")
        study = self._study()
        plan, known = self._plan(study, []), known_state(study.folder)
        return forecast_verdict(study.spec, study.history, plan, workers or max(1, study.history.workers), known)

    def _study(self) -> StoredStudy:
        """The study with the request's settings; for a model alone a new, empty one."""
        from hcpr_tune.search.storage.studies import reopen
        from hcpr_tune.verdict.plan import changed

        request = self._request
        if request.name is None:
            return self._empty_study()
        if request.space is not None:
            raise InputError("--space goes with --model and without NAME: a study has its task already")
        study = reopen(request.storage, request.name, "verdict ", with_best=True)
        trust_study(self._trust, study)
        spec = self._with_settings(study.spec)
        if request.model is None:
            spec = replace(spec, recipe=changed(spec.recipe, request.recipe_values, self._given))
        return study._replace(spec=spec)

    @property
    def _given(self) -> str:
        from hcpr_tune.common.settings import shorten

        return " ".join(f"--set {shorten(f'{name}={value}')}" for name, value in self._request.recipe_values)

    def _empty_study(self) -> StoredStudy:
        """For a model alone: a study that has its task and searches nothing, the same for the same model and task.

        So a verdict that was interrupted continues, and the accesses to the test images stay counted.
        """
        from hcpr_tune.search.record.history import History
        from hcpr_tune.search.record.results import StoredStudy
        from hcpr_tune.search.spec.study_file import find_space, read_study
        from hcpr_tune.search.storage.studies import check_new, exists, reopen, study_folder

        request, model = self._request, self._request.model
        if model is None:
            raise InputError(
                f"name a study, for instance {command('verdict NAME', *storage_words(request.storage))}, or give "
                "--model PATH --arch NAME"
            )
        if request.compare:
            raise InputError("--compare goes with the NAME of a study, whose time the baselines get")
        if not is_file(model.path, f"--model {model.path}"):
            raise InputError(
                f"--model {model.path}: there is no such file; give the weights, .safetensors or a state dict of torch"
            )
        space = find_space(request.space or "default")
        spec = read_study(space)
        trust_space(self._trust, space, spec)
        with reading(f"--model {model.path}"):
            weights = model.path.read_bytes()
        about = (weights, model.architecture, request.recipe_values, spec.fingerprint, model.classes)
        digest = hashlib.sha256(repr(about).encode()).hexdigest()[:8]
        name = f"judged-{re.sub(r'[^A-Za-z0-9_-]', '-', model.path.stem)[:60]}-{digest}"
        if exists(study_folder(request.storage, name)):
            study = reopen(request.storage, name, "verdict ")
            trust_study(self._trust, study, named_in_study(spec))
            return study._replace(spec=self._with_settings(study.spec))
        history = History(spec.recipe.epochs, spec.goal)
        return StoredStudy(check_new(request.storage, name), self._with_settings(spec), history)

    def _with_settings(self, spec: StudySpec) -> StudySpec:
        """The study with the request's settings over its table [verdict]."""
        from hcpr_tune.common.settings import read, to_plain
        from hcpr_tune.search.spec.settings import Verdict

        given = dict(self._request.settings)
        where = " ".join(f"{self._request.label(name)} {value}" for name, value in given.items())
        verdict = read(Verdict, to_plain(spec.settings.verdict) | given, where or "verdict")
        return replace(spec, settings=replace(spec.settings, verdict=verdict))

    def _external(self, spec: StudySpec, scratch: Path) -> tuple[Candidate, Path] | None:
        """The external model, and its weights as safetensors."""
        if self._request.model is None:
            return None
        from hcpr_tune.verdict.external_model import given_candidate

        model, values, say = self._request.model, self._request.recipe_values, self._progress.message
        return given_candidate(spec, model.path, model.architecture, values, scratch, model.classes, say)

    def _plan(self, study: StoredStudy, others: Sequence[Candidate]) -> Plan:
        """Raises `InputError` if there are too few finalists."""
        from hcpr_tune.verdict.plan import full_plan, given_plan
        from hcpr_tune.views.next_commands import about

        folder, spec, history = study
        if self._request.name is None:
            return given_plan(spec, history, others[0], self._request.test)
        try:
            return full_plan(spec, history, self._request.test, others)
        except InputError as error:
            raise InputError(f"{error} ({about('tune --resume', folder)})") from None

    def _searched_baseline(self, study: StoredStudy, method: str, share: Share) -> Candidate | None:
        """The best that a baseline's own search found; the search is run, or continued, if it is not over."""
        from hcpr_tune.execution import runner
        from hcpr_tune.search.record.results import StoredStudy
        from hcpr_tune.search.spec.study import extend
        from hcpr_tune.search.storage.studies import exists, reopen, study_folder
        from hcpr_tune.verdict.baselines import baseline_candidate, baseline_name, baseline_study
        from hcpr_tune.verdict.plan import changed
        from hcpr_tune.views.tensorboard.writer import TensorBoardView

        place, spec, history = study
        storage, name = str(place.location.parent), baseline_name(study.name, method)
        wanted = baseline_study(spec, history, study.name, method)
        folder = study_folder(storage, name)
        requests: tuple[Request, ...] = ()
        if exists(folder):
            baseline = reopen(storage, name, "--compare ")
            trust_study(self._trust, baseline, named_in_study(spec))
            needed = wanted.settings.budget.worker_hours
            if needed > baseline.spec.settings.budget.worker_hours:  # the study was searched further since
                budget = {"worker_hours": needed}
                requests = ({"event": "extend", "time": time.time(), "budget": budget},)
                baseline = baseline._replace(spec=extend(baseline.spec, budget))
        else:
            from hcpr_tune.search.record.history import History

            baseline = StoredStudy(folder, wanted, History(wanted.recipe.epochs, wanted.goal))
        if baseline.history.ended != "finished" or requests:
            seconds = f"{history.worker_seconds:.0f} worker-seconds as {study.name} was"
            self._progress.message(f"baseline     {name}: {method}, searched for {seconds}")
            if not exists(folder):
                begin(baseline)

            def listeners() -> list[Any]:
                return [TensorBoardView(baseline), *self._progress.listeners(baseline)]

            runner.run(baseline, share, listeners, requests)
        candidate = baseline_candidate(baseline.spec, baseline.history, method)
        if candidate is None:
            self._progress.notes([f"no trial of {name} reached its last epoch: {method} is left out"])
            return None
        # The same schedule for all, also if the baseline was searched under another one.
        return replace(candidate, recipe=changed(candidate.recipe, self._request.recipe_values, "--set"))


def _check_free(study: StoredStudy) -> None:
    """Raises `InputError` if another process runs the study, before baselines are searched for hours."""
    from hcpr_tune.search.storage.lease import living_lease_holder, refusal

    holder = living_lease_holder(study.folder.objects)
    if holder is not None:
        raise refusal(study.folder.address, holder)


def _keep(study: StoredStudy, external: tuple[Candidate, Path]) -> None:
    """Put the external model's weights where workers look for them, and begin the empty study if there is none."""
    from hcpr_tune.search.storage.studies import exists
    from hcpr_tune.verdict.external_model import keep
    from hcpr_tune.verdict.run import verdict_folder

    if not exists(study.folder):
        begin(study)
    candidate, weights = external
    keep(verdict_folder(study.folder), candidate.model(0), 0, weights)


def small_verdict(study: StoredStudy, share: Share, progress: SearchProgress) -> dict[str, Any] | str:
    """The verdict at the end of a search, on the connected Ray; if there is none, why, or "" if none is wanted."""
    from hcpr_tune.verdict.plan import small_plan
    from hcpr_tune.views.verdicts import read_verdict

    folder, spec, history = study
    earlier = read_verdict(folder.root)
    if history.ended != "finished" or (earlier is not None and earlier["size"] == "full"):
        return ""  # a full verdict from before is not overwritten
    plan = small_plan(spec, history)
    if isinstance(plan, str):
        return plan
    names, seeds = " and ".join(one.name for one in plan.candidates), f"{plan.seeds} fresh seed{'s' * (plan.seeds > 1)}"
    how = f"attacked in chunks of {plan.chunk} validation images, at most {plan.seconds:g} seconds"
    progress.message(f"verdict      {names}, {seeds} each, {how}")
    progress.phase(STARTING_VERDICT)
    history.bytes_read = 0  # this process has written it until now
    plain = _carry_out(study, plan, share, "", progress)
    progress.phase(DRAWING)
    _write_report(study)
    return plain


def _carry_out(study: StoredStudy, plan: Plan, share: Share, again: str, progress: SearchProgress) -> dict[str, Any]:
    """Do what the plan asks for and is not done yet, and write everything into the verdict's folder."""
    from hcpr_tune.verdict.progress import Progress
    from hcpr_tune.verdict.run import carry_out

    def waits(words: str) -> None:
        progress.phase(Phase(words, repeated=True))

    return carry_out(study, plan, share, again, [Progress(plan, progress.verdict_event, waits)])


def _write_report(study: StoredStudy) -> str:
    """Draw the study's report anew, with the verdict in it, and say where it is."""
    from hcpr_tune.views.report import report

    try:
        return str(report.write_report(study, program=typed("hcpr_tune")))
    except Exception as error:  # a page that cannot be drawn must not lose a verdict
        return f"could not be drawn ({named(error)})"
