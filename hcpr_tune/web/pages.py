"""What the pages show, as HTML by the templates of this package and of the report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.settings import to_plain
from hcpr_tune.errors import HcprTuneError
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.record.metrics import masking_alarms
from hcpr_tune.search.record.results import recipe_of
from hcpr_tune.search.spec.changes import flat
from hcpr_tune.search.spec.study import study_to_plain
from hcpr_tune.search.storage.inbox import INBOX, requests_in
from hcpr_tune.training.recipe import recipe_to_toml
from hcpr_tune.verdict.run import known_state, verdict_folder
from hcpr_tune.views.next_commands import about
from hcpr_tune.views.report.answer import answer, value_words
from hcpr_tune.views.report.figures import ALL_FIGURES, Shown
from hcpr_tune.views.report.optuna_study import full_params
from hcpr_tune.views.report.page import Section
from hcpr_tune.views.report.report import LEAD, alarm_section, planned_table, reproduce_section, verdict_section
from hcpr_tune.views.status import STATES, TRIAL_STATES, counts, running_plain, seconds_left, share_done
from hcpr_tune.views.templates import html_environment
from hcpr_tune.views.wording import age, clock, lasting, with_interval, working
from hcpr_tune.web import table
from hcpr_tune.web.course import course_of
from hcpr_tune.web.watched import Studies, WatchedStudy, modified

if TYPE_CHECKING:
    from jinja2 import Environment

MORE_LEADS = {
    "history": "Whether the search still improves.",
    "timeline": "What each worker did, and when none did anything.",
    "distribution": "How good recipes are that nobody chose: where the curve is steep, many score alike.",
    "contour": "Two dimensions at a time: whether one's best value depends on the other.",
}
MOST_COMPARED = 5
MOST_PAIRS = 12


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The report's environment, with the templates of this package before those of the report."""
    from jinja2 import ChoiceLoader, PackageLoader

    report = html_environment()
    assert report.loader is not None
    return report.overlay(loader=ChoiceLoader([PackageLoader("hcpr_tune.web"), report.loader]))


def render(template: str, **values: Any) -> str:
    """The text of a template."""
    return environment().get_template(f"{template}.html.jinja2").render(**values)


def rendered(section: Section) -> str:
    """A section of the report, without its heading."""
    return render(section.template, shown=section.shown, section=section)


def of_report(name: str) -> str:
    """A file among the report's templates, as it is."""
    report = html_environment()
    assert report.loader is not None
    text: str = report.loader.get_source(report, name)[0]
    return text


def styles() -> str:
    """The style of the report, and what the live page adds to it."""
    return of_report("page.css") + (Path(__file__).parent / "static" / "live.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def plotly_script() -> str:
    """plotly's script."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def figure_json(shown: Shown) -> str:
    """A figure and its caption for the page's script, which sets the colours."""
    figure = None
    if shown.figure is not None:
        figure = json.loads(shown.figure.to_json())
        figure["layout"].pop("template", None)
    return json.dumps({"says": shown.says, "least_width": shown.least_width, "figure": figure}, allow_nan=False)


# The page of a study


def study_page(watched: WatchedStudy, copied: int | None) -> str:
    """The page of a study. `copied`: the trial whose values the form to enqueue begins with."""
    with watched.reading() as (_, spec, history):
        trial = history.trials.get(copied) if copied is not None else None
        published = full_params(spec, {})
        given = trial.params if trial is not None else {}
        dimensions = [
            {
                "name": name,
                "range": str(dimension),
                "published": value_words(published[name]),
                "value": json.dumps(given[name]) if name in given else "",
                "choices": [json.dumps(one) for one in getattr(dimension, "choices", ())],
            }
            for name, dimension in spec.space.items()
        ]
        figures = [(name, title, (LEAD | MORE_LEADS)[name]) for name, (title, _) in ALL_FIGURES.items()]
        return render(
            "study",
            title=watched.name,
            task=spec.recipe.task,
            description=spec.settings.description,
            figures=figures,
            dimensions=dimensions,
            states=TRIAL_STATES,
            parts=study_parts(watched),
            note=watched.notes.study,
            reproduce=rendered(reproduce_section(watched.context())),
        )


def study_parts(watched: WatchedStudy) -> dict[str, str]:
    """The parts of the study's page that change while it runs, by the id of their element."""
    with watched.reading():
        context = watched.context()
        verdict = verdict_section(context)
        plan = planned_table(context)
        return {
            "state": render("state", **state_of_study(watched)),
            "answer": rendered(answer(context)),
            "verdict": rendered(verdict[0])
            if verdict
            else render("no_verdict", command=about("verdict", context.folder)),
            "alarms": rendered(alarm_section(context)),
            "requests": render("requests", requests=requests_of(watched), alive=watched.alive),
            "stop": render("stop", study=watched.name, alive=watched.alive),
            "plan": render("plan_table", table=plan) if plan.rows else "",
        }


def state_of_study(watched: WatchedStudy) -> dict[str, Any]:
    """How the study stands."""
    context, history, spec = watched.context(), watched.context().history, watched.context().study
    count = counts(spec, history, watched.alive)
    ended = count["suggested"] - count["running"] - count["interrupted"]
    left = seconds_left(spec, history) if watched.alive else None
    return {
        "state": STATES.get(context.state, context.state),
        "holder": watched.holder,
        "trouble": watched.trouble,
        "counts": [(state, count[state]) for state in TRIAL_STATES if count[state]],
        "ended": ended,
        "budget": count["budget"],
        "share": min(0.99, share_done(spec, history)) if watched.alive else share_done(spec, history),
        "time": clock(history.seconds),
        "left": None if left is None else lasting(left),
        "work": working(history.worker_seconds),
        "workers": history.workers,
        "running": [running_plain(trial) for trial in history.running] if watched.alive else [],
        "verdict": verdict_progress(watched),
    }


def verdict_progress(watched: WatchedStudy) -> str:
    """How far a verdict is that is running; empty if none is."""
    folder = watched.context().folder
    record = verdict_folder(folder).record
    written = modified(record)
    if not watched.alive or not written or written < modified(folder.record):
        return ""

    def told(_: object) -> str:
        try:
            state = known_state(folder)
        except (HcprTuneError, OSError):
            return ""
        if state.ended:
            return ""
        trained = sum(model.finished for model in state.models.values())
        steps = sum(len(chunk.steps) for chunk in state.chunks.values())
        return f"A verdict is running: {trained} of {len(state.models)} models trained, {steps} attacks on chunks done."

    return watched.made("verdict", told, of=written)


def requests_of(watched: WatchedStudy) -> list[dict[str, str]]:
    """The requests that nobody has taken yet, and those that were refused with the reason."""
    place = watched.context().folder.objects
    found = [{"what": request_words(request), "reason": ""} for _, request in requests_in(place)]
    for key in place.keys(INBOX):
        if key.endswith(".refused"):
            reason = (place.read(key.removesuffix(".refused") + ".reason") or b"").decode("utf-8", "replace").strip()
            try:
                request = json.loads(place.read(key) or b"")
            except (ValueError, RecursionError):
                request = None
            found.append({"what": request_words(request), "reason": reason or "no reason was given"})
    return found


def request_words(request: Any) -> str:
    """A request in words; it was written by anyone."""
    kind = request.get("kind") if isinstance(request, dict) else None
    if kind == "enqueue":
        params = request.get("params")
        values = params.items() if isinstance(params, dict) else ()
        return "a trial with " + (", ".join(f"{name} = {value}" for name, value in values) or "the published values")
    if kind == "kill":
        return f"the end of trial {request.get('trial')}"
    return "the end of the search" if kind == "stop" else "something that is no request"


def trials_table(watched: WatchedStudy, query: Any) -> str:
    """A page of the table of trials. Raises `InputError`."""
    with watched.reading():
        context = watched.context()
        return render("trials_table", **table.shown_table(context, watched.notes, table.asked(query, context)))


# The page of a trial


def trial_page(watched: WatchedStudy, trial: Trial) -> str:
    """The page of a trial."""
    with watched.reading() as (_, spec, _history):
        return render(
            "trial",
            title=f"Trial {trial.number} of {watched.name}",
            study=watched.name,
            number=trial.number,
            recipe=recipe_to_toml(recipe_of(spec, trial)),
            parts=trial_parts(watched, trial),
            note=watched.notes.of(trial.number),
        )


def trial_parts(watched: WatchedStudy, trial: Trial) -> dict[str, str]:
    """The parts of the trial's page that change while it runs, by the id of their element."""
    with watched.reading() as stored:
        folder, spec, history = stored
        context = watched.context()
        published, values = full_params(spec, {}), full_params(spec, trial.params)
        ranks = {one.number: rank for rank, one in enumerate(history.ranked(), 1)}
        titles = [*table.columns(context, ranks), "tags"]
        facts = dict(zip(titles, table.cells(context, trial, ranks, watched.notes), strict=True))
        rows = [
            {
                "name": name,
                "value": value_words(values[name]),
                "published": value_words(published[name]),
                "used": name in trial.params,
                "differs": values[name] != published[name],
            }
            for name in spec.space
        ]
        pictures = [
            rung for rung in sorted(trial.rungs) if (folder.trial(trial.number) / examples_name(rung)).is_file()
        ]
        steps = watched.made(("course", trial.number), lambda now: course_of(now, trial))
        return {
            "state": render(
                "trial_state",
                facts=[
                    (name, facts[name]) for name in titles if name not in spec.space and name not in ("trial", "tags")
                ],
                reason=trial.reason,
                alarms=masking_alarms(trial),
                replicates=[one.number for one in history.replicates_of(trial.number)],
                replicate_of=trial.replicate_of,
                study=watched.name,
            ),
            "values": render("trial_values", rows=rows),
            "course": render("course", steps=steps),
            "log": render("trial_log", **log_of(trial)),
            "end": render("end", number=trial.number, study=watched.name, can_end=not trial.ended and watched.alive),
            "pairs": render("trial_pairs", pairs=pairs_of(trial, history.class_names)),
            "pictures": render("trial_pictures", rungs=pictures, number=trial.number, study=watched.name),
        }


LOGGED = (
    "epoch",
    "loss",
    "lr",
    "pace",
    "attack_steps",
    "seconds_attack",
    "seconds_update",
    "seconds_evaluation",
    "worker",
)


def log_of(trial: Trial) -> dict[str, Any]:
    """What its workers reported of each epoch: titles and rows."""
    rows = []
    for _, event in sorted(trial.epochs.items()):
        plain: Mapping[str, Any] = event
        total = plain.get("total_validation")
        counts = [plain.get(f"{name}_correct_validation") for name in ("robust", "clean")]
        shares = [f"{100 * count / total:.1f} %" if total and count is not None else "" for count in counts]
        rows.append([*(value_words(plain.get(name, "")) for name in LOGGED), *shares])
    return {"titles": [*(name.replace("_", " ") for name in LOGGED), "robust", "clean"], "rows": rows}


def examples_name(rung: int) -> str:
    """The file of attacked images in a trial's folder."""
    return f"examples_epoch_{rung:04d}.png"


def pairs_of(trial: Trial, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """(class, what the attack turns it into, share of the class's images) at the best rung, most frequent first."""
    if not trial.rungs:
        return []
    event = trial.at_rung(trial.best_rung)
    totals = event.get("class_totals_validation", [])

    def name(number: int) -> str:
        return "no class" if number < 0 else names[number] if number < len(names) else str(number)

    shares = [
        (count / totals[true], name(true), name(other))
        for true, other, count in event.get("attacked_pairs_validation", [])
        if totals[true]
    ]
    return [(true, other, f"{100 * share:.0f} %") for share, true, other in sorted(shares, reverse=True)[:MOST_PAIRS]]


# Several studies


def list_page(studies: Studies, listed: Sequence[Mapping[str, Any]]) -> str:
    """The page of all studies."""
    return render(
        "list", title=f"Studies in {studies.storage}", storage=studies.storage, parts=list_parts(studies, listed)
    )


def list_parts(studies: Studies, listed: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The table of all studies. `listed`: as `api.listing` has it, with `tags`."""
    now = time.time()
    rows = [
        {
            "name": one["study"],
            "readable": one["trials"] is not None,
            "state": STATES.get(one["state"], one["state"]),
            "trials": f"{one['trials_done']} of {one['trials']['budget']}" if one["trials"] else "",
            "robust": with_interval(one["best"]["robust_accuracy_validation"]) if one["best"] else "",
            "gain": "" if one["gain_points"] is None else f"{one['gain_points']:+.1f}",
            "age": age(None if one["last_event"] is None else max(0.0, now - one["last_event"])),
            "reason": one["reason"],
            "tags": ", ".join(one.get("tags", ())),
        }
        for one in listed
    ]
    return {"studies": render("list_table", rows=rows, storage=studies.storage)}


def compare_page(studies: Studies, names: Sequence[str]) -> str:
    """Two or more studies side by side."""
    return render(
        "compare", title="Comparison of " + ", ".join(names), names=names, parts=compare_parts(studies, names)
    )


def compare_parts(studies: Studies, names: Sequence[str]) -> dict[str, str]:
    """The numbers of several studies, and the settings in which they differ."""
    facts: dict[str, list[str]] = {}
    settings: list[dict[str, Any]] = []
    for name in names:
        watched = studies.get(name)
        with watched.reading() as (_, spec, history):
            one = state_of_study(watched)
            best = history.best_trial
            ranks: dict[int, int] = {}
            cells = dict(zip(table.columns(watched.context(), ranks), [""] * 99, strict=False))
            if best is not None:
                row = table.cells(watched.context(), best, ranks, watched.notes)
                cells = dict(zip(table.columns(watched.context(), ranks), row, strict=False))
            told = {
                "state": one["state"],
                "trials": f"{one['ended']} of {one['budget']}",
                "best trial": cells["trial"],
                "robust accuracy": cells["robust"],
                "clean accuracy": cells["clean"],
                "epochs trained": str(sum(len(trial.epochs) for trial in history.trials.values())),
                "time": one["time"],
                "workers' time": one["work"],
                "hash of the validation images": str(history.splits.get("validation", "")),
            }
            for key, value in told.items():
                facts.setdefault(key, []).append(value)
            plain = study_to_plain(spec)
            settings.append(flat({**plain, "recipe": to_plain(spec.recipe)}))
    keys = sorted({key for one in settings for key in one})
    differing = [
        (key, [str(one.get(key, "")) for one in settings])
        for key in keys
        if len({json.dumps(one.get(key), sort_keys=True, default=str) for one in settings}) > 1
    ]
    return {"numbers": render("compare_table", names=names, facts=facts.items(), differing=differing)}
