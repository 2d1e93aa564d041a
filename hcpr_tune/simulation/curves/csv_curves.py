"""Learning curves from a CSV file, for measurements by other tools.

Columns `run`, `epoch`, `score` and optionally `final`, in any order; others are ignored. A score is a fraction from 0
to 1. The rows of a run are contiguous with ascending epochs, and all runs have every n-th epoch, with the same n.
`final` is the run's true score from another measurement (such as AutoAttack): the same in all rows of a run, or given
in only one.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hcpr_tune.common.files import read_text
from hcpr_tune.common.paths import exists
from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.settings import shorten
from hcpr_tune.errors import InputError
from hcpr_tune.simulation.curves.curves import DrawnPlay
from hcpr_tune.simulation.curves.resampling import Redrawn

if TYPE_CHECKING:
    import pandas as pd

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
        return DrawnPlay(tuple(epochs), 0, seen, true, [1.0] * trials, seed)

    def _check(self, epoch: int) -> None:
        if epoch > self.epochs[-1]:
            raise InputError(
                f"--curves {self.path}, line {self.last_line}: its last epoch is {self.epochs[-1]}, "
                f"but the last rung is at epoch {epoch}; plan with --set epochs={self.epochs[-1]}, or give longer runs"
            )
        if epoch not in self.epochs:
            step = self.epochs[0]
            raise InputError(
                f"--curves {self.path} has no score at epoch {epoch}, where a rung is, only at multiples of {step}; "
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
    where = f"--curves {path}"
    rows = _rows(path, where)
    run = rows["run"]
    rows["before"] = run.shift()
    _refuse(where, rows, run == "", "run is empty; name the run of every row")
    split = (run != rows["before"]) & run.duplicated()
    _refuse(where, rows, split, "run {run} continues here, after run {before}; sort the rows by run and epoch")
    rows["epoch"], rows["score"] = _epochs(where, rows), _shares(where, rows, "score")
    rows["earlier"] = rows["epoch"].groupby(run).shift()
    hint = "sort the rows by run and epoch, each epoch once"
    unsorted = rows["epoch"] <= rows["earlier"]
    _refuse(where, rows, unsorted, f"epoch {{epoch}} of run {{run}} comes after its epoch {{earlier:.0f}}; {hint}")
    count = run.nunique()
    if count < 2:
        raise InputError(
            f"{where}, line {rows.index[-1] if count else 1}: there is {'only one run' if count else 'no run'} in it, "
            "and at least two are needed to tell how runs differ; add more"
        )
    _check_epochs(where, rows)
    scores = rows["score"].to_numpy().reshape(count, -1)
    epochs = tuple(rows["epoch"].iloc[: scores.shape[1]].tolist())
    return CsvCurves(path, epochs, scores, _finals(where, rows), int(rows.index[-1]))


def _rows(path: Path, where: str) -> pd.DataFrame:
    """The columns as texts; the index is the line. Lines without any text are left out."""
    import pandas as pd

    if not exists(path, where):
        raise InputError(f"{where}: there is no such file; give the path of a CSV file")
    text = io.StringIO(read_text(path, FORMAT, where))
    try:
        # Without a header, so that a column that appears twice is not renamed, and with blank lines, which are counted.
        rows = pd.read_csv(text, header=None, dtype=object, keep_default_na=False, skip_blank_lines=False)
    except ValueError as error:
        raise InputError(f"{where} cannot be read: {str(error).strip()}; {FORMAT}") from None
    rows = rows.fillna("").map(str.strip).set_axis(range(1, len(rows) + 1))
    names = rows.iloc[0].tolist()
    for name in (*NEEDED, FINAL):
        if names.count(name) != 1 and not (name == FINAL and name not in names):
            wrong = "is missing" if name not in names else "appears twice"
            raise InputError(f"{where}, line 1: the column {name} {wrong}; {FORMAT}")
    rows = rows.set_axis(names, axis=1).iloc[1:]
    used = [name for name in (*NEEDED, FINAL) if name in names]
    return rows.loc[(rows != "").any(axis=1), used].copy()


def _refuse(where: str, rows: pd.DataFrame, wrong: pd.Series[bool], message: str) -> None:
    """Raise `InputError` for the first line that is wrong; `message` may name columns in braces."""
    if wrong.any():
        line = int(wrong.idxmax())
        raise InputError(f"{where}, line {line}: {message.format(**rows.loc[line])}")


def _epochs(where: str, rows: pd.DataFrame) -> pd.Series[int]:
    import pandas as pd

    epochs = pd.to_numeric(rows["epoch"], errors="coerce")
    wrong = ~(epochs >= 1) | (epochs % 1 != 0)
    got = rows["epoch"].replace("", "nothing").map(shorten).to_frame("got")
    _refuse(where, got, wrong, "epoch must be a whole number of at least 1, got {got}; count epochs from 1")
    return epochs.astype(int)


def _shares(where: str, rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """The numbers of a column, each from 0 to 1."""
    import pandas as pd

    wrong = ~pd.to_numeric(rows[name], errors="coerce").between(0, 1)
    got = rows[name].replace("", "nothing").map(shorten).to_frame("got")
    hint = "divide percentages by 100, and leave out runs that failed or diverged"
    _refuse(where, got, wrong, f"{name} must be a number from 0 to 1, got {{got}}; {hint}")
    return rows[name].astype(float)  # Python's conversion: pandas' own may differ in the last bit


def _check_epochs(where: str, rows: pd.DataFrame) -> None:
    """Raise `InputError` unless every run has all multiples of the first epoch up to the end of the longest run."""
    run, epoch = rows["run"], rows["epoch"]
    step, end = epoch.min(), epoch.max()
    expected = step * (run.groupby(run).cumcount() + 1)
    ends_early = ~run.duplicated(keep="last") & (epoch == expected) & (epoch < end)
    needed = f"each run needs {'every epoch' if step == 1 else f'the multiples of {step}'} up to {end}, like the others"
    rows["missing"] = expected.where(~ends_early, expected + step)
    odd = (epoch < expected) | (epoch % step != 0)
    wrong = (epoch != expected) | ends_early
    first = wrong & ~wrong.shift(fill_value=False).cummax()
    _refuse(where, rows, first & odd, f"epoch {{epoch}} of run {{run}} does not belong there; {needed}")
    _refuse(where, rows, first, f"epoch {{missing}} of run {{run}} is missing; {needed}")


def _finals(where: str, rows: pd.DataFrame) -> np.ndarray | None:
    """(runs,), or None if no run has a final score."""
    if FINAL not in rows or (rows[FINAL] == "").all():
        return None
    final, run = _shares(where, rows[rows[FINAL] != ""], FINAL).reindex(rows.index), rows["run"]
    first = final.groupby(run).transform("first")
    shown = rows.assign(final=final, first=first)
    differs = final.notna() & (final != first)
    _refuse(where, shown, differs, "final of run {run} is {final:g} here and {first:g} before; a run has only one")
    last = ~run.duplicated(keep="last")
    _refuse(where, rows, last & first.isna(), "run {run} has no final, others have one; fill it in, or drop the column")
    finals: np.ndarray = first[last].to_numpy()
    return finals
