"""The same from a program or a notebook: run a search, open a study, take its tables, figures and recipe."""

from __future__ import annotations

import tempfile
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
    from hcpr_tune.search.spec.study import Study
    from hcpr_tune.training.recipe import Recipe


@dataclass(frozen=True)
class LoadedStudy:
    """A study as its record has it at the moment of loading; a search may go on meanwhile. `load` makes one."""

    folder: StudyFolder
    study: Study
    history: History

    @property
    def name(self) -> str:
        return self.folder.root.name

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial, by its number: status, accuracies on validation with their 95 % intervals, seconds, every searched value; the columns of trials.csv."""
        import pandas as pd

        from hcpr_tune.search.record.results import trial_columns, trial_row

        rows = [trial_row(trial) for trial in self.history.trials.values()]
        return pd.DataFrame(rows, columns=trial_columns(self.study)).set_index("trial")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row per trial and epoch: what was trained and measured, with the shares next to the counts; NaN where an epoch was not evaluated."""
        import pandas as pd

        from hcpr_tune.search.record.results import metrics_row

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
        """What is known of the best trial, beside the published recipe: as best/metrics.json. Raises `InputError` where no trial has reached a rung."""
        from hcpr_tune.search.record.results import best_metrics, winner

        if winner(self.study, self.history) is None:
            raise InputError(f"no trial of {self.folder.address} has reached a rung yet: there is no best one")
        return best_metrics(self.study, self.history)

    @property
    def recipe(self) -> Recipe:
        """The best trial's recipe, as far as it was trained. Raises `InputError` as `best` does."""
        from hcpr_tune.search.record.results import trained_recipe

        return trained_recipe(self.study, self.history.trials[self.best["trial"]])

    @property
    def verdict(self) -> dict[str, Any]:
        """What `hcpr_tune verdict` found, as verdict/verdict.json. Raises `InputError` where it was not run."""
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
        """The names that `figure` knows."""
        from hcpr_tune.views.report.figures import FIGURES

        return list(FIGURES)

    def figure(self, name: str) -> go.Figure:
        """One of the report's pictures, to show or to change. Raises `InputError` for a name that is not in `figures`, and where there is nothing to draw yet."""
        from hcpr_tune.views.report.figures import FIGURES

        if name not in FIGURES:
            raise InputError(f"there is no figure {show(name)}; known: {', '.join(FIGURES)}")
        title, draw = FIGURES[name]
        drawn = draw(self.study, self.history)
        if drawn.figure is None:
            raise InputError(f"{title}: {drawn.says}")
        drawn.figure.update_layout(title=title)
        return drawn.figure

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report to `path`, by default report.html in the study's folder; returns where it is."""
        from hcpr_tune.search.storage.lease import living_lease_holder
        from hcpr_tune.views.report.report import write_report

        running = living_lease_holder(self.folder.objects) is not None
        target = None if path is None else Path(path)
        return write_report(self.folder, self.study, self.history, running, path=target)

    def __repr__(self) -> str:
        return f"<study {self.folder.address}: {len(self.history.trials)} trials>"


def load_model(folder: str | Path, device: str = "cpu", trust: bool = False) -> nn.Module:
    """A trained model in RobustBench's convention, from a folder such as results/NAME/verdict or results/NAME/best: images (B, C, H, W) in [0, 1] -> logits
    (B, K), eval mode, no parameter wants a gradient. `trust`: run the code (package.module:factory) that a recipe of somebody else names.
    Raises `InputError` where something is missing or damaged, or where nobody has vouched for such code.
    """
    from hcpr_tune.cli.trust import trust_model
    from hcpr_tune.training.models import export
    from hcpr_tune.training.plugins import only_vouched

    with only_vouched():
        export.check_files(Path(folder))
        trust_model(Namespace(trust=trust), Path(folder))
        return export.load_model(folder, device)


def load(path: str | Path) -> LoadedStudy:
    """Open a study, running or not, by its folder or its bucket's URL: "results/NAME", "s3://BUCKET/PATH/NAME". Raises `InputError` where there is none."""
    from hcpr_tune.search.storage.studies import reopen

    return LoadedStudy(*reopen(*storage_of(str(path).rstrip("/")), "load "))


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
"""The flags of `hcpr_tune tune` that `tune` takes by name."""


def tune(
    space: str | Path | Mapping[str, Any] = "default",
    *,
    name: str | None = None,
    storage: str | Path = "results",
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    trust: bool = False,
    **options: Any,
) -> LoadedStudy:
    """Run a search to its end, as `hcpr_tune tune` does, and return the study.

    space: a file of search_spaces/ by name, a path, or the tables of such a file as a dict. settings: as --set, {"hcpr.scale": 8}.
    options: the other flags of `hcpr_tune tune` by name: trials=40, hours=2, seed=1, address="HOST:PORT", warm_start="results/OLD"; resume="NAME" goes on
    with a study, and then `space`, `name` and `settings` stay away. trust: as --trust, run the code that a study of somebody else names.
    Raises `InputError` for what cannot be, `Interrupted` on Ctrl-C, and `HcprTuneError` where no trial reached a rung; all that was recorded is kept.
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
    study = load(f"{arguments.storage.rstrip('/')}/{arguments.resume or arguments.name}")
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
