"""A study from Python: open one, look at it, steer it, export it; and `tune`, which runs a search."""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.files import new_name
from hcpr_tune.common.settings import in_toml, show
from hcpr_tune.common.shell import storage_of
from hcpr_tune.errors import HcprTuneError, InputError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from torch import nn

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.search.storage.lease import LeaseHolder
    from hcpr_tune.training.recipe import Recipe


@dataclass(frozen=True)
class Study:
    """A study as recorded when it was opened: where it is, what it searches (`spec`), what has happened (`history`).

    A search may be running; open the study again to see more.
    """

    folder: StudyFolder
    spec: StudySpec
    history: History

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """Open a study, running or not, by its folder or its bucket's URL: "results/NAME", "s3://BUCKET/PATH/NAME".

        Raises `InputError` if there is none.
        """
        return cls.of(*storage_of(str(path).rstrip("/")), "load ")

    @classmethod
    def of(cls, storage: str | Path, name: str, command: str = "", with_best: bool = False) -> Study:
        """The study `name` of a storage. `command`: what error messages begin with."""
        from hcpr_tune.search.storage.studies import reopen

        return cls(*reopen(storage, name, command, with_best=with_best))

    @property
    def name(self) -> str:
        return self.folder.root.name

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial, indexed by its number, with the columns of trials.csv.

        Status, accuracies on validation with 95 % intervals, seconds, and every searched value.
        """
        import pandas as pd

        from hcpr_tune.search.record.metrics import trial_columns, trial_row

        rows = [trial_row(trial) for trial in self.history.trials.values()]
        return pd.DataFrame(rows, columns=trial_columns(self.spec)).set_index("trial")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row per trial and epoch: losses, counts and accuracies on validation, times.

        NaN where an epoch was not evaluated.
        """
        import pandas as pd

        from hcpr_tune.search.record.metrics import metrics_row

        plain = (int, float, str, bool)
        rows = [
            {"trial": trial.number, "position": position}
            | {name: value for name, value in metrics_row(event).items() if isinstance(value, plain)}
            for trial in self.history.trials.values()
            for position, event in sorted(trial.epochs.items())
        ]
        frame = pd.DataFrame(rows, columns=None if rows else ["trial", "position"])
        return frame.set_index(["trial", "position"])

    @property
    def best(self) -> dict[str, Any]:
        """Metrics of the best trial and of the published recipe, as in best/metrics.json.

        Raises `InputError` if no trial has reached a rung.
        """
        from hcpr_tune.search.record.metrics import best_metrics

        if self.history.best_trial is None:
            raise InputError(f"no trial of {self.folder.address} has reached a rung yet: there is no best one")
        return dict(best_metrics(self.spec, self.history))

    @property
    def recipe(self) -> Recipe:
        """The best trial's recipe, as far as it was trained. Raises `InputError` as `best` does."""
        from hcpr_tune.search.record.results import trained_recipe

        return trained_recipe(self.spec, self.history.trials[self.best["trial"]])

    @property
    def verdict(self) -> dict[str, Any]:
        """The result of `hcpr_tune verdict`, as in verdict/verdict.json. Raises `InputError` if there is none."""
        from hcpr_tune.views.next_commands import about
        from hcpr_tune.views.verdicts import read_verdict

        plain = read_verdict(self.folder.root)
        if plain is None:
            raise InputError(
                f"{self.folder.root} holds no verdict of this version; run: {about('verdict', self.folder)}"
            )
        return plain

    @property
    def figures(self) -> list[str]:
        """The names that `figure` accepts."""
        from hcpr_tune.views.report.figures import FIGURES

        return list(FIGURES)

    def figure(self, name: str) -> go.Figure:
        """One of the report's figures, as a plotly figure.

        Raises `InputError` for an unknown name, and if there is nothing to draw yet.
        """
        from hcpr_tune.views.report.figures import FIGURES

        if name not in FIGURES:
            raise InputError(f"there is no figure {show(name)}; known: {', '.join(FIGURES)}")
        title, draw = FIGURES[name]
        drawn = draw(self.spec, self.history)
        if drawn.figure is None:
            raise InputError(f"{title}: {drawn.says}")
        drawn.figure.update_layout(title=title)
        return drawn.figure

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report to `path` (default: report.html in the study's folder) and return its path."""
        from hcpr_tune.views.report.report import write_report

        target = None if path is None else Path(path)
        return write_report(self.folder, self.spec, self.history, self.is_running, path=target)

    @property
    def lease(self) -> LeaseHolder | None:
        """The process that runs the study at this moment; None if none does."""
        from hcpr_tune.search.storage.lease import living_lease_holder

        return living_lease_holder(self.folder.objects)

    @property
    def is_running(self) -> bool:
        """Whether a process runs the study at this moment, here or elsewhere."""
        return self.lease is not None

    @property
    def status(self) -> dict[str, Any]:
        """How the study stands, as `hcpr_tune status NAME --json` prints it."""
        from hcpr_tune.views.status import answer, holder_plain, state_of

        holder = self.lease
        state = {"state": state_of(self.spec, self.history, holder), "holder": holder_plain(holder, time.time())}
        return {
            "study": self.folder.address,
            **state,
            **answer(self.folder, self.spec, self.history, holder is not None),
        }

    def stop(self, wait: float = 60.0) -> bool:
        """Stop a running search, wherever it runs: running epochs are abandoned, everything recorded is kept.

        Returns whether it has ended within `wait` seconds. Raises `InputError` if the study is not running.
        """
        from hcpr_tune.search.storage.inbox import STOP, post

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
        from hcpr_tune.search.spec.space import point_params, with_params
        from hcpr_tune.search.storage.inbox import ENQUEUE, post

        given = dict(values)
        with_params(
            self.spec.recipe,
            point_params(given, self.spec.recipe, self.spec.space, "--set ", str(self.folder.study)),
        )
        post(self.folder.objects, {"kind": ENQUEUE, "params": given})

    def kill(self, trial: int) -> None:
        """Ask for the end of one trial, after its running epoch. Raises `InputError` if it is unknown or has ended."""
        from hcpr_tune.search.storage.inbox import KILL, KillRequest, checked, post

        request: KillRequest = {"kind": KILL, "trial": trial}
        try:
            checked(request, self.spec, self.history)
        except InputError as error:
            raise InputError(f"kill {self.name} {trial}: {error} ({self.folder.address})") from None
        post(self.folder.objects, request)

    def export_optuna(self, path: str | Path) -> None:
        """Write the trials into a new storage of Optuna: an SQLite file, or a journal if `path` ends in .log.

        Raises `InputError` if the file exists or cannot be one.
        """
        from hcpr_tune.api.export import write_optuna

        write_optuna(self.spec, self.history, Path(path), self.name, self.is_running)

    @property
    def model(self) -> Path:
        """The folder of the study's model: its verdict's if there is one, else the best of the search.

        Raises `InputError` if no trial has reached a rung.
        """
        from hcpr_tune.api.export import model_of

        return model_of(self.folder)

    def load_model(self, device: str = "cpu", trust: bool = False) -> nn.Module:
        """The model in `model`, as `hcpr_tune.load_model` gives it."""
        return load_model(self.model, device, trust)

    def __repr__(self) -> str:
        return f"<study {self.folder.address}: {len(self.history.trials)} trials>"


def load_model(folder: str | Path, device: str = "cpu", trust: bool = False) -> nn.Module:
    """Load a trained model from a folder such as results/NAME/verdict or results/NAME/best.

    As in RobustBench it maps images (B, C, H, W) in [0, 1] to logits (B, K); it is in eval mode and its parameters
    require no gradient. `trust`: import the code (package.module:factory) that someone else's recipe names.
    Raises `InputError` if a file is missing or damaged, or names code that is not trusted.
    """
    from hcpr_tune.api.trust import trust_model
    from hcpr_tune.training.models import export
    from hcpr_tune.training.plugins import only_vouched

    with only_vouched():
        export.check_files(Path(folder))
        trust_model(Namespace(trust=trust), Path(folder))
        return export.load_model(folder, device)


def load(path: str | Path) -> Study:
    """`Study.open`."""
    return Study.open(path)


OPTIONS = (
    "trials",
    "hours",
    "worker_hours",
    "epochs",
    "audit",
    "warm_start",
    "seed",
    "address",
    "wait",
    "cpus_per_trial",
    "gpus_per_trial",
    "resume",
    "log_to",
)
"""Flags of `hcpr_tune tune` that `tune` accepts as keyword arguments."""


def tune(
    space: str | Path | Mapping[str, Any] = "default",
    *,
    name: str | None = None,
    storage: str | Path = "results",
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    trust: bool = False,
    **options: Any,
) -> Study:
    """Run a search to its end, as `hcpr_tune tune` does, and return the study.

    Args:
        space: a file in search_spaces/ by name, a path, or the tables of such a file as a dict.
        settings: values as for --set, for instance {"hcpr.scale": 8}.
        trust: import the code that someone else's study names, as --trust does.
        options: other flags of `hcpr_tune tune`, for instance trials=40, hours=2, seed=1, address="HOST:PORT",
            warm_start="results/OLD". resume="NAME" continues a study; leave out space, name and settings then.

    A process that is connected to Ray uses that connection and keeps it.

    Raises `InputError` for bad input, `Interrupted` on Ctrl-C, and `HcprTuneError` if no trial reached a rung.
    Everything recorded is kept in each case.
    """
    from hcpr_tune.cli import main as cli
    from hcpr_tune.cli.commands import tune as command
    from hcpr_tune.training.plugins import only_vouched

    unknown = options.keys() - set(OPTIONS)
    if unknown:
        raise InputError(f"tune() knows no {', '.join(sorted(unknown))}; known: {', '.join(OPTIONS)}")
    arguments = cli.parser().parse_args(["tune"])
    arguments.storage, arguments.quiet, arguments.name = str(storage), quiet, name
    arguments.trust = trust
    arguments.set = [f"{key}={in_toml(value)}" for key, value in (settings or {}).items()]
    if isinstance(log_to := options.pop("log_to", []), str):
        log_to = [log_to]
    arguments.log_to = list(log_to)
    for option, value in options.items():
        setattr(arguments, option, None if value is None else str(value))
    arguments.wait = int(arguments.wait)
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        if arguments.resume is None:
            path = _space_file(space, Path(scratch))
            arguments.space = str(path)
            arguments.name = name or new_name(path.stem)
        with only_vouched():
            code = command.run(arguments)
    study = Study.of(arguments.storage, arguments.resume or arguments.name, "load ")
    if code:
        raise HcprTuneError(f"no trial of {study.folder.address} reached its first rung; see its trials.csv")
    return study


def _space_file(space: str | Path | Mapping[str, Any], scratch: Path) -> Path:
    """A space as a file."""
    if not isinstance(space, Mapping):
        from hcpr_tune.search.spec.study import find_space

        return find_space(str(space))
    import tomli_w

    path = scratch / "space.toml"
    try:
        path.write_text(tomli_w.dumps(dict(space)), encoding="utf-8")
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"the space cannot be written as TOML: {error}; give tables of plain numbers, texts, truths and lists"
        ) from None
    return path
