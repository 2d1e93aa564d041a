"""`hcpr_tune verdict`: evaluate what a search found, on fresh seeds and under strong attacks."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_ray, add_set, add_space, add_study, add_trust, whole_number
from hcpr_tune.cli.exit_codes import COMPLETED, NOTHING_COMPLETED
from hcpr_tune.cli.flags import VERDICT, add_settings, flag_of
from hcpr_tune.cli.options import ray_of, trust_of
from hcpr_tune.common.output import outlets, say
from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import same_again
from hcpr_tune.errors import InputError
from hcpr_tune.views.terminal.console import make_console, print_lines

if TYPE_CHECKING:
    from hcpr_tune.api.trust import Trust
    from hcpr_tune.api.verdict import ExternalModel, VerdictRequest
    from hcpr_tune.search.record.results import StudyFolder


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    verdict = commands.add_parser(
        "verdict",
        description="Train the best recipes of a search and the published one again on fresh seeds, attack them with "
        "AutoAttack, test which differences are significant, and export the best model. If interrupted, the same "
        "command continues.",
    )
    add_study(verdict, optional=True)
    verdict.add_argument(
        "--test",
        action="store_true",
        help="at the end, attack the winner, its published baseline and the methods of --compare on the test images; "
        "the study counts how often",
    )
    add_settings(verdict, VERDICT)
    verdict.add_argument(
        "--compare",
        default="",
        metavar="METHODS",
        help="baselines, for instance trades,pgd_at,mart: each is searched for as many worker-seconds as the study, "
        "and evaluated with it",
    )
    verdict.add_argument(
        "--model",
        metavar="FILE",
        help="weights from elsewhere (.safetensors, or a state dict of torch), to evaluate with --arch",
    )
    verdict.add_argument(
        "--classes",
        metavar="NAMES",
        help="the classes of --model in the order of its outputs, for instance dog,cat (default: the task's own order, "
        "which is printed)",
    )
    verdict.add_argument("--arch", metavar="NAME", help="the network of --model: as model.name of a recipe")
    add_space(verdict, "with --model and without NAME: whose task, ")
    add_set(verdict, "a field of the recipe of all that are trained again, or with --model of that model")
    verdict.add_argument(
        "--dry-run", action="store_true", help="say how long it would take, from a simulation, and do nothing"
    )
    verdict.add_argument(
        "--workers", type=whole_number, metavar="N", help="with --dry-run: jobs at once (default: as in the search)"
    )
    add_ray(verdict)
    add_trust(verdict, "a study")
    verdict.add_argument("--quiet", action="store_true", help="print only the verdict")
    verdict.add_argument("--json", action="store_true", help="print a JSON object per line, the verdict last")


@outlets(forgiving=True)
def run(options: argparse.Namespace) -> int:
    """Evaluate a study, or a model that was trained elsewhere, and print the verdict and its files."""
    from hcpr_tune.api.verdict import run_verdict
    from hcpr_tune.views.terminal.event_log import tell
    from hcpr_tune.views.terminal.search_output import TerminalProgress
    from hcpr_tune.views.verdicts import verdict_lines

    console = make_console()
    progress = TerminalProgress(console, options.quiet, options.json)
    trust = trust_of(options, [] if options.arch is None else [options.arch])
    if options.dry_run:
        return dry_run(options, trust)
    if options.workers is not None:
        raise InputError("--workers goes with --dry-run; resources.workers of the study limits a verdict")
    result = run_verdict(request_of(options), ray_of(options), trust, progress)
    if options.json:
        tell(console, {"news": "verdict", **result.plain})
    else:
        print_lines(console, verdict_lines(result.plain))
        print_lines(console, file_lines(result.study.folder, result.plain))
        if not options.quiet:
            print_lines(console, [f"report       {result.report}"])
    return COMPLETED if result.plain["winner"] is not None else NOTHING_COMPLETED


def dry_run(options: argparse.Namespace, trust: Trust) -> int:
    """Say how long the verdict would take."""
    from hcpr_tune.api.verdict import simulate_verdict
    from hcpr_tune.views.wording import lasting

    forecast = simulate_verdict(request_of(options), options.workers, trust)
    if options.json:
        say(json.dumps(forecast.to_plain()))
        return COMPLETED
    lines = [
        f"workers      {forecast.workers}",
        f"wall-clock   {lasting(3600 * forecast.hours)}",
        f"worker time  {lasting(3600 * forecast.worker_hours)}, {lasting(3600 * forecast.training_hours)} of it for "
        f"{forecast.trainings} trainings, the rest for attacks",
        *([] if forecast.finished else ["LIMIT        verdict.worker_hours ends it before all is done"]),
        *map(str, forecast.smallest_differences),
        "nothing was trained or attacked (--dry-run)",
    ]
    for line in lines:
        say(line)
    return COMPLETED


def request_of(options: argparse.Namespace) -> VerdictRequest:
    """What the arguments ask for. Raises `InputError`."""
    from hcpr_tune.api.verdict import VerdictRequest
    from hcpr_tune.common.settings import parse_assignment, parse_assignments

    given = {name: value for name in VERDICT if (value := getattr(options, name)) is not None}
    return VerdictRequest(
        storage=options.storage,
        name=options.name,
        settings={name: parse_assignment(f"{name}={value}")[1] for name, value in given.items()},
        command=same_again(),
        recipe_values=tuple(parse_assignments(options.set)),
        compare=tuple(dict.fromkeys(filter(None, options.compare.split(",")))),
        test=options.test,
        model=external_model(options),
        space=options.space,
        label=flag_of,
    )


def external_model(options: argparse.Namespace) -> ExternalModel | None:
    """The model of --model, with --arch and --classes; a class name with a comma is quoted."""
    from hcpr_tune.api.verdict import ExternalModel

    if (options.model is None) != (options.arch is None):
        raise InputError("--model PATH and --arch NAME go together: the weights, and the network that they are of")
    if options.model is None:
        if options.classes is not None:
            raise InputError("--classes goes with --model PATH: the classes in the order of that model's outputs")
        return None
    text = options.classes
    classes = () if text is None else tuple(name.strip() for name in next(csv.reader([text]), []))
    return ExternalModel(Path(options.model), options.arch, classes)


def file_lines(folder: StudyFolder, plain: dict[str, Any]) -> list[str]:
    """The files of the verdict and its model."""
    own = folder.root / "verdict"
    lines = [f"verdict      {own / 'verdict.md'}"]
    if there(own / "model.safetensors"):
        lines.append(f"model        {own} (model.safetensors, recipe.toml, model_card.md)")
    elif plain["winner"] is not None:
        lines.append(f"model        none: {plain['model_missing']}")
    return lines
