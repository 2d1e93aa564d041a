"""A study from Python: create or open one, search it, look at it, steer it, evaluate what it found, export it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.recorded_study import RecordedStudy
from hcpr_tune.api.search_request import Extension, SearchRequest, SpaceSource, resumed_search, search_of_program
from hcpr_tune.api.trust import Trust, begin, named_in_study
from hcpr_tune.errors import HcprTuneError, InputError, Interrupted
from hcpr_tune.execution.connection.ray_options import LOOPBACK, RayOptions
from hcpr_tune.views.terminal.search_output import progress_of

if TYPE_CHECKING:
    from hcpr_tune.api.simulate import SimulationResult, Workers
    from hcpr_tune.api.verdict import VerdictRequest
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.storage.notes import Notes
    from hcpr_tune.simulation.verdict_forecast import VerdictForecast


class Study(RecordedStudy):
    """A study where it is stored, as it was recorded when it was opened; `refresh` reads what has happened since.

    `spec` is what it searches, `history` what has happened, `folder` where its files are.
    """

    @classmethod
    def create(
        cls,
        space: str | Path | Mapping[str, Any] = "default",
        *,
        name: str | None = None,
        storage: str | Path = "results",
        settings: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> Study:
        """Create a study; `search` runs it.

        Args:
            space: a file in search_spaces/ by name, a path, or the tables of such a file as a dict.
            name: the study's name (default: the space's with date and time).
            storage: where studies are stored, a folder or a bucket's URL.
            settings: values by dotted name, {"budget.trials": 40, "hcpr.scale": 8}; a fixed value of the recipe is not
                searched.
            trust: import the code (package.module:function) that a file of somebody else names.

        Raises `InputError`, and then nothing was written.
        """
        from hcpr_tune.training.plugins import only_vouched

        with only_vouched():
            request = search_of_program(space, name, storage, settings, trust)
            begin(request.study)
        return cls(request.study, Trust(trust, frozenset(named_in_study(request.study.spec))))

    @classmethod
    def open(cls, study: str | Path, *, storage: str | Path = "results", trust: bool = False) -> Study:
        """Open a study, running or not, by its name in `storage`, or by its path: "NAME", "results/NAME",
        "s3://BUCKET/PATH/NAME".

        `trust`: import the code that somebody else's study names, if it is searched further. Raises `InputError` if
        there is no study.
        """
        return cls.of(storage, study, "load ", trust=trust)

    @classmethod
    def of(
        cls, storage: str | Path, study: str | Path, command: str = "", with_best: bool = False, trust: bool = False
    ) -> Study:
        """A study by its name in `storage`, or by its path. `command`: what error messages begin with."""
        from hcpr_tune.search.storage.studies import reopen

        return cls(reopen(storage, study, command, with_best=with_best), Trust(trust))

    def refresh(self) -> Study:
        """Read what has been recorded since; returns the study itself."""
        from hcpr_tune.search.storage.studies import reopen

        self._stored = reopen(self.storage, self.name, "load ")
        return self

    def search(
        self,
        *,
        warm_start: str | Path | None = None,
        address: str | None = None,
        wait: int = 0,
        dashboard_host: str = LOOPBACK,
        log_to: Sequence[str] = (),
        quiet: bool | None = None,
    ) -> Study:
        """Search until the budget is spent; a study that was interrupted continues from its record.

        Args:
            warm_start: an earlier study of the same task to learn from, before the first trial: its name in the same
                storage, or its path.
            address: a Ray cluster to join (default: start Ray on this machine, or use the connection that this process
                has, which is kept).
            wait: seconds to wait for the first node with room for a trial.
            dashboard_host: where the dashboard of a Ray that is started here listens; "none" starts it without one.
            log_to: "mlflow", "wandb", "optuna" (a journal in the study's folder).
            quiet: False prints the search as it goes, as `hcpr_tune tune` does; True prints nothing (default: a
                progress bar in a notebook, nothing elsewhere).

        Raises `InputError` for bad input, `Interrupted` on Ctrl-C, and `HcprTuneError` if no trial reached a rung.
        Everything recorded is kept in each case.
        """
        return self._run(Extension({}), warm_start, RayOptions(address, wait, dashboard_host), log_to, quiet)

    def resume(
        self,
        *,
        trials: int | None = None,
        hours: float | None = None,
        worker_hours: float | None = None,
        epochs: int | None = None,
        audit: int | None = None,
        **options: Any,
    ) -> Study:
        """Extend the study and search further.

        Args:
            trials, hours, worker_hours: new values of the budget; 0 hours: no limit.
            epochs: a new top rung.
            audit: run so many of the stopped trials to the end, to see what stopping them cost.
            options: those of `search` except `warm_start`.
        """
        given = {"trials": trials, "hours": hours, "worker_hours": worker_hours, "epochs": epochs}
        budget = {name: value for name, value in given.items() if value is not None}
        log_to, quiet = options.pop("log_to", ()), options.pop("quiet", None)
        return self._run(Extension(budget, audit), None, RayOptions(**options), log_to, quiet)

    def _run(
        self,
        extension: Extension,
        warm_start: str | Path | None,
        ray: RayOptions,
        log_to: Sequence[str],
        quiet: bool | None,
    ) -> Study:
        from hcpr_tune.training.plugins import only_vouched

        with only_vouched():
            request = resumed_search(self.storage, self.name, extension, self._trust, warm_start)
            self._stored = _searched(request, ray, log_to, quiet)
        return self

    def simulate(
        self,
        *,
        vary: Mapping[str, Sequence[Any]] | None = None,
        workers: int | Workers | None = None,
        studies: Sequence[str | Path] = (),
        curves: str | Path | None = None,
        repeats: int = 20,
        seconds: float = 40.0,
        address: str | None = None,
    ) -> SimulationResult:
        """Simulate the search: how long it takes, what it costs, what it finds. Only a short probe is trained, if any.

        Args:
            vary: values to compare by dotted name, {"early_stopping.first_rung": [3, 9], "workers": [8, 64]}.
            workers: trials at once (default: as many as this machine holds).
            studies: studies of the same task by name (in the same storage) or path, whose learning curves and costs are
                used (default: this one, if some of its trials reached the last epoch).
            curves: a CSV file with learning curves instead.
            repeats: simulations of each variant, as many as fit into `seconds`.
            address: probe on this Ray cluster instead of this machine.
        """
        from hcpr_tune.api.simulate import SimulationRequest, Simulator, Workers
        from hcpr_tune.training.plugins import only_vouched

        complete = any(trial.status == "completed" for trial in self.history.trials.values())
        recorded = [self.folder.root] if complete and curves is None else []
        request = SimulationRequest(
            SpaceSource(self.folder.study),
            workers if isinstance(workers, Workers) else Workers(workers),
            vary or {},
            tuple(studies or recorded),
            self.storage,
            None if curves is None else Path(curves),
            repeats=repeats,
            seconds=seconds,
        )
        with only_vouched():
            return Simulator(request, RayOptions(address), self._trust).run()

    def simulate_verdict(
        self, *, workers: int | None = None, test: bool = False, settings: Mapping[str, Any] | None = None
    ) -> VerdictForecast:
        """Simulate the verdict: how long it would take with so many jobs at once, from the costs of the search.

        `workers` defaults to those of the search; the others are as for `verdict`. Raises `InputError`.
        """
        from hcpr_tune.api.verdict import simulate_verdict
        from hcpr_tune.training.plugins import only_vouched

        with only_vouched():
            return simulate_verdict(self._verdict_request(test, settings), workers, self._trust)

    def _verdict_request(
        self,
        test: bool,
        settings: Mapping[str, Any] | None,
        compare: Sequence[str] = (),
        recipe: Mapping[str, Any] | None = None,
    ) -> VerdictRequest:
        from hcpr_tune.api.verdict import VerdictRequest

        return VerdictRequest(
            storage=self.storage,
            name=self.name,
            settings=dict(settings or {}),
            command=f"Study.open({self.folder.address!r}).verdict(test={test})",
            recipe_values=tuple((recipe or {}).items()),
            compare=tuple(compare),
            test=test,
        )

    def verdict(
        self,
        *,
        test: bool = False,
        compare: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        recipe: Mapping[str, Any] | None = None,
        quiet: bool = True,
        **ray: Any,
    ) -> dict[str, Any]:
        """Train the best recipes and the published one again on fresh seeds, attack them with AutoAttack's attacks, and
        say with statistics what is better. If interrupted, the same call continues.

        Args:
            test: at the end attack the test images too; the study keeps count.
            compare: baselines, such as "trades" and "mart": each is searched for as many worker-seconds as the study
                was, and evaluated with it.
            settings: values of the study's table [verdict], {"finalists": 3, "seeds": 5}.
            recipe: fields of all recipes that are trained, by dotted name.
            quiet: False prints what happens.
            ray: `address`, `wait` and `dashboard_host` as for `search`.

        Returns the verdict as in verdict/verdict.json. Raises `InputError` before any work, and `Interrupted`.
        """
        from hcpr_tune.api.verdict import run_verdict
        from hcpr_tune.training.plugins import only_vouched

        request = self._verdict_request(test, settings, compare, recipe)
        with only_vouched():
            result = run_verdict(request, RayOptions(**ray), self._trust, progress_of(quiet))
        self.refresh()
        return result.plain

    def stop(self, wait: float = 60.0) -> bool:
        """Stop a running search, wherever it runs: running epochs are abandoned, everything recorded is kept.

        Returns whether it has ended within `wait` seconds. Raises `InputError` if the study is not running.
        """
        from hcpr_tune.search.scheduling.driver import STOP
        from hcpr_tune.search.storage.inbox import post

        if not self.is_running:
            raise InputError(f"{self.folder.address} is not being searched; there is nothing to stop")
        post(self.folder.objects, {"kind": STOP})
        until = time.monotonic() + wait
        while self.is_running:
            if time.monotonic() >= until:
                return False
            time.sleep(0.5)
        return True

    def enqueue(self, values: Mapping[str, Any]) -> None:
        """Ask for a trial with these values, {"hcpr.scale": 8}; the others are the recipe's. Raises `InputError`.

        A running search tries them with its next free worker, else the next session does.
        """
        from hcpr_tune.search.scheduling.driver import ENQUEUE
        from hcpr_tune.search.spec.points import point_params, with_params
        from hcpr_tune.search.storage.inbox import post

        given = dict(values)
        with_params(
            self.spec.recipe,
            point_params(given, self.spec.recipe, self.spec.space, "--set ", str(self.folder.study)),
        )
        post(self.folder.objects, {"kind": ENQUEUE, "params": given})

    def kill(self, trial: int) -> None:
        """Ask for the end of one trial, after its running epoch. Raises `InputError` if it is unknown or has ended."""
        from hcpr_tune.search.scheduling.driver import KILL, KillRequest
        from hcpr_tune.search.storage.inbox import checked, post

        request: KillRequest = {"kind": KILL, "trial": trial}
        try:
            checked(request, self.spec, self.history)
        except InputError as error:
            raise InputError(f"kill {self.name} {trial}: {error} ({self.folder.address})") from None
        post(self.folder.objects, request)

    @property
    def notes(self) -> Notes:
        """The notes and tags on the study and its trials. Raises `InputError` if their file was damaged."""
        from hcpr_tune.search.storage.notes import read_notes

        return read_notes(self.folder.objects)

    def note(self, text: str = "", tags: Sequence[str] = (), trial: int | None = None) -> None:
        """Replace the note and tags on a trial, or on the study. Nothing is decided by them.

        Raises `InputError` for a trial that does not exist, or a note or tags that are too long.
        """
        from hcpr_tune.search.storage.notes import checked_note, write_note

        if trial is not None and trial not in self.history.trials:
            raise InputError(f"{self.name} has no trial {trial}; it has {len(self.history.trials)}, counted from 0")
        write_note(self.folder.objects, checked_note(text, tags), trial)


def load(study: str | Path, *, storage: str | Path = "results") -> Study:
    """`Study.open`."""
    return Study.open(study, storage=storage)


def tune(
    space: str | Path | Mapping[str, Any] = "default",
    *,
    name: str | None = None,
    storage: str | Path = "results",
    settings: Mapping[str, Any] | None = None,
    trials: int | None = None,
    warm_start: str | Path | None = None,
    trust: bool = False,
    **options: Any,
) -> Study:
    """Create a study and search it to its end; returns the study.

    Args:
        space, name, storage, settings, trust: as for `Study.create`.
        trials: short for the setting "budget.trials".
        warm_start: an earlier study to learn from, as for `Study.search`.
        options: `address`, `wait`, `dashboard_host`, `log_to` and `quiet` of `Study.search`.

    Nothing is written if the input is bad. Raises as `Study.search` does.
    """
    from hcpr_tune.training.plugins import only_vouched

    log_to, quiet = options.pop("log_to", ()), options.pop("quiet", None)
    ray = RayOptions(**options)
    values = dict(settings or {}) | ({} if trials is None else {"budget.trials": trials})
    with only_vouched():
        request = search_of_program(space, name, storage, values, trust, warm_start)
        study = _searched(request, ray, log_to, quiet)
        return Study(study, Trust(trust, frozenset(named_in_study(study.spec))))


def _searched(request: SearchRequest, ray: RayOptions, log_to: Sequence[str], quiet: bool | None) -> StoredStudy:
    """Run the search. Raises `Interrupted`, and `HcprTuneError` if no trial reached a rung."""
    from hcpr_tune.api.search import check_request, run_search

    log_to, progress = [log_to] if isinstance(log_to, str) else list(log_to), progress_of(quiet)
    with closing(progress):
        check_request(request, ray, log_to, progress)
    result = run_search(request, ray, log_to, progress)
    if result.interrupted:
        raise Interrupted(f"{result.interrupted}; everything recorded is kept in {result.study.folder.address}")
    if result.study.history.best_trial is None:
        raise HcprTuneError(f"no trial of {result.study.folder.address} reached its first rung; see its trials.csv")
    return result.study
