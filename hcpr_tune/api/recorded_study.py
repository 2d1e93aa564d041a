"""What a study has recorded: tables, figures, the best recipe, the report, the model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import Trust
from hcpr_tune.common.nearest import did_you_mean
from hcpr_tune.common.settings import show
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from torch import nn

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StoredStudy, StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.search.storage.lease import LeaseHolder
    from hcpr_tune.training.recipe import Recipe


class RecordedStudy:
    """A study where it is stored, and what its record said when it was read."""

    def __init__(self, stored: StoredStudy, trust: Trust | None = None) -> None:
        self._stored, self._trust = stored, trust or Trust()

    @property
    def folder(self) -> StudyFolder:
        return self._stored.folder

    @property
    def spec(self) -> StudySpec:
        return self._stored.spec

    @property
    def history(self) -> History:
        return self._stored.history

    @property
    def name(self) -> str:
        return self._stored.name

    @property
    def storage(self) -> str:
        """The folder or the bucket's URL that the study is stored in."""
        return str(self.folder.location.parent)

    @property
    def verdict_result(self) -> dict[str, Any]:
        """The verdict so far, as in verdict/verdict.json. Raises `InputError` if there is none."""
        from hcpr_tune.views.next_commands import about
        from hcpr_tune.views.verdicts import read_verdict

        plain = read_verdict(self.folder.root)
        if plain is None:
            raise InputError(
                f"{self.folder.root} holds no verdict of this version; run: {about('verdict', self.folder)}"
            )
        return plain

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial, indexed by its number, with the columns of trials.csv.

        Status, accuracies on validation with 95 % intervals, seconds, and every searched value.
        """
        import pandas as pd

        from hcpr_tune.search.record.metrics import trial_columns, trial_row

        rows = [trial_row(trial) for trial in self.history.trials.values()]
        return pd.DataFrame(rows, columns=trial_columns(self.spec)).set_index("trial")

    @property
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
    def figures(self) -> list[str]:
        """The names that `figure` accepts."""
        from hcpr_tune.views.report.figures import ALL_FIGURES

        return list(ALL_FIGURES)

    def figure(self, name: str) -> go.Figure:
        """One of the figures of the report and of the live page, as a plotly figure.

        Raises `InputError` for an unknown name, and if there is nothing to draw yet.
        """
        from hcpr_tune.views.report.figures import ALL_FIGURES

        if name not in ALL_FIGURES:
            hint = did_you_mean(name, ALL_FIGURES) or f"known: {', '.join(ALL_FIGURES)}"
            raise InputError(f"there is no figure {show(name)}; {hint}")
        title, draw = ALL_FIGURES[name]
        drawn = draw(self.spec, self.history)
        if drawn.figure is None:
            raise InputError(f"{title}: {drawn.says}")
        drawn.figure.update_layout(title=title)
        return drawn.figure

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report to `path` (default: report.html in the study's folder) and return its path."""
        from hcpr_tune.views.report.report import write_report

        target = None if path is None else Path(path)
        return write_report(self._stored, self.is_running, path=target)

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

    def export(self, path: str | Path) -> Path:
        """Write the study for other tools, into a new file.

        "NAME.onnx": its model, for ONNX Runtime; "NAME.log": its trials as a journal of Optuna; any other name: its
        trials as an SQLite database of Optuna. Raises `InputError` if the file exists or cannot be one.
        """
        from hcpr_tune.api.export import write_onnx_model, write_optuna
        from hcpr_tune.training.plugins import only_vouched

        target = Path(path)
        if target.suffix == ".onnx":
            with only_vouched():
                write_onnx_model(self.model, target, self._trust)
        else:
            write_optuna(self.spec, self.history, target, self.name, self.is_running)
        return target

    @property
    def model(self) -> Path:
        """The folder of the study's model: its verdict's if there is one, else the best of the search.

        Raises `InputError` if no trial has reached a rung.
        """
        from hcpr_tune.api.export import model_of

        return model_of(self.folder)

    def load_model(self, device: str = "cpu", trust: bool = False) -> nn.Module:
        """The model in `model`, with its `classes`, as `hcpr_tune.load_model` gives it."""
        return load_model(self.model, device, trust)

    def __repr__(self) -> str:
        return f"<study {self.folder.address}: {len(self.history.trials)} trials>"


def load_model(model: str | Path, device: str = "cpu", trust: bool = False) -> nn.Module:
    """Load a trained model: that of a study by name or path, or of a folder such as results/NAME/best.

    As in RobustBench it maps images (B, C, H, W) in [0, 1] to logits (B, K); it is in eval mode and its parameters
    require no gradient. `model.classes` are the names of the K classes, in the order of the logits; their numbers, as
    texts, for data without names. `trust`: import the code (package.module:factory) that someone else's recipe names.
    Raises `InputError` if a file is missing or damaged, or names code that is not trusted.
    """
    from hcpr_tune.api.finding import find_model
    from hcpr_tune.api.trust import trust_model
    from hcpr_tune.training.models import export
    from hcpr_tune.training.plugins import only_vouched

    with only_vouched():
        folder = find_model(model)
        export.check_files(folder)
        trust_model(Trust(trust), folder)
        return export.load_model(folder, device)
