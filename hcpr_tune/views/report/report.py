"""The report of a study: what the search found, why, and what to do next, as one self-contained HTML file."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.common.intervals import difference_interval
from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option, storage_words
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.metrics import masking_of, rung_accuracies, trial_metrics
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.next_commands import about, storage_of_folder, way_on
from hcpr_tune.views.plan_progress import SENTENCE, TITLES, foreseen_rows
from hcpr_tune.views.report.figures import FIGURES, KINDS, kind_of
from hcpr_tune.views.report.optuna_study import full_params
from hcpr_tune.views.report.page.skeleton import (
    Section,
    cell,
    commands,
    facts,
    figure_section,
    sortable,
    table,
    whole_page,
)
from hcpr_tune.views.status import STATES, TRIAL_STATES, counts, state_of
from hcpr_tune.views.summary import alarms, gain_points
from hcpr_tune.views.verdicts import SPLITS, TABLE_TITLES, openings_words, read_verdict, table_rows, verdict_lines
from hcpr_tune.views.wording import counted

MOST_ROWS, MOST_MEMBERS = 1000, 8
NAME = "report.html"
ROBUST, CLEAN = "robust_accuracy_validation", "clean_accuracy_validation"
LEAD = {
    "accuracies": "The trade-off of each recipe between clean and attacked images.",
    "curves": "How the trials improved, and which were stopped early.",
    "rungs": "Early stopping is only as good as an early score predicts the final one.",
    "parallel": "Where good recipes are, all dimensions at once.",
    "importance": "Which dimensions the accuracies depend on.",
    "slices": "The same, one dimension at a time.",
    "pairs": "Where the attack still succeeds: the true class, and what it is turned into.",
    "costs": "What the search spent, and what it saved.",
}
"""The line above each figure: what it is for."""


@dataclass(frozen=True)
class ReportContext:
    """The subject of a report: the study, its folder and its record so far."""

    folder: StudyFolder
    study: StudySpec
    history: History
    alive: bool = False
    """Whether a search is running."""
    program: str = "hcpr_tune"
    """The program's name in the commands that are shown."""
    written: float = 0.0

    @property
    def state(self) -> str:
        """One of `status.STATES`."""
        return "running" if self.alive else state_of(self.study, self.history, None)

    def state_of(self, trial: Trial) -> str:
        """A trial's state; without a running search no trial is running."""
        return trial.state if self.alive or trial.state != "running" else "interrupted"

    @property
    def name(self) -> str:
        return self.folder.root.name


def write_report(
    folder: StudyFolder,
    study: StudySpec,
    history: History,
    alive: bool = False,
    program: str = "hcpr_tune",
    path: Path | None = None,
) -> Path:
    """Write the report atomically to `path` (default: report.html in the study's folder), and return the path.

    Raises `OSError`.
    """
    path = path or folder.root / NAME
    page = report_html(ReportContext(folder, study, history, alive, program, time.time()))
    # File names may contain bytes that cannot be encoded.
    write_bytes_whole(path, page.encode("utf-8", "replace"))
    return path


def report_html(told: ReportContext) -> str:
    """The whole page."""
    drawn = {name: draw(told.study, told.history) for name, (_, draw) in FIGURES.items()}
    more = {"costs": foreseen(told)}
    figures = [
        figure_section(name, title, LEAD[name], drawn[name], more.get(name, "")) for name, (title, _) in FIGURES.items()
    ]
    figures[-2:-2] = examples_section(told)
    before = [answer(told), *verdict_section(told), alarm_section(told)]
    after = [trials_section(told), reproduce_section(told)]
    return whole_page(f"{told.name}: hcpr_tune report", header(told), [*before, *figures, *after], drawn)


def header(told: ReportContext) -> str:
    """The study, its state, and when the report was written."""
    history, study = told.history, told.study
    count = counts(study, history, told.alive)
    words = ", ".join(f"{count[state]} {state}" for state in TRIAL_STATES if count[state]) or "none started"
    state = STATES.get(told.state, told.state)
    banner = (
        "This search was still running when the report was written: these are results so far." if told.alive else ""
    )
    if not told.alive and told.state != "finished":
        banner = f"This search is not over ({state}): these are results so far."
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(told.written))
    description = f"<p>{escape(study.settings.description)}</p>" if study.settings.description else ""
    return (
        f"<h1>{escape(told.name)}</h1>{description}"
        f"<p class='dim'>{escape(study.recipe.task.dataset)},"
        f" {escape(study.recipe.task.norm)} ball of {study.recipe.task.epsilon:g};"
        f" {len(history.trials)} of {study.settings.budget.trials} trials: {escape(words)}. Written {when}.</p>"
        + (f'<p class="banner">{escape(banner)}</p>' if banner else "")
    )


def answer(told: ReportContext) -> Section:
    """The best recipe compared with the published one, caveats about the numbers, and the next commands."""
    best = told.history.best_trial
    if best is None:
        return Section("answer", "Answer", f"<p>{escape(nothing_yet(told))}</p>{next_steps(told, None)}")
    body = [
        f'<p class="lead">{escape(verdict(told, best))}</p>',
        comparison(told, best),
        f"<p>{escape(what_it_is_worth(told, best))}</p>",
    ]
    return Section("answer", "Answer", "".join(body) + next_steps(told, best))


def nothing_yet(told: ReportContext) -> str:
    """Why there is no best recipe."""
    if told.alive or not told.history.trials:
        return "No trial has reached its first rung yet: there is no answer."
    reasons = sorted({trial.reason for trial in told.history.trials.values() if trial.reason})
    return "No trial reached its first rung: there is no answer. " + "; ".join(reasons)


def verdict(told: ReportContext, best: Trial) -> str:
    """The answer in a few sentences."""
    accuracies = rung_accuracies(best) or {}
    words = (
        f"Trial {best.number}: {accuracies[ROBUST]} robust accuracy, {accuracies[CLEAN]} clean (95 % intervals),"
        f" on {accuracies[ROBUST].total} validation images."
    )
    short = told.study.goal.shortfall(best.scores[best.best_rung])
    if short:
        floor = told.study.settings.constraints.clean_accuracy
        words = (
            f"No trial reaches the floor of {floor:g} clean accuracy; the nearest one lacks {100 * short:.1f} points."
            f" {words}"
        )
    members = told.history.best_trials
    if len(told.study.settings.objective) > 1:
        first = told.study.settings.objective[0].replace("_", " ")
        return (
            f"{words} It has the highest {first} of the {len(members)} trials on the front, which no other trial beats"
            " in both accuracies."
        )
    return f"{words} {gain_words(told, best)}"


def gain_words(told: ReportContext, best: Trial) -> str:
    """The gain of the best trial over the published recipe."""
    published = told.history.trials[0]
    gain = gain_points(told.history)
    if best is published:
        return "It is the published recipe: no trial beat it."
    if gain is None:
        return f"The published recipe has no score to compare it with: {told.state_of(published)}."
    robust, of_published = ((rung_accuracies(trial) or {})[ROBUST] for trial in (best, published))
    low, high = difference_interval(robust, of_published)
    none = ", which includes no gain at all" if low <= 0 <= high else ""
    return f"Gain over the published recipe: {gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}{none})."


def what_it_is_worth(told: ReportContext, best: Trial) -> str:
    """Caveats about the numbers."""
    candidates = sum(bool(trial.rungs) for trial in told.history.trials.values())
    opened = openings_words(told.history.openings)
    words = (
        f"Robust accuracy is under the margin attack, {told.study.recipe.evaluation.steps} steps, on images that the"
        " models were not trained on."
    )
    if candidates > 1 and best.number:
        words += (
            f" The best was chosen from {candidates} trials by these same images, so its numbers and its gain are"
            " optimistic; the interval of the gain does not account for the choice, and is as wide as for different"
            " images."
        )
    return f"{words} {opened}"


def comparison(told: ReportContext, best: Trial) -> str:
    """A table of accuracies and all searched values, the best next to the published recipe."""
    published = told.history.trials[0]
    members = told.history.best_trials[:MOST_MEMBERS] if len(told.study.settings.objective) > 1 else [best]
    chosen = [("front" if len(members) > 1 else "best", trial) for trial in members]
    chosen += [("published", published)] if published not in members else []
    head = "".join(f'<th scope="col">{title}, trial {trial.number}</th>' for title, trial in chosen)
    rows = []
    for name, title in ((ROBUST, "robust accuracy"), (CLEAN, "clean accuracy")):
        cells = "".join(f"<td>{(rung_accuracies(trial) or {}).get(name, 'none')}</td>" for _, trial in chosen)
        rows.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    cells = "".join(f"<td>{trial.best_rung or 'none'}</td>" for _, trial in chosen)
    rows.append(f'<tr><th scope="row">scored at epoch</th>{cells}</tr>')
    values = [full_params(told.study, trial.params) for _, trial in chosen]
    for name in told.study.space:
        cells = "".join(
            f"<td>{shown(one[name])}{'' if name in trial.params else ' <span class=dim>(not in use)</span>'}</td>"
            for one, (_, trial) in zip(values, chosen, strict=True)
        )
        rows.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def shown(value: Any) -> str:
    """A value as HTML."""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def next_steps(told: ReportContext, best: Trial | None) -> str:
    """The next commands; only those that work with the files that exist."""
    folder, lines = told.folder, []
    if best is not None and there(folder.best / "recipe.toml"):
        recipe = option("--recipe", folder.best / "recipe.toml")
        again = command("train", recipe, program=told.program)
        lines.append(("Train it again, with the same numbers on the same machine", again))
        if best.state != "completed":
            lines.append(("Train it to the end: it was stopped early", f"{again} --set stop_epoch=0"))
    if best is not None and there(folder.best / "model.safetensors"):
        model = option("--model", folder.best)
        attack = command("evaluate", model, "--attack autoattack", program=told.program)
        lines.append(("Attack the model harder, on the same images", attack))
    if (
        best is not None
        and not told.alive
        and any(trial.status == "completed" for trial in told.history.trials.values())
    ):
        judge = about("verdict", folder, program=told.program)
        lines.append(("Train the best again on new seeds, and evaluate them under AutoAttack", judge))
        lines.append(("The same, and use the test images at the end, once", f"{judge} --test"))
    if told.alive:
        lines.append(("See its status", about("status", folder, program=told.program)))
    else:
        what = "Search further" if told.state == "finished" else "Continue the search"
        lines.append((what, way_on(folder, told.study, told.history, told.state, told.program)))
    return f"<h3>What to do next</h3>{commands(lines)}"


def verdict_section(told: ReportContext) -> list[Section]:
    """The verdict, if there is one: of `hcpr_tune verdict`, or the small one at the end of the search."""
    plain = read_verdict(told.folder.root)
    if plain is None:
        return []
    lines = verdict_lines(plain | {"openings": told.history.openings})
    body = [f'<p class="lead">{escape(lines[0])}</p>' if lines else ""]
    body.append(f"<ul>{''.join(f'<li>{escape(line.strip())}</li>' for line in lines[1:])}</ul>")
    for split in SPLITS:
        if plain["splits"].get(split, {}).get("candidates"):
            body.append(f"<h3>On {plain['splits'][split]['images']} {split} images</h3>{_verdict_table(plain, split)}")
    body.append(f"<p class='dim'>{escape(''.join(_source(told, plain)))}</p>")
    return [Section("verdict", "Verdict", "".join(body))]


def _source(told: ReportContext, plain: dict[str, Any]) -> Iterator[str]:
    """How the verdict's numbers were made, if there are any, and which of its files exist."""
    if any(split["candidates"] for split in plain["splits"].values()):
        yield (
            "Models trained again on new seeds; means and standard deviations over them, differences with 95 %"
            " intervals by a bootstrap over seeds (if there are several) and images, p after Holm. "
        )
    yield "verdict/verdict.md has the details"
    yield ", verdict/ the exported model." if (told.folder.root / "verdict" / "model.safetensors").is_file() else "."


def _verdict_table(plain: dict[str, Any], split: str) -> str:
    return table(TABLE_TITLES, table_rows(plain, split), f"The verdict on {split} images")


def foreseen(told: ReportContext) -> str:
    """The search compared with its plan, if it had one."""
    rows = foreseen_rows(told.study, told.history)
    if not rows:
        return ""
    return (
        f"<h3>Compared with the plan</h3>{table(TITLES, rows, 'The search compared with its plan')}"
        f"<p class='dim'>{escape(SENTENCE)}</p>"
    )


def alarm_section(told: ReportContext) -> Section:
    """What the user should look at."""
    found = alarms(told.study, told.history)
    items = [f'<li class="{escape(alarm.kind)}">{escape(alarm.words)}</li>' for alarm in found]
    items += [f'<li class="loss">lost and done again: {escape(what)}</li>' for what in told.history.losses]
    body = f"<ul class='alarms'>{''.join(items)}</ul>" if items else f"<p>{escape(no_alarm_words(told))}</p>"
    return Section("alarms", "Alarms", body)


def no_alarm_words(told: ReportContext) -> str:
    """What was checked without finding anything."""
    trials = told.history.trials.values()
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
        if told.study.recipe.evaluation.masking_images
        else "evaluation.masking_images is 0"
    )
    return f"{words}. No model was checked for masked gradients: {reason}."


def examples_section(told: ReportContext) -> list[Section]:
    """Examples of attacked images, if the best trial's worker drew them."""
    best = told.history.best_trial
    path = told.folder.trial(best.number) / f"examples_epoch_{best.best_rung:04d}.png" if best is not None else None
    if best is None or path is None or not there(path):
        return []
    data = base64.b64encode(path.read_bytes()).decode()
    says = (
        "Validation images before and after the attack, and the difference, with the predictions of trial"
        f" {best.number} at epoch {best.best_rung}."
    )
    body = (
        f'<figure><img alt="{escape(says)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(says)}</figcaption></figure>"
    )
    return [Section("examples", "What the attack does", body)]


def trials_section(told: ReportContext) -> Section:
    """A sortable table of all trials."""
    ranked = told.history.ranked()
    scored = {trial.number for trial in ranked}
    listed = ranked + [trial for trial in told.history.trials.values() if trial.number not in scored]
    if not listed:
        return Section("trials", "All trials", "<p>None was started.</p>")
    titles = ["rank", "trial", "state", "robust", "clean", "epochs", "seconds", "source", *told.study.space, "reason"]
    best = told.history.best_trial
    rows = "".join(_row(told, trial, place, best) for place, trial in enumerate(listed[:MOST_ROWS], start=1))
    more = (
        f"<p>The best {MOST_ROWS} of {len(listed)}; <code>trials.csv</code> has all.</p>"
        if len(listed) > MOST_ROWS
        else ""
    )
    return Section("trials", "All trials", sortable(titles, rows, "All trials") + more)


def _row(told: ReportContext, trial: Trial, place: int, best: Trial | None) -> str:
    metrics = trial_metrics(trial)
    accuracies = rung_accuracies(trial)
    robust, clean = (accuracies[ROBUST], accuracies[CLEAN]) if accuracies else (None, None)
    cells = [
        cell(place if accuracies else ""),
        cell(trial.number),
        cell(told.state_of(trial)),
        cell(str(robust or ""), robust.share if robust else ""),
        cell(f"{100 * clean.share:.1f} %" if clean else "", clean.share if clean else ""),
        cell(trial.last_epoch),
        cell(f"{metrics['seconds']:.1f}", metrics["seconds"]),
        cell(trial.source),
        *(
            cell(shown(trial.params[name]) if name in trial.params else "", trial.params.get(name, ""), raw=True)
            for name in told.study.space
        ),
        cell(trial.reason),
    ]
    kind = kind_of(trial, best)
    style = f' class="{kind}" title="{escape(KINDS[kind][0])}"' if kind in ("best", "published") else ""
    return f"<tr{style}>{''.join(cells)}</tr>"


def reproduce_section(told: ReportContext) -> Section:
    """Everything that identifies these results."""
    history, study = told.history, told.study
    space, seed = option("--space", told.folder.study), option("--seed", study.settings.seed)
    same = command("tune", space, seed, *storage_words(storage_of_folder(told.folder)), program=told.program)
    what = "From the resolved study, with the same seed (with one worker it makes the same decisions)"
    body = f"{facts(dict(_facts(told)))}<h3>The same search again</h3>{commands([(what, same)])}"
    changes = list(_changes(history))
    if changes:
        body += f"<p>Not in that command: {escape('; '.join(changes))}.</p>"
    return Section("reproduce", "How to reproduce it", body)


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


def _facts(told: ReportContext) -> Iterator[tuple[str, str]]:
    history, study = told.history, told.study
    yield "study", told.folder.address
    yield "fingerprint", study.fingerprint
    yield "seed", str(study.settings.seed)
    yield "versions", ", ".join(f"{name} {version}" for name, version in history.versions.items())
    devices = {event["device"] for trial in history.trials.values() for event in trial.epochs.values()}
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
