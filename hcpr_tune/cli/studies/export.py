"""`hcpr_tune export`: a search, or its model, for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from hcpr_tune.cli.console import COMPLETED
from hcpr_tune.cli.trust import trust_model
from hcpr_tune.common.output import say
from hcpr_tune.common.paths import check_new_file, is_file
from hcpr_tune.common.shell import command, quoted, storage_words
from hcpr_tune.errors import InputError


def run(options: argparse.Namespace) -> int:
    """Write the trials into a new storage of Optuna, or the model into a new ONNX file."""
    if options.model is not None and (options.optuna or options.name):
        other = "--optuna" if options.optuna else f"NAME {options.name}"
        raise InputError(f"--model {options.model} goes with --onnx alone, not with {other}; drop one of them")
    if options.name is None and options.model is None:
        raise InputError(
            f"export needs the NAME of a study (see {command('list', *storage_words(options.storage))}), or --onnx FILE --model DIR"
        )
    return _write_onnx(options) if options.onnx else _write_optuna(options)


def _write_optuna(options: argparse.Namespace) -> int:
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen

    folder, study, history = reopen(options.storage, options.name, "export ")
    target = _new_file("--optuna", options.optuna)
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    from hcpr_tune.search.suggestion.optuna_adapter import export

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: JournalStorage | RDBStorage
    if target.suffix == ".log":
        storage = JournalStorage(JournalFileBackend(str(target)))
    else:
        if odd := set("?#%") & set(str(target.absolute())):
            raise InputError(
                f"--optuna {target}: the address of an SQLite file cannot hold {' or '.join(sorted(odd))}; choose another file"
            )
        storage = RDBStorage(f"sqlite:///{target.absolute()}")
    export(study, history, storage, folder.root.name, still_running=living_lease_holder(folder.objects) is not None)
    say(f"{len(history.trials)} trials written to {target}; look at them with: optuna-dashboard {quoted(target)}")
    return COMPLETED


def _write_onnx(options: argparse.Namespace) -> int:
    target = _new_file("--onnx", options.onnx)
    model = _studys_model(options.storage, options.name) if options.model is None else Path(options.model)
    from hcpr_tune.training.models.export import check_files
    from hcpr_tune.training.models.onnx_file import BATCHES, write_onnx
    from hcpr_tune.training.plugins import guarded

    check_files(model)
    trust_model(options, model)
    with guarded():
        written = write_onnx(model, target)
    shape = ", ".join(map(str, written.image))
    say(f"the model in {model} written to {target}, {written.size / 1e6:.1f} MB")
    say(f'"images" (batch, {shape}), float32 in [0, 1], to "logits" (batch, {written.classes})')
    say(
        f"under ONNX Runtime its logits differ from the model's by at most {written.difference:.1e}, on batches of {', '.join(map(str, BATCHES))} random images"
    )
    return COMPLETED


def _studys_model(storage: str, name: str) -> Path:
    """The folder of the study's model: that of its verdict where there is one, else the best of its search."""
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.training.models.export import FILES
    from hcpr_tune.views.next_commands import about

    folder, _, _ = reopen(storage, name, "export ", with_best=True)
    for model in (folder.root / "verdict", folder.best):
        if all(is_file(model / file, f"export {name}: {model}") for file in FILES):
            return model
    raise InputError(
        f"export {name}: {folder.best} holds no model yet; let a trial reach a rung ({about('tune --resume', folder)}), or give one by --model DIR"
    )


def _new_file(option: str, name: str) -> Path:
    target = Path(name)
    check_new_file(target, f"{option} {target}")
    return target
