"""The command line: its parser, and how errors become exit codes. What a command does is in `cli.commands` and
`cli.studies`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hcpr_tune.cli.exit_codes import BAD_INPUT, INTERRUPTED, NOT_READ, NOTHING_COMPLETED
from hcpr_tune.cli.flags import BUDGET, SEARCH, VERDICT, add_settings
from hcpr_tune.common.numbers import MOST, whole
from hcpr_tune.common.output import Unheard, kept_for_us, open_streams, outlets
from hcpr_tune.common.text import clean
from hcpr_tune.errors import HcprTuneError, InputError, Interrupted
from hcpr_tune.training.plugins import Ended, only_vouched, users_traceback
from hcpr_tune.version import VERSION

ON_STUDIES = ("clean", "enqueue", "export", "kill", "list", "logs", "report", "status", "stop")
"""Commands about studies that exist."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors on one line and a hint."""

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: error: {one_line(message)}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None, to_the_end: bool = False) -> int:
    """Run one command; returns the exit code.

    `to_the_end`, or without `arguments`: the process does nothing else, so that what threads and `atexit` print after
    it is kept apart too.
    """
    open_streams()
    try:
        with outlets(forgiving=False):
            options = parser().parse_args(arguments)
            # What a user's code prints is kept off standard output, and code is only imported if it is trusted.
            with kept_for_us(to_the_end or arguments is None), only_vouched():
                return carried_out(options)
    except Unheard as error:
        # A reader that closed the pipe has read enough.
        if not error.closed:
            with suppress(OSError):
                print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr, flush=True)
        return NOT_READ if error.closed else NOTHING_COMPLETED


def carried_out(options: argparse.Namespace) -> int:
    """Run the command that the options name; returns the exit code."""
    try:
        # A command is imported when it runs: `--help` and errors in arguments do not wait for torch or Ray.
        package = "studies" if options.command in ON_STUDIES else "commands"
        code: int = importlib.import_module(f"hcpr_tune.cli.{package}.{options.command}").run(options)
    except Unheard:
        raise
    except InputError as error:
        if details := getattr(error, "details", ""):
            print(details, file=sys.stderr)
        print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except Interrupted as error:
        print(f"hcpr_tune: {one_line(error)}", file=sys.stderr)
        return INTERRUPTED
    except Ended as error:
        print(users_traceback(error), file=sys.stderr)
        print(f"hcpr_tune: error: the model or the method {one_line(error)}; mend it", file=sys.stderr)
        return NOTHING_COMPLETED
    except KeyboardInterrupt:
        return INTERRUPTED
    except HcprTuneError as error:
        print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr)
        return NOTHING_COMPLETED
    except OSError as error:
        if error.filename is None:
            raise
        print(f"hcpr_tune: error: {one_line(trouble_with(error))}", file=sys.stderr)
        return NOTHING_COMPLETED
    return code


def trouble_with(error: OSError) -> str:
    """What is wrong with a file of the system's, for what no command has foreseen."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{name}: {error.strerror or error}; mend that, and run it again"


LONGEST_WORD, LONGEST_LINE = 1000, 4000
"""Most characters of a word and of a message: a longer value would hide what is allowed and the hint."""


def one_line(error: Exception | str) -> str:
    """The message on one line, whatever was in a file that it quotes, and nothing in it that would steer a terminal."""
    words = [brief(word, LONGEST_WORD) for word in str(error).split()]
    return brief(clean(" ".join(words)), LONGEST_LINE)


def brief(text: str, most: int) -> str:
    """Both ends of what is too long."""
    if len(text) <= most:
        return text
    return f"{text[: most // 10]} ... ({len(text)} characters) ... {text[-most // 5 :]}"


def parser() -> Parser:
    """The parser of all commands. Nothing heavy is imported for it."""
    top = Parser(
        prog="hcpr_tune", description="Search the coefficients of adversarial training, on one machine or a cluster."
    )
    top.add_argument("--version", action="version", version=f"hcpr_tune {VERSION}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    add_tune(commands)
    add_plan(commands)
    add_train(commands)
    add_evaluate(commands)
    add_data(commands)
    add_init(commands)
    add_status(commands)
    add_list(commands)
    add_stop(commands)
    add_logs(commands)
    add_report(commands)
    add_verdict(commands)
    add_clean(commands)
    add_enqueue(commands)
    add_kill(commands)
    add_export(commands)
    add_transfer(commands)
    add_schema(commands)
    return top


def add_tune(commands: Any) -> None:
    tune = commands.add_parser(
        "tune", help="search a space", description="Search a space of recipes with Ray Tune and Optuna."
    )
    add_space(tune)
    tune.add_argument("--name", metavar="NAME", help="the study's name (default: SPACE-DATE-TIME-CODE)")
    tune.add_argument("--resume", metavar="NAME", help="continue a study from its record")
    tune.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="with --name: continue that study, or start it if it does not exist, so that the same command can be "
        "run again and again",
    )
    add_storage(tune)
    extending = dict.fromkeys(BUDGET, "; with --resume, N or +N")
    add_settings(tune, SEARCH, extending)
    tune.add_argument("--epochs", metavar="N", help="with --resume: a new top rung, N or +N")
    tune.add_argument(
        "--audit", metavar="K", help="with --resume: run K of the stopped trials to the end, to see what stopping cost"
    )
    tune.add_argument(
        "--warm-start", metavar="DIR", help="learn from an earlier study of the same task, for instance results/OLD"
    )
    add_set(tune, "a key of the space by dotted name, or a field of the recipe, which is then fixed and not searched")
    add_ray(tune)
    tune.add_argument(
        "--detach",
        action="store_true",
        help="with --address: hand the search to the cluster and return; see status, logs and stop",
    )
    tune.add_argument(
        "--log-to",
        action="append",
        default=[],
        choices=("mlflow", "wandb"),
        help="copy values and curves there as the search goes; may be given twice",
    )
    tune.add_argument(
        "--dry-run", action="store_true", help="print the resolved study and what it could cost, and train nothing"
    )
    tune.add_argument(
        "--probe",
        action="store_true",
        help="with --dry-run: train for at most two minutes on the cluster and say what the search would cost",
    )
    add_trust(tune, "a study")
    tune.add_argument("--quiet", action="store_true", help="print only the result")
    tune.add_argument("--json", action="store_true", help="print a JSON object per line, for programs; the result last")


def add_plan(commands: Any) -> None:
    plan = commands.add_parser(
        "plan",
        help="simulate a search before paying for it",
        description="Simulate a search under a virtual clock, with the scheduler of a real one: how long it "
        "takes, what it costs, what it finds; and how other"
        " settings would do. Nothing is trained but a probe, where nothing was recorded.",
    )
    add_space(plan)
    plan.add_argument(
        "--workers", type=any_whole_number, metavar="N", help="trials at once (default: as many as this machine holds)"
    )
    add_settings(plan, {**BUDGET, "seed": "seed"})
    add_set(plan, "a key of the space by dotted name, or a field of the recipe, for all variants")
    plan.add_argument(
        "--vary",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=V1,V2",
        help="values to compare, for instance early_stopping.first_rung=3,9 or workers=8,64; of several keys all "
        "combinations",
    )
    plan.add_argument(
        "--from",
        dest="studies",
        action="extend",
        nargs="+",
        default=[],
        metavar="DIR",
        help="earlier studies of the same task: their learning curves and costs",
    )
    plan.add_argument(
        "--curves", metavar="FILE.csv", help="learning curves: columns run, epoch, score and optionally final"
    )
    plan.add_argument(
        "--epoch-seconds",
        metavar="S",
        help="what training one epoch takes, where it is known better than by a probe here",
    )
    plan.add_argument("--address", metavar="ADDRESS", help="probe on this Ray cluster instead of this machine")
    plan.add_argument(
        "--speeds", default="1", metavar="V1,V2", help="relative speeds of the workers, dealt out in turn (default: 1)"
    )
    plan.add_argument("--join-over", default="0", metavar="MIN", help="workers join evenly over this many minutes")
    plan.add_argument("--deaths", default="0", metavar="RATE", help="how often a worker dies, per hour")
    plan.add_argument("--back", default="0", metavar="S", help="seconds until a dead worker is replaced")
    plan.add_argument(
        "--driver-rate",
        metavar="R",
        help="reports that the driver answers per second, with few workers (default: as measured, docs/scale.md)",
    )
    plan.add_argument(
        "--repeats", type=whole_number, default=20, metavar="N", help="simulations of each variant (default: 20)"
    )
    plan.add_argument(
        "--seconds", default="40", metavar="S", help="stop repeating after this many seconds in all (default: 40)"
    )
    plan.add_argument(
        "--write", metavar="NAME|PATH", help="write the chosen variant as a new space, with what was foreseen of it"
    )
    plan.add_argument("--out", metavar="FILE.html", help="the page (default: results/plans/SPACE-DATE-TIME-CODE.html)")
    add_trust(plan, "a study")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.add_argument(
        "--replay",
        metavar="DIR",
        help="instead: replay a recorded search and say whether its decisions and duration are the same",
    )


def add_status(commands: Any) -> None:
    status = commands.add_parser(
        "status",
        help="the state of a search",
        description="Show the state of a search, running or not: its driver, its best trials, what was lost.",
    )
    add_study(status)
    status.add_argument("--json", action="store_true", help="print JSON")


def add_list(commands: Any) -> None:
    command = commands.add_parser(
        "list",
        help="all searches of a storage",
        description="List the searches of a storage, newest first: state, best trial, gain.",
    )
    add_storage(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def add_stop(commands: Any) -> None:
    stop = commands.add_parser(
        "stop",
        help="stop a running search",
        description="Stop a running search, wherever it runs, as Ctrl-C there would: running epochs are abandoned, "
        "all else is kept.",
    )
    add_study(stop)
    stop.add_argument(
        "--wait", type=whole_number, default=60, metavar="S", help="how long to wait for its end (default: 60 seconds)"
    )


def add_logs(commands: Any) -> None:
    logs = commands.add_parser(
        "logs", help="what a detached search printed", description="Print what a detached search has printed so far."
    )
    add_study(logs)
    logs.add_argument("--address", metavar="ADDRESS", help="the cluster's dashboard, where it has moved since")


def add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="one page about a search",
        description="Write one self-contained HTML page about a search, running or not: the answer, the pictures, "
        "the costs, how to reproduce it.",
    )
    add_study(report)
    report.add_argument("--out", metavar="FILE", help="where it goes (default: report.html in the study's folder)")


def add_verdict(commands: Any) -> None:
    verdict = commands.add_parser(
        "verdict",
        help="evaluate what a search found",
        description="Train the best recipes of a search and the published one again on fresh seeds, attack them with "
        "AutoAttack's attacks, say with statistics"
        " what is better, and export the best model. If interrupted, the same command continues.",
    )
    verdict.add_argument("name", nargs="?", metavar="NAME", help="the study's name")
    add_storage(verdict)
    verdict.add_argument(
        "--test",
        action="store_true",
        help="at the end open the test images, for the winner, its published baseline and what they are compared "
        "with; the study keeps count",
    )
    add_settings(verdict, VERDICT)
    verdict.add_argument(
        "--compare",
        default="",
        metavar="METHODS",
        help="baselines, for instance trades,pgd_at,mart: each is searched for as many worker-seconds as the study "
        "was, and evaluated with it",
    )
    verdict.add_argument(
        "--model",
        metavar="FILE",
        help="weights from elsewhere (.safetensors, or a state dict of torch), to evaluate with --arch",
    )
    verdict.add_argument(
        "--classes",
        metavar="NAMES",
        help="the classes of --model in the order of its outputs, for instance dog,cat (default: the order of the "
        "task's own, which is said)",
    )
    verdict.add_argument("--arch", metavar="NAME", help="the network of --model: as model.name of a recipe")
    verdict.add_argument(
        "--space", metavar="NAME|PATH", help="with --model and without NAME: whose task (default: default)"
    )
    add_set(verdict, "a field of the recipe of all that are trained again, or with --model of that model")
    add_ray(verdict)
    add_trust(verdict, "a study")
    verdict.add_argument("--quiet", action="store_true", help="print only the verdict")
    verdict.add_argument("--json", action="store_true", help="print a JSON object per line, the verdict last")


def add_clean(commands: Any) -> None:
    clean = commands.add_parser(
        "clean",
        help="free the disk that a search holds",
        description="Delete the checkpoints of a search that is not running. Results and the best model stay; trials "
        "that continue later are trained from the start.",
    )
    add_study(clean)
    clean.add_argument("--keep-best", action="store_true", help="keep the checkpoints of the best trials")
    clean.add_argument("--dry-run", action="store_true", help="only say what it would free")


def add_enqueue(commands: Any) -> None:
    enqueue = commands.add_parser(
        "enqueue",
        help="add a trial to a search",
        description="Add a trial to a search, while it runs or for when it is resumed.",
    )
    add_study(enqueue)
    add_set(enqueue, "a searched dimension by dotted name, the others as in the published recipe")


def add_kill(commands: Any) -> None:
    kill = commands.add_parser(
        "kill",
        help="end one trial of a search",
        description="End one trial of a search; a running one ends with its epoch.",
    )
    add_study(kill)
    kill.add_argument("trial", type=whole_number, metavar="TRIAL", help="its number")


def add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="write a search or its model for other tools",
        description="Write the trials of a search into a storage of Optuna, which optuna-dashboard opens, or its "
        "model into an ONNX file.",
    )
    export.add_argument("name", nargs="?", metavar="NAME", help="the study's name; none with --model")
    add_storage(export)
    what = export.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--optuna", metavar="FILE", help="a new file: an SQLite database, or a journal where it ends in .log"
    )
    what.add_argument(
        "--onnx",
        metavar="FILE",
        help="a new file for the study's model: that of its verdict, else the best of its search",
    )
    add_trust(export, "a model")
    export.add_argument("--model", metavar="DIR", help="with --onnx: the model in this folder, instead of a study's")


def add_transfer(commands: Any) -> None:
    transfer = commands.add_parser(
        "transfer",
        help="narrow a large search by a small one",
        description="Write another space with what a search found: its best values as the first point, and priors "
        "around them.",
    )
    add_study(transfer)
    transfer.add_argument(
        "--to", required=True, metavar="NAME|PATH", help="the other space: a file of search_spaces/ by name, or a path"
    )
    transfer.add_argument(
        "--out", metavar="FILE", help="the new space (default: TO-from-NAME.toml, in search_spaces/ where there is one)"
    )
    transfer.add_argument(
        "--trial", type=whole_number, metavar="N", help="this trial's values (default: the best one's)"
    )


def add_schema(commands: Any) -> None:
    commands.add_parser(
        "schema",
        help="a JSON schema of space files",
        description="Print a JSON schema of space files, for editors that complete and check TOML.",
    )


def add_space(command: Any) -> None:
    """What is searched."""
    command.add_argument(
        "--space",
        default=None,
        metavar="NAME|PATH",
        help="a file of search_spaces/ by name, or a path (default: default)",
    )


def add_ray(command: Any) -> None:
    """What says where Ray is."""
    command.add_argument(
        "--address", metavar="ADDRESS", help="an existing Ray cluster (default: start Ray on this machine)"
    )
    command.add_argument(
        "--wait",
        type=whole_number,
        default=0,
        metavar="S",
        help="seconds to wait for the first node with room for a trial",
    )
    command.add_argument(
        "--dashboard-host",
        default="127.0.0.1",
        metavar="IP|none",
        help="where the dashboard of a Ray started here listens; it asks for a token; none starts it without one "
        "(default: 127.0.0.1)",
    )


def add_trust(command: Any, whose: str = "a study, a recipe or a model") -> None:
    """Who vouches for code that a file names."""
    command.add_argument(
        "--trust",
        action="store_true",
        help=f"run the code (package.module:function) that {whose} of somebody else names; asked for once",
    )


def add_set(command: Any, what: str) -> None:
    """Values by dotted name."""
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{what}; repeatable")


def add_study(command: Any) -> None:
    """What names an existing study."""
    command.add_argument("name", metavar="NAME", help="the study's name")
    add_storage(command)


def add_storage(command: Any) -> None:
    """Where studies are stored."""
    command.add_argument(
        "--storage",
        default="results",
        metavar="DIR|URL",
        help="where studies are stored: a folder, or s3://BUCKET/PATH (default: results)",
    )


def add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train", help="train one recipe", description="Train one recipe from the beginning to the end."
    )
    train.add_argument(
        "--recipe", required=True, metavar="FILE", help="a recipe, for instance results/NAME/best/recipe.toml"
    )
    train.add_argument("--out", metavar="DIR", help="where the results go (default: results/train-DATE-TIME-CODE)")
    add_set(train, "a field of the recipe by dotted name")
    train.add_argument("--resume", action="store_true", help="continue in --out from its latest checkpoint")
    add_trust(train, "a recipe in a study")
    train.add_argument("--quiet", action="store_true", help="print only the result")


def add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="attack a trained model", description="Attack a trained model and count what survives."
    )
    evaluate.add_argument("--model", required=True, metavar="DIR", help="a folder such as results/NAME/best")
    evaluate.add_argument(
        "--attack",
        choices=("margin", "pgd", "autoattack"),
        default="margin",
        help="the margin attack of the search, PGD on cross-entropy, or AutoAttack (default: margin)",
    )
    evaluate.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="which images; look at the test images once, at the end (default: validation)",
    )
    evaluate.add_argument("--images", type=whole_number, default=0, metavar="N", help="only a fixed subset of N images")
    add_trust(evaluate, "a model")
    evaluate.add_argument("--json", action="store_true", help="print JSON")


def add_data(commands: Any) -> None:
    data = commands.add_parser(
        "data", help="download a dataset", description="Download a dataset before a training needs it."
    )
    data.add_argument("name", metavar="NAME", help="cifar10, cifar100, svhn or fashion_mnist")
    data.add_argument("--root", default="data", metavar="DIR", help="where it goes (task.root; default: data)")


def add_init(commands: Any) -> None:
    init = commands.add_parser(
        "init",
        help="a starter space for your own images",
        description="Look at a folder of class folders and write a search space for it.",
    )
    init.add_argument("folder", metavar="FOLDER", help="one subfolder of images per class")
    init.add_argument("--out", metavar="FILE", help="the space (default: search_spaces/FOLDER.toml)")


def whole_number(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    return _for_argparse(text, 0)


def any_whole_number(text: str) -> int:
    """A whole number, for argparse; its range is checked later."""
    return _for_argparse(text, -MOST)


def _for_argparse(text: str, least: int) -> int:
    try:
        return whole("", text, least)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None
