"""Train one recipe from start to end, in a folder with the files of a trial."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hcpr_tune.api.finding import find_recipe
from hcpr_tune.api.trust import Trust, begin_training, named_in_recipe, trust_recipe
from hcpr_tune.common.files import copy_whole, new_name, write_json, write_whole
from hcpr_tune.common.intervals import Proportion
from hcpr_tune.common.paths import check_writable, exists, is_file
from hcpr_tune.common.schema import Table
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.check import search_event
from hcpr_tune.search.record.events.search import EpochEvent
from hcpr_tune.search.record.metrics import metrics_line
from hcpr_tune.training import checkpoints
from hcpr_tune.training.data.dataset import Data
from hcpr_tune.training.plugins import guarded_steps, only_vouched, vouch
from hcpr_tune.training.recipe import Recipe, load_recipe, recipe_to_toml
from hcpr_tune.training.session import DataShelf, check_trainable, model_inputs, split_hashes, train_segment
from hcpr_tune.views.tensorboard.event_file import EventFile, scalars
from hcpr_tune.views.tensorboard.writer import curve_values


@dataclass(frozen=True)
class BestRung:
    """The rung with the highest robust accuracy on validation, the later in a tie, as for a trial of a search."""

    epoch: int
    robust: Proportion
    clean: Proportion


@dataclass(frozen=True)
class TrainingResult:
    """`folder`: where recipe, weights and metrics are; `best`: the best rung, None if training had ended before."""

    folder: Path
    best: BestRung | None


def train(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    trust: bool = False,
    on_epoch: Callable[[Mapping[str, Any]], object] = lambda report: None,
) -> TrainingResult:
    """Train one recipe from the beginning to the end.

    Args:
        recipe: a recipe, the file of one, or a study by name or path, whose best recipe it is.
        folder: where the results go (default: results/train-DATE-TIME-CODE).
        resume: continue in the folder from its latest checkpoint.
        trust: import the code that somebody else's recipe file names.
        on_epoch: called with each epoch's report: losses, counts on validation, seconds.

    Raises `InputError` before any work, and `Diverged`.
    """
    with only_vouched():
        if isinstance(recipe, Recipe):
            vouch(named_in_recipe(recipe))
        else:
            path = find_recipe(recipe)
            recipe = load_recipe(path)
            trust_recipe(Trust(trust), path, recipe)
        out, best = new_folder(folder, resume), None
        begin_training(out, recipe)
        for report, rung in retrain(recipe, out, resume):
            best = rung
            on_epoch(report)
    return TrainingResult(out, best)


def new_folder(folder: str | Path | None, resume: bool, option: str = "folder ") -> Path:
    """The folder for a training's results. Raises `InputError` if it exists, or cannot be written."""
    out = Path(folder or f"results/{new_name('train')}")
    if exists(out, f"{option}{out}") and not resume:
        raise InputError(f"{option}{out} exists; continue it with --resume, or choose another folder")
    check_writable(out, f"{option}{out}", "choose another folder")
    return out


def retrain(
    recipe: Recipe, folder: Path, resume: bool = False, tell: Callable[[tuple[str, ...]], None] = lambda notes: None
) -> Iterator[tuple[dict[str, Any], BestRung | None]]:
    """Train `recipe`; yields each epoch's report and the best rung so far. `tell` is called with notes on the data.

    Writes recipe.toml, metrics.jsonl, TensorBoard events, and metrics.json and model.safetensors of the best rung. With
    `resume` continues from the latest checkpoint in `folder`. Raises `Diverged`, and `InputError` if the folder cannot
    be written or holds another recipe.
    """
    shelf = DataShelf()
    tell(check_trainable(recipe, shelf))
    earlier = _earlier_epochs(recipe, folder) if resume else []
    try:
        folder.mkdir(parents=True, exist_ok=resume)
        write_whole(folder / "recipe.toml", recipe_to_toml(recipe))
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written: {error}; choose another folder") from None
    curves, best = EventFile(folder), None
    known = {event["epoch"] for event in earlier}
    for event in earlier:
        best = _better(best, event) if event["is_rung"] else best
    try:
        start = max((epoch for epoch in known if epoch in recipe.rung_epochs), default=0)
        segment = start, recipe.last_epoch, max(known, default=0)
        for report in guarded_steps(train_segment(recipe, shelf, folder / "checkpoints", *segment)):
            if report["epoch"] in known:
                continue
            epoch = cast(EpochEvent, {"time": time.time(), **report})
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(metrics_line(epoch))
            curves.write(epoch["time"], epoch["epoch"], scalars(curve_values(epoch)))
            if report["is_rung"]:
                best = _better(best, report)
                if best.epoch == report["epoch"]:
                    saved = checkpoints.folder_of(folder / "checkpoints", best.epoch)
                    copy_whole(saved / checkpoints.WEIGHTS, folder / "model.safetensors")
                    write_json(folder / "metrics.json", _metrics(best, recipe, shelf.get(recipe.task), report))
            yield report, best
    finally:
        curves.close()


def _earlier_epochs(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """The epochs recorded in `folder`; drops a last line that was cut off by a kill."""
    if not is_file(folder / "recipe.toml", f"--out {folder}"):
        raise InputError(f"--resume: {folder} holds no recipe.toml; start without --resume")
    if load_recipe(folder / "recipe.toml") != recipe:
        raise InputError(
            f"--resume: {folder} was started with another recipe; use its recipe.toml, or choose another --out"
        )
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if is_file(path, f"--out {folder}") else []
    write_whole(path, "".join(line + "\n" for line in lines))
    return [_report_of(line, f"--resume: {path}, line {number}") for number, line in enumerate(lines, start=1)]


def _report_of(line: str, where: str) -> dict[str, Any]:
    """The report in a line. Raises `InputError`."""
    try:
        report: dict[str, Any] = json.loads(line)
        Table().check(report, "the line")
        search_event({**report, "event": "epoch", "trial": 0})
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is invalid ({error}); restore the file from a copy, or choose another --out"
        ) from None
    return report


def _better(best: BestRung | None, report: dict[str, Any]) -> BestRung:
    total = report["total_validation"]
    robust = Proportion(report["robust_correct_validation"], total)
    if best is not None and best.robust.count > robust.count:
        return best
    return BestRung(report["epoch"], robust, Proportion(report["clean_correct_validation"], total))


def _metrics(best: BestRung, recipe: Recipe, data: Data, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "epoch_of_score": best.epoch,
        "robust_accuracy_validation": best.robust.to_plain(),
        "clean_accuracy_validation": best.clean.to_plain(),
        "split_index_hashes": split_hashes(data),
        "model_inputs": model_inputs(data),
        "masking_validation": report.get("masking_validation"),
        "device": report["device"],
        "precision": report["precision"],
        "threads": recipe.threads,
    }
