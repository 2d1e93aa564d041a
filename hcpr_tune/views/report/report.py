"""The report of a study: what the search found, why, and what to do next, as one self-contained HTML file."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hcpr_tune.common.drawing import for_dark_pages, legend
from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option, storage_words
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.metrics import masking_of, rung_accuracies, trial_metrics
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.views.next_commands import storage_of_folder
from hcpr_tune.views.plan_progress import SENTENCE, TITLES, foreseen_rows
from hcpr_tune.views.report.answer import answer, value_words
from hcpr_tune.views.report.context import CLEAN, ROBUST, ReportContext
from hcpr_tune.views.report.figures import FIGURES, KINDS, kind_of
from hcpr_tune.views.report.figures.shown import Shown
from hcpr_tune.views.report.page import Cell, Row, Section, Table, figure_section, page_html
from hcpr_tune.views.status import STATES, TRIAL_STATES, counts
from hcpr_tune.views.summary import alarms
from hcpr_tune.views.verdicts import SPLITS, TABLE_TITLES, read_verdict, table_rows, verdict_lines
from hcpr_tune.views.wording import counted

MOST_ROWS = 1000
NAME = "report.html"
DARK_PAPER = "#14171a"
"""As `--paper` of a dark page in page.css."""
LEAD = {
    "accuracies": "The trade-off of each recipe between clean and attacked images.",
    "curves": "How the trials improved, and which were stopped early.",
    "rungs": "Stopping trials early works only as well as early scores predict the final ones.",
    "parallel": "Where in the search space the good recipes are, in all dimensions at once.",
    "importance": "Which dimensions the accuracies depend on.",
    "slices": "How the robust accuracy depends on each dimension by itself.",
    "pairs": "Where the attack still succeeds: the true class, and the class that the model predicts under attack.",
    "costs": "What the search spent its workers' time on, and what early stopping saved.",
}
"""The line above each figure: what it is for."""


def write_report(
    stored: StoredStudy,
    alive: bool = False,
    program: str = "hcpr_tune",
    path: Path | None = None,
) -> Path:
    """Write the report atomically to `path` (default: report.html in the study's folder), and return the path.

    Raises `OSError`.
    """
    folder, study, history = stored
    path = path or folder.root / NAME
    page = report_html(ReportContext(folder, study, history, alive, program, time.time()))
    # File names may contain bytes that cannot be encoded.
    write_bytes_whole(path, page.encode("utf-8", "replace"))
    return path


def report_html(context: ReportContext) -> str:
    """The whole page."""
    drawn = {name: draw(context.study, context.history) for name, (_, draw) in FIGURES.items()}
    return page_html("report", header(context), sections(context, drawn), drawn)


def sections(context: ReportContext, drawn: Mapping[str, Shown]) -> list[Section]:
    """All sections, in the order of the page; `drawn`: the figures by name."""
    tables = {"costs": planned_table(context)}
    figures = [
        figure_section(name, title, LEAD[name], drawn[name], tables.get(name)) for name, (title, _) in FIGURES.items()
    ]
    figures[-2:-2] = examples_section(context)
    before = [answer(context), *verdict_section(context), alarm_section(context)]
    return [*before, *figures, trials_section(context), reproduce_section(context)]


def header(context: ReportContext) -> dict[str, str]:
    """The study, its state, and when the report was written."""
    history, study, task = context.history, context.study, context.study.recipe.task
    count = counts(study, history, context.alive)
    words = ", ".join(f"{count[state]} {state}" for state in TRIAL_STATES if count[state]) or "none started"
    state = STATES.get(context.state, context.state)
    banner = ""
    if context.alive:
        banner = "This search was still running when the report was written: these are results so far."
    elif context.state != "finished":
        banner = f"This search is not over ({state}): these are results so far."
    return {
        "name": context.name,
        "description": study.settings.description,
        "task": f"{task.dataset}, {task.norm} ball of {task.epsilon:g}",
        "trials": f"{count['suggested']} of {count['budget']} trials: {words}",
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(context.written)),
        "banner": banner,
    }


def verdict_section(context: ReportContext) -> list[Section]:
    """The verdict, if there is one: of `hcpr_tune verdict`, or the small one at the end of the search."""
    plain = read_verdict(context.folder.root)
    if plain is None:
        return []
    lead, *lines = verdict_lines(plain | {"test_accesses": context.history.test_accesses})
    shown = {
        "lead": lead,
        "lines": [line.strip() for line in lines],
        "titles": TABLE_TITLES,
        "splits": [
            (split, plain["splits"][split]["images"], table_rows(plain, split))
            for split in SPLITS
            if plain["splits"].get(split, {}).get("candidates")
        ],
        "source": "".join(_source(context, plain)),
    }
    return [Section("verdict", "Verdict", "verdict", shown)]


def _source(context: ReportContext, plain: dict[str, Any]) -> Iterator[str]:
    """How the verdict's numbers were made, if there are any, and which of its files exist."""
    if any(split["candidates"] for split in plain["splits"].values()):
        yield (
            "The models were trained again on new seeds: means and standard deviations over the seeds. The 95 %"
            " intervals of the differences cover the variation between seeds (if there are several) and between images;"
            " p is adjusted for the number of comparisons (Holm). "
        )
    yield "The details are in verdict/verdict.md"
    yield (
        ", the exported model in verdict/."
        if (context.folder.root / "verdict" / "model.safetensors").is_file()
        else "."
    )


def planned_table(context: ReportContext) -> Table:
    """The search compared with its plan, if it had one."""
    rows = foreseen_rows(context.study, context.history)
    return Table(TITLES, rows, "The search compared with its plan", "Compared with the plan", SENTENCE)


def alarm_section(context: ReportContext) -> Section:
    """What the user should look at."""
    found = [(alarm.kind, alarm.words) for alarm in alarms(context.study, context.history)]
    found += [("loss", f"lost and repeated: {what}") for what in context.history.losses]
    return Section("alarms", "Alarms", "alarms", {"alarms": found, "none": no_alarm_words(context)})


def no_alarm_words(context: ReportContext) -> str:
    """What was checked without finding anything."""
    trials = context.history.trials.values()
    if not any(trial.epochs for trial in trials):
        return "Nothing was trained yet, so there is nothing to say."
    checked = sum(bool((masking := masking_of(trial)) and masking["images"]) for trial in trials)
    words = "No trial was lost, nothing was damaged"
    if checked:
        return (
            f"None. {words}, and no masked gradients were seen in the {counted(checked, 'trial')} whose models were"
            " checked for them after their last epoch."
        )
    reason = (
        "no trial has reached its last epoch"
        if context.study.recipe.evaluation.masking_images
        else "evaluation.masking_images is 0"
    )
    return f"{words}. No model was checked for masked gradients: {reason}."


def examples_section(context: ReportContext) -> list[Section]:
    """Examples of attacked images, if the best trial's worker drew them."""
    best = context.history.best_trial
    path = context.folder.trial(best.number) / f"examples_epoch_{best.best_rung:04d}.png" if best is not None else None
    if best is None or path is None or not there(path):
        return []
    says = (
        "Validation images before and after the attack, and the difference, with the predictions of trial"
        f" {best.number} at epoch {best.best_rung}."
    )
    if numbers := legend(context.history.class_names):
        says += f" Class {numbers}."
    png = path.read_bytes()
    shown = {"says": says, **{name: base64.b64encode(data).decode() for name, data in both_schemes(png).items()}}
    return [Section("examples", "What the attack does", "examples", shown)]


def both_schemes(png: bytes) -> dict[str, bytes]:
    """A picture for light and for dark pages; the same for both if it cannot be read."""
    try:
        return {"png": png, "dark_png": for_dark_pages(png, DARK_PAPER)}
    except (OSError, SyntaxError, ValueError):
        return {"png": png, "dark_png": png}


def trials_section(context: ReportContext) -> Section:
    """A sortable table of all trials."""
    ranked = context.history.ranked()
    scored = {trial.number for trial in ranked}
    listed = ranked + [trial for trial in context.history.trials.values() if trial.number not in scored]
    best = context.history.best_trial
    titles = [
        "rank",
        "trial",
        "state",
        "robust",
        "clean",
        "epochs",
        "seconds",
        "source",
        *context.study.space,
        "reason",
    ]
    rows = [_row(context, trial, rank, best) for rank, trial in enumerate(listed[:MOST_ROWS], start=1)]
    return Section("trials", "All trials", "trials", {"titles": titles, "rows": rows, "total": len(listed)})


def _row(context: ReportContext, trial: Trial, rank: int, best: Trial | None) -> Row:
    metrics = trial_metrics(trial)
    accuracies = rung_accuracies(trial)
    robust, clean = (accuracies[ROBUST], accuracies[CLEAN]) if accuracies else (None, None)
    cells = [
        Cell(rank if accuracies else ""),
        Cell(trial.number),
        Cell(context.state_of(trial)),
        Cell(robust or "", robust.share if robust else ""),
        Cell(f"{100 * clean.share:.1f} %" if clean else "", clean.share if clean else ""),
        Cell(trial.last_epoch),
        Cell(f"{metrics['seconds']:.1f}", metrics["seconds"]),
        Cell(trial.source),
        *(Cell(value_words(value), value) for value in (trial.params.get(name, "") for name in context.study.space)),
        Cell(trial.reason, long=True),
    ]
    kind = kind_of(trial, best)
    return Row(cells, kind, KINDS[kind][0]) if kind in ("best", "published") else Row(cells)


def reproduce_section(context: ReportContext) -> Section:
    """Everything that identifies these results."""
    space, seed = option("--space", context.folder.study), option("--seed", context.study.settings.seed)
    storage = storage_words(storage_of_folder(context.folder))
    same = command("tune", space, seed, *storage, program=context.program)
    what = "From the complete study file, with the same seed (with one worker it makes the same decisions)"
    shown = {"facts": list(_facts(context)), "commands": [(what, same)], "changes": list(_changes(context.history))}
    return Section("reproduce", "How to reproduce it", "reproduce", shown)


def _changes(history: History) -> Iterator[str]:
    """What the search was given in addition to its study file."""
    for extension in history.extensions:
        yield "its budget was set to " + ", ".join(f"{name} {value:g}" for name, value in extension.items())
    if history.old_trials:
        yield f"it learned from {len(history.old_trials)} trials of an earlier study"
    if history.requests:
        yield f"{len(history.requests)} requests by hand (trials enqueued or killed)"
    if history.audited:
        yield "trials run to the end for the audit: " + ", ".join(map(str, sorted(history.audited)))


def _facts(context: ReportContext) -> Iterator[tuple[str, str]]:
    history, study = context.history, context.study
    yield "study", context.folder.address
    yield "fingerprint", study.fingerprint
    yield "seed", str(study.settings.seed)
    yield "versions", ", ".join(f"{name} {version}" for name, version in history.versions.items())
    epochs = [event for trial in history.trials.values() for event in trial.epochs.values()]
    devices = {" in ".join(filter(None, (event["device"], event.get("precision")))) for event in epochs}
    yield "devices", ", ".join(sorted(devices))
    workers = {
        str(event["worker"]).rpartition(":")[0]
        for trial in history.trials.values()
        for event in trial.epochs.values()
        if event.get("worker")
    }
    yield "nodes", f"{len(workers)}" if workers else ""
    yield "workers", str(history.workers)
    yield "torch threads", str(study.recipe.threads)
    yield "sampler", study.settings.sampler.name
    yield "rungs", ", ".join(map(str, study.rungs))
    yield "images", ", ".join(f"{name} {digest}" for name, digest in history.splits.items())
