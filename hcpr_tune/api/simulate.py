"""Simulate a search before paying for it: how long it takes, what it costs, what it finds, how variants would do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.search import check_recipe
from hcpr_tune.api.search_request import SpaceSource
from hcpr_tune.api.sizes import measuring
from hcpr_tune.api.trust import Trust, named_in_study, trust_decisions, trust_space
from hcpr_tune.common.shell import same_again
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.host import interruptible
from hcpr_tune.execution.connection.ray_options import RayOptions

if TYPE_CHECKING:
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.simulation.comparison import Played
    from hcpr_tune.simulation.curves.costs import Costs
    from hcpr_tune.simulation.curves.curves import Curves
    from hcpr_tune.simulation.curves.recorded import OldStudy
    from hcpr_tune.simulation.replay import Replay
    from hcpr_tune.simulation.variants import Variant
    from hcpr_tune.simulation.worker_pool import WorkerPool

MOST_PROBE_SECONDS = 15.0
MOST_DEATHS = 60.0
"""Per hour: a worker that lives for less than a minute finishes nothing."""
Plain = dict[str, Any]
Waiting = Callable[[str], AbstractContextManager[Callable[[str], None]]]
"""Shows a text while its block runs; the block gets a function that changes it."""


def silent(words: str) -> AbstractContextManager[Callable[[str], None]]:
    """A `Waiting` that shows nothing."""
    return nullcontext(lambda words: None)


@dataclass(frozen=True)
class Workers:
    """The simulated workers.

    `count`: trials at once, None for as many as this machine holds; `speeds`: relative, dealt out in turn;
    `join_minutes`: they join evenly over this time; `deaths_per_hour`: of each worker; `back_seconds`: until a dead one
    is replaced.
    """

    count: int | None = None
    speeds: tuple[float, ...] = (1.0,)
    join_minutes: float = 0.0
    deaths_per_hour: float = 0.0
    back_seconds: float = 0.0

    def pool(self, spec: StudySpec) -> WorkerPool:
        """Raises `InputError` for more workers than the study would use."""
        from hcpr_tune.simulation.variants import check_workers
        from hcpr_tune.simulation.worker_pool import WorkerPool

        resources = spec.settings.resources
        here = max(1, int((os.cpu_count() or 1) / resources.cpus_per_trial))
        workers = check_workers("--workers", self.count if self.count is not None else resources.workers or here, spec)
        return WorkerPool(workers, self.speeds, 60 * self.join_minutes, self.deaths_per_hour, self.back_seconds)


@dataclass(frozen=True)
class SimulationRequest:
    """What to simulate.

    `vary`: values to compare by dotted name, of several names all combinations; `studies`: earlier studies of the same
    task by name (in `storage`) or path, whose learning curves and costs are used; `curves`: a CSV file with learning
    curves; without both, curves are guessed from a short training. `repeats` at most within `seconds`; `epoch_seconds`,
    `driver_rate`: costs that are known better than by measuring.
    """

    source: SpaceSource
    workers: Workers = field(default_factory=Workers)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    studies: tuple[str | Path, ...] = ()
    storage: str = "results"
    curves: Path | None = None
    epoch_seconds: float | None = None
    driver_rate: float | None = None
    repeats: int = 20
    seconds: float = 40.0


@dataclass(frozen=True)
class SimulationResult:
    """The simulated variants, and all that was found as plain values (`plain`, see docs/plan.md)."""

    name: str
    played: list[Played]
    plain: Plain

    @property
    def chosen(self) -> Played:
        """The variant that the comparison recommends."""
        from hcpr_tune.simulation.comparison import choice

        return choice(self.played)

    def space(self) -> str:
        """The chosen variant as a space file, with what was predicted for it."""
        from hcpr_tune.search.spec.study import study_to_toml
        from hcpr_tune.simulation.forecast import with_foreseen

        heading = f"# {self.name}, {self.chosen.variant.name}: written by `{same_again()}`.\n"
        return heading + study_to_toml(with_foreseen(self.chosen.variant.study, self.chosen))

    def write_page(self, path: Path) -> None:
        """Write the HTML page, and its numbers as JSON next to it. Raises `OSError`."""
        from hcpr_tune.common.files import write_json
        from hcpr_tune.views.report.plan_page import PlanShown, write_plan_page

        plain = self.plain
        shown = PlanShown(
            title=plain["space"],
            curves=plain["curves"]["from"],
            guess=plain["curves"]["guess"],
            costs={**plain["costs"]["seconds"], **plain["costs"], "words": plain["costs"]["from"]},
            warnings=plain["notes"],
            results=plain["variants"],
            unbeaten=frozenset(plain["unbeaten"]),
            chosen=plain["chosen"],
            objective=plain["objective"],
            command=plain["command"],
            repeats=plain["repeats"],
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_plan_page(path, shown)
        write_json(path.with_suffix(".json"), plain)


class Simulator:
    """Checks a request at once, and simulates it on `run`. Raises `InputError` before any work."""

    def __init__(self, request: SimulationRequest, ray: RayOptions, trust: Trust) -> None:
        self._request, self._ray = request, ray
        if request.repeats < 1:
            raise InputError(f"--repeats must be at least 1, got {request.repeats}")
        self._variants = _variants(request, trust)
        self._old = _old_studies(request, self._variants)
        self._curves = _given_curves(request, self._variants, self._old)
        if self._curves is not None:
            epochs = sorted({rung for variant in self._variants for rung in variant.study.rungs})
            self._curves.play(epochs, 1, 0)  # raises for curves that do not fit, before the probe

    def run(self, waiting: Waiting = silent) -> SimulationResult:
        """Measure what is not known yet, simulate the variants, and compare them."""
        from hcpr_tune.simulation.comparison import compare, comparison_plain
        from hcpr_tune.simulation.notes import notes_of
        from hcpr_tune.simulation.suggesting import played_studies

        request, spec = self._request, self._variants[0].study
        costs, probes = self._costs(waiting)
        curves = self._curves or _guessed_curves(spec, probes)
        studies, samplers = played_studies([variant.study for variant in self._variants], curves)
        variants = [replace(one, study=study) for one, study in zip(self._variants, studies, strict=True)]
        with waiting("simulating") as show:

            def tell(repeat: int) -> None:
                show(f"simulated {repeat} of {request.repeats} times")

            seed = spec.settings.seed
            results = compare(variants, curves, costs, seed, request.repeats, request.seconds, tell)
        notes = [*notes_of(results, curves, request.repeats), *filter(None, [samplers])]
        for one, variant in zip(results, self._variants, strict=True):
            one.variant = variant
        plain = {
            "space": request.source.path.stem,
            "task": spec.recipe.task.dataset,
            "objective": spec.settings.objective[0],
            "command": same_again(),
            "curves": {"from": curves.words, "guess": curves.guess},
            "costs": costs.to_plain(),
            "notes": notes,
            **comparison_plain(results),
        }
        return SimulationResult(request.source.path.stem, results, plain)

    def _costs(self, waiting: Waiting) -> tuple[Costs, list[Plain]]:
        """What the work costs, and what a probe measured; none is made if costs were recorded."""
        from hcpr_tune.simulation.curves.costs import costs_of_probe, costs_of_records

        request, spec = self._request, self._variants[0].study
        probes: list[Plain] = []
        if self._old:
            with measuring(spec) as size:
                names = ", ".join(str(one.folder) for one in self._old)
                costs = costs_of_records([one.events for one in self._old], size(), f"recorded in {names}")
        else:
            probes = self._probed(spec, waiting)
            costs = costs_of_probe(probes)
        if request.epoch_seconds is not None:
            costs = costs.with_epoch_seconds(spec, request.epoch_seconds)
        if request.driver_rate is not None:
            costs = costs.with_driver_rate(request.driver_rate)
        return costs, probes

    def _probed(self, spec: StudySpec, waiting: Waiting) -> list[Plain]:
        """Train a little, here or on a cluster."""
        if self._ray.address is not None:
            return probe_workers(spec, replace(self._ray, wait=0), "--address")[1]
        check_recipe(spec.recipe)
        with waiting("probing: training a few steps to see what they take"):
            from hcpr_tune.training.plugins import guarded
            from hcpr_tune.training.probe import probe
            from hcpr_tune.training.session import DataShelf

            with guarded():
                return [asdict(probe(spec.recipe, DataShelf(), MOST_PROBE_SECONDS))]


def probe_workers(spec: StudySpec, ray: RayOptions, where: str) -> tuple[int, list[Plain]]:
    """The number of trials at once on Ray, and what the published recipe costs on each of the probed workers."""
    from hcpr_tune.execution.connection.cluster import allot, connected
    from hcpr_tune.execution.probing import probe_cluster

    if ray.address is None:
        check_recipe(spec.recipe)
    with connected(ray.address, named_in_study(spec)) as cluster, interruptible():
        share = allot(spec.settings.resources, cluster, where, ray.wait)
        return share.workers, probe_cluster(spec, share)


def replay_search(given: str | Path, trust: Trust, storage: str = "results") -> Replay:
    """Whether the simulation decides what a recorded search, given by name or path, decided. Raises `InputError`."""
    from hcpr_tune.simulation.curves.recorded import read_old
    from hcpr_tune.simulation.replay import replay

    old = read_old(given, "--replay", storage)
    trust_decisions(trust, old.folder, old.study)
    return replay(old)


def _variants(request: SimulationRequest, trust: Trust) -> list[Variant]:
    """The study as it is, and its variants."""
    from hcpr_tune.search.spec.study_file import read_study
    from hcpr_tune.simulation.variants import variants_of

    source = request.source

    @cache
    def read(more: Sequence[tuple[str, Any]]) -> StudySpec:
        words = " ".join([source.given, *(f"--vary {name}={value}" for name, value in more)]).strip()
        return read_study(source.path, [*source.overrides, *more], words)

    variants = variants_of(request.vary, read, request.workers.pool(read(())))
    for variant in variants:
        trust_space(trust, source.path, variant.study)
    return variants


def _old_studies(request: SimulationRequest, variants: Sequence[Variant]) -> list[OldStudy]:
    from hcpr_tune.simulation.curves.recorded import check_comparable, read_old

    old = [read_old(given, storage=request.storage) for given in request.studies]
    old = list({one.folder.absolute(): one for one in old}.values())
    for one in old:
        for variant in variants:
            check_comparable(one, variant.study)
    return old


def _given_curves(request: SimulationRequest, variants: Sequence[Variant], old: Sequence[OldStudy]) -> Curves | None:
    """Curves of a file, or of recorded studies; None if there are neither."""
    from hcpr_tune.simulation.curves.csv_curves import read_curves
    from hcpr_tune.simulation.curves.recorded import recorded_curves

    spec = variants[0].study
    if request.curves is None:
        return recorded_curves(old, spec) if old else None
    _check_one_score(spec, f"--curves {request.curves} has one score per epoch")
    return read_curves(request.curves)


def _check_one_score(spec: StudySpec, why: str) -> None:
    """Raises `InputError` if the study compares two accuracies."""
    if spec.goal.floors or len(spec.settings.objective) > 1:
        raise InputError(
            f"{why}, but the study compares trials by clean and robust accuracy; plan with --from results/OLD, or "
            "with --set constraints.clean_accuracy=0"
            " --set objective=robust_accuracy"
        )


def _guessed_curves(spec: StudySpec, probes: Sequence[Plain]) -> Curves:
    """A family of curves through what the probe has seen."""
    from hcpr_tune.simulation.curves.curves import GuessedCurves

    _check_one_score(spec, "without --from and --curves the learning curves are a guess at one accuracy")
    probe = probes[0]
    return GuessedCurves(
        probe["classes"],
        spec.recipe.epochs,
        probe["validation_images"],
        probe["steps"] / probe["steps_per_epoch"],
        sum(one["robust_accuracy_validation"] for one in probes) / len(probes),
    )
