"""Learning curves from a CSV file, for measurements by other tools.

Columns `run`, `epoch`, `score` and optionally `final`, in any order; others are ignored. A score is a fraction from 0
to 1. The rows of a run are contiguous with ascending epochs, and all runs have every n-th epoch, with the same n.
`final` is the run's true score from another measurement (such as AutoAttack): the same in all rows of a run, or given
in only one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcpr_tune.common.files import read_text
from hcpr_tune.common.paths import exists
from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.settings import shorten
from hcpr_tune.errors import InputError
from hcpr_tune.simulation.curves.curves import DrawnPlay
from hcpr_tune.simulation.curves.resampling import Redrawn

NEEDED, FINAL = ("run", "epoch", "score"), "final"
FEWEST_EPOCHS = 6
FORMAT = "its columns are run, epoch, score and optionally final"


@dataclass(frozen=True)
class CsvCurves:
    """Runs of a CSV file, drawn at random with noise, which is estimated by comparing scores with their neighbours."""

    path: Path
    epochs: tuple[int, ...]
    scores: np.ndarray
    """(runs, epochs)"""
    finals: np.ndarray | None = None
    """(runs,)"""
    last_line: int = 0

    guess = False
    knows_params = False

    @property
    def knows_noise(self) -> bool:
        return len(self.epochs) >= FEWEST_EPOCHS

    @property
    def words(self) -> str:
        return f"{self.path} ({len(self.scores)} runs, epochs {self.epochs[0]} to {self.epochs[-1]})"

    def play(self, epochs: Sequence[int], trials: int, seed: int) -> DrawnPlay:
        for epoch in epochs:
            self._check(epoch)
        columns = self.scores[:, [self.epochs.index(epoch) for epoch in epochs]]
        with_final = columns if self.finals is None else np.column_stack([columns, self.finals])
        noise = np.full(with_final.shape[1], noise_between_neighbours(self.scores))
        if self.finals is not None:
            noise[-1] = 0.0
        curves = Redrawn.of(with_final, noise)
        draws = np.random.default_rng(derive_seed(seed, "curves of a file"))
        seen, true = [], []
        for _ in range(trials):
            measured, truth = curves.draw(int(draws.integers(len(self.scores))), draws)
            if self.finals is not None:
                # A run's true score is its final one, at whichever rung it is evaluated.
                measured, truth = measured[:-1], np.full(len(epochs), truth[-1])
            seen.append(measured.tolist())
            true.append(truth.tolist())
        return DrawnPlay(tuple(epochs), 0, seen, true, [1.0] * trials)

    def _check(self, epoch: int) -> None:
        if epoch > self.epochs[-1]:
            raise InputError(
                f"--curves {self.path}, line {self.last_line}: its last epoch is {self.epochs[-1]}, "
                f"but the last rung is at epoch {epoch}; plan with --set epochs={self.epochs[-1]}, or give longer runs"
            )
        if epoch not in self.epochs:
            step = self.epochs[0]
            raise InputError(
                f"--curves {self.path} has no score at epoch {epoch}, where a rung is: it has every {step}th epoch; "
                f"choose rungs among these, for instance --set early_stopping.first_rung={step}"
            )


def noise_between_neighbours(scores: np.ndarray) -> float:
    """The variance of a score's noise, estimated from third differences along each run (runs, epochs).

    Where a curve is a parabola over four epochs, their variance is 20 times as large. Uses the later half of the
    epochs, because curves bend most at the beginning; 0 for fewer than FEWEST_EPOCHS.
    """
    if scores.shape[1] < FEWEST_EPOCHS:
        return 0.0
    third = np.diff(scores, 3, axis=1)
    return float((third[:, third.shape[1] // 2 :] ** 2).mean() / 20)


def read_curves(path: Path) -> CsvCurves:
    """Read a file. Raises `InputError` with the line, the rule and a hint."""
    if not exists(path, f"--curves {path}"):
        raise InputError(f"--curves {path}: there is no such file; give the path of a CSV file")
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, FORMAT, f"--curves {path}")), skipinitialspace=True)
        names = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for name in (*NEEDED, FINAL):
            if names.count(name) != 1 and not (name == FINAL and name not in names):
                wrong = "is missing" if name not in names else "appears twice"
                raise InputError(f"--curves {path}, line 1: the column {name} {wrong}; {FORMAT}")
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"--curves {path} cannot be read: {error}; {FORMAT}") from None
    return _curves(path, rows)


@dataclass
class Run:
    """The rows of a run, as read."""

    lines: dict[int, int]
    """Epoch -> line."""
    scores: dict[int, float]
    final: float | None = None

    @property
    def last_line(self) -> int:
        return max(self.lines.values())


def _curves(path: Path, rows: list[tuple[int, dict[str, str]]]) -> CsvCurves:
    runs: dict[str, Run] = {}
    before = ""
    for line, row in rows:
        where = f"--curves {path}, line {line}"
        name = (row["run"] or "").strip()
        if not name:
            raise InputError(f"{where}: run is empty; name the run of every row")
        if name in runs and name != before:
            raise InputError(f"{where}: run {name} continues here, after run {before}; sort the rows by run and epoch")
        _add(runs.setdefault(name, Run({}, {})), name, line, row, where)
        before = name
    if len(runs) < 2:
        end = f"--curves {path}, line {rows[-1][0] if rows else 1}"
        raise InputError(
            f"{end}: there is {'only one run' if runs else 'no run'} in it, "
            "and at least two are needed to tell how runs differ; add more"
        )
    _check_epochs(path, runs)
    lacking = [name for name, run in runs.items() if run.final is None]
    if 0 < len(lacking) < len(runs):
        line = runs[lacking[0]].last_line
        raise InputError(
            f"--curves {path}, line {line}: run {lacking[0]} has no final, others have one; "
            "fill it in, or drop the column"
        )
    epochs = tuple(next(iter(runs.values())).scores)
    finals = None if lacking else np.array([run.final for run in runs.values()])
    return CsvCurves(path, epochs, np.array([list(run.scores.values()) for run in runs.values()]), finals, rows[-1][0])


def _add(run: Run, name: str, line: int, row: dict[str, str], where: str) -> None:
    """Add a row to a run."""
    epoch, score = _epoch(row["epoch"], where), _share("score", row["score"], where)
    if run.scores and epoch <= max(run.scores):
        raise InputError(
            f"{where}: epoch {epoch} of run {name} comes after its epoch {max(run.scores)}; "
            "sort the rows by run and epoch, each epoch once"
        )
    run.scores[epoch], run.lines[epoch] = score, line
    if row.get(FINAL):
        final = _share(FINAL, row[FINAL], where)
        if run.final not in (None, final):
            raise InputError(
                f"{where}: final of run {name} is {final:g} here and {run.final:g} before; a run has only one"
            )
        run.final = final


def _check_epochs(path: Path, runs: dict[str, Run]) -> None:
    """Raise `InputError` unless every run has every `step`-th epoch up to the end of the longest run."""
    step = min(min(run.scores) for run in runs.values())
    end = max(max(run.scores) for run in runs.values())
    every = "every epoch" if step == 1 else f"every {step}th epoch"
    for name, run in runs.items():
        expected = step
        for epoch in [*run.scores, end + step]:
            if epoch == expected and epoch <= end:
                expected += step
            elif expected <= end or epoch <= end:
                odd = epoch < expected or epoch % step
                line = run.lines.get(epoch, run.last_line)
                raise InputError(
                    f"--curves {path}, line {line}: epoch {epoch if odd and epoch in run.lines else expected} "
                    f"of run {name} {'does not belong there' if odd and epoch in run.lines else 'is missing'}; "
                    f"each run needs {every} up to {end}, like the others"
                )


def _epoch(text: str | None, where: str) -> int:
    try:
        epoch = int(text or "")
    except ValueError:
        epoch = 0
    if epoch < 1:
        raise InputError(
            f"{where}: epoch must be a whole number of at least 1, got {shorten(text or 'nothing')}; "
            "count epochs from 1"
        )
    return epoch


def _share(name: str, text: str | None, where: str) -> float:
    try:
        share = float(text or "")
    except ValueError:
        raise InputError(
            f"{where}: {name} must be a number from 0 to 1, got {shorten(text or 'nothing')}; leave out failed runs"
        ) from None
    if math.isnan(share):
        raise InputError(f"{where}: {name} is NaN; leave out runs that diverged, or end them all earlier")
    if not 0 <= share <= 1:
        raise InputError(f"{where}: {name} must be from 0 to 1, got {share:g}; divide percentages by 100")
    return share
