"""`hcpr_tune export`: a search for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from hcpr_tune.commands.console import COMPLETED
from hcpr_tune.errors import InputError


def run(options: argparse.Namespace) -> int:
    """Write the trials into a new storage of Optuna."""
    from hcpr_tune.search.holder import living_holder
    from hcpr_tune.search.studies import reopen

    folder, study, history = reopen(options.storage, options.name, "export ")
    target = Path(options.optuna)
    if target.exists():
        raise InputError(f"--optuna {target} exists; choose another file, or delete it")
    if not target.absolute().parent.is_dir():
        raise InputError(
            f"--optuna {target}: there is no folder {target.absolute().parent}; make it, or choose another file"
        )
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    from hcpr_tune.search.told import export

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: JournalStorage | RDBStorage
    if target.suffix == ".log":
        storage = JournalStorage(JournalFileBackend(str(target)))
    else:
        storage = RDBStorage(f"sqlite:///{target.absolute()}")
    export(study, history, storage, folder.root.name, still_running=living_holder(folder.place) is not None)
    print(f"{len(history.trials)} trials written to {target}; look at them with: optuna-dashboard {target}")
    return COMPLETED
