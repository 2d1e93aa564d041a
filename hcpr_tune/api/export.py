"""A study or its model for other tools: Optuna's storages, ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hcpr_tune.common.paths import check_new_file, is_file
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.api.trust import Trust
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.training.models.onnx_file import Written


def write_optuna(
    study: StudySpec, history: History, target: Path, name: str, still_running: bool, option: str = ""
) -> None:
    """Write the trials into a new storage of Optuna: an SQLite file, or a journal if it ends in .log.

    `option`: what error messages begin with. Raises `InputError` if the file exists or cannot be one.
    """
    check_new_file(target, f"{option}{target}")
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
                f"{option}{target}: the address of an SQLite file cannot hold {' or '.join(sorted(odd))}; "
                "choose another file"
            )
        storage = RDBStorage(f"sqlite:///{target.absolute()}")
    export(study, history, storage, name, still_running=still_running)


def write_onnx_model(model: Path, target: Path, trust: Trust, option: str = "") -> Written:
    """Write the model in a folder into a new ONNX file. Raises `InputError`, also for code that is not trusted."""
    from hcpr_tune.api.trust import trust_model
    from hcpr_tune.training.models.export import check_files
    from hcpr_tune.training.models.onnx_file import write_onnx
    from hcpr_tune.training.plugins import guarded

    check_new_file(target, f"{option}{target}")
    check_files(model)
    trust_model(trust, model)
    with guarded():
        return write_onnx(model, target)


def model_of(folder: StudyFolder, where: str = "") -> Path:
    """The folder of the study's model: that of its verdict if there is one, else the best of its search.

    `where`: what messages begin with, by default `export NAME`. Raises `InputError` if there is none yet.
    """
    from hcpr_tune.training.models.export import FILES
    from hcpr_tune.views.next_commands import about

    where = where or f"export {folder.root.name}"
    for model in (folder.root / "verdict", folder.best):
        if all(is_file(model / file, f"{where}: {model}") for file in FILES):
            return model
    raise InputError(
        f"{where}: {folder.best} holds no model yet; give one by --model DIR, or let a trial reach a rung: "
        f"{about('tune --resume', folder)}"
    )
