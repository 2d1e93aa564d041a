"""`hcpr_tune export`: a search, or its model, for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hcpr_tune.cli.arguments import add_study, add_trust
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.cli.options import trust_of
from hcpr_tune.common.output import say
from hcpr_tune.common.paths import check_new_file
from hcpr_tune.common.shell import command, quoted, storage_words
from hcpr_tune.errors import InputError


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    export = commands.add_parser(
        "export",
        description="Write the trials of a search into a storage of Optuna, which optuna-dashboard opens, or its "
        "model into an ONNX file.",
    )
    add_study(export, optional=True)
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
    export.add_argument("--model", metavar="DIR", help="with --onnx: the model in this folder, instead of NAME's")


def run(options: argparse.Namespace) -> int:
    """Write the trials into a new storage of Optuna, or the model into a new ONNX file."""
    if options.model is not None and (options.optuna or options.name):
        other = "--optuna" if options.optuna else f"NAME {options.name}"
        raise InputError(f"--model {options.model} goes with --onnx alone, not with {other}; drop one of them")
    if options.name is None and options.model is None:
        raise InputError(
            "export needs the NAME of a study, or --onnx FILE --model DIR; the studies are listed by: "
            f"{command('list', *storage_words(options.storage))}"
        )
    return _write_onnx(options) if options.onnx else _write_optuna(options)


def _write_optuna(options: argparse.Namespace) -> int:
    from hcpr_tune.api.export import write_optuna
    from hcpr_tune.study import Study

    study, target = Study.of(options.storage, options.name, "export "), Path(options.optuna)
    write_optuna(study.spec, study.history, target, study.name, study.is_running, "--optuna ")
    say(f"{len(study.history.trials)} trials written to {target}; look at them with: optuna-dashboard {quoted(target)}")
    return COMPLETED


def _write_onnx(options: argparse.Namespace) -> int:
    from hcpr_tune.api.export import write_onnx_model
    from hcpr_tune.api.finding import find_model
    from hcpr_tune.study import Study

    target = Path(options.onnx)
    check_new_file(target, f"--onnx {target}")
    if options.model is None:
        model = Study.of(options.storage, options.name, "export ", with_best=True).model
    else:
        model = find_model(options.model, options.storage, "--model")
    from hcpr_tune.training.models.onnx_file import BATCHES

    written = write_onnx_model(model, target, trust_of(options), "--onnx ")
    shape = ", ".join(map(str, written.image))
    say(f"the model in {model} written to {target}, {written.size / 1e6:.1f} MB")
    say(f'"images" (batch, {shape}), float32 in [0, 1], to "logits" (batch, {written.classes})')
    say(
        "its metadata (JSON texts) has class_names, image_shape, image_range, channel_order, threat_model and scores: "
        "InferenceSession(FILE).get_modelmeta().custom_metadata_map"
    )
    say(
        f"under ONNX Runtime its logits differ from the model's by at most {written.difference:.1e}, on batches of "
        f"{', '.join(map(str, BATCHES))} random images"
    )
    return COMPLETED
