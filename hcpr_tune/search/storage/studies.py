"""Studies in their folders or buckets: begin one, find one again as it was left."""

from __future__ import annotations

import random
import re
import time
from dataclasses import replace
from pathlib import Path

from hcpr_tune.common import paths
from hcpr_tune.common.bucket import Bucket, is_bucket
from hcpr_tune.common.files import read_text, write_bytes_whole, write_new, write_whole
from hcpr_tune.common.paths import check_writable, is_dir, is_file, looked_at, reading
from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.settings import show
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.record import read_history, read_segments
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.scheduling.config import always_promoted
from hcpr_tune.search.spec.changes import grown_budget, with_free_settings
from hcpr_tune.search.spec.study import (
    Study,
    at_home,
    check_reopens,
    extended,
    read_study,
    study_from_plain,
    study_to_toml,
)
from hcpr_tune.search.storage.lease import read_lease_holder

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""What a study may be called."""
MOST_NAMED = 20
"""Studies that a message names."""
COPIES = Path("results")
"""Where the local copy of a study lies whose storage is a bucket."""
COPY_OF = ".copy_of"
"""A file in such a copy that names its bucket."""


def study_folder(storage: str | Path, name: str) -> StudyFolder:
    """Where the study lies, or would. Raises `InputError` for a name or a storage that cannot be."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"a study's name must be 1 to 100 letters, digits, dots, dashes or underscores, got {show(name)}; choose another --name"
        )
    if not is_bucket(str(storage)):
        here = StudyFolder(Path(storage) / name)
        looked_at(here.study, f"--storage {storage}: {here.root}")
        return here
    folder = StudyFolder(COPIES / name, Bucket(str(storage)).child(name))
    mark = folder.root / COPY_OF
    where = f"--name {name}: {folder.root}"
    if paths.exists(folder.root, where) and (not is_file(mark, where) or read_text(mark).strip() != folder.address):
        raise InputError(
            f"{folder.root}, where the copy of {folder.address} would lie, is another study; move it away, or choose another --name"
        )
    return folder


def check_new(storage: str | Path, name: str) -> StudyFolder:
    """The folder of a new study, not yet made. Raises `InputError` where the name is taken or the storage cannot be written."""
    folder = study_folder(storage, name)
    if folder.bucket is not None:
        Bucket(str(storage)).check()
    if exists(folder) or (folder.bucket is None and _in_use(folder.root)):
        raise InputError(
            f"--name {show(name)} is taken: {folder.address} exists; go on with it by --resume {name}, or choose another --name"
        )
    check_writable(folder.root, f"--storage {storage}", "choose another --storage")
    return folder


def _in_use(path: Path) -> bool:
    """Whether something is there, other than an empty folder that a killed search has left in its first moment."""
    return paths.exists(path, str(path)) and (
        not path.is_dir() or any(not one.name.startswith(".") for one in path.iterdir())
    )


def exists(folder: StudyFolder) -> bool:
    """Whether a study was begun there."""
    return folder.objects.read("study.toml") is not None


def create(folder: StudyFolder, study: Study) -> History:
    """Make the folder of a new study and write the resolved study into it. Raises `InputError` where it could not be opened again."""
    check_reopens(study, folder.address)
    text = study_to_toml(study)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        write_new(folder.study, text)
        if folder.bucket is not None:
            write_whole(folder.root / COPY_OF, folder.address + "\n")
    except FileExistsError:
        raise InputError(
            f"--name {show(folder.root.name)} is taken: another process has begun {folder.address} in this moment; choose another --name"
        ) from None
    except OSError as error:
        raise InputError(
            f"--storage {folder.root.parent} cannot be written: {error}; choose another --storage"
        ) from None
    if folder.bucket is not None:
        folder.bucket.write("study.toml", text.encode())
    return History(study.recipe.epochs, study.goal)


def reopen(
    storage: str | Path, name: str, option: str = "--resume ", now: Study | None = None, with_best: bool = False
) -> tuple[StudyFolder, Study, History]:
    """A study that was begun before: its folder, itself with what it was extended by, and its record.

    `now` is the study as it is given today, by default its file in the folder; of it only the settings count that change no decision.
    `with_best`: what lies in best/ and verdict/ is brought from a bucket too, as for a search that goes on.
    Raises `InputError` where there is none.
    """
    folder = study_folder(storage, name)
    if not exists(folder):
        raise nothing_there(storage, folder, f"{option}{show(name)}")
    _fetch(folder, with_best or option.startswith("--"))
    today = now or read_study(folder.study)
    history = History(today.recipe.epochs, today.goal)
    where = f"{option}{name}: {folder.record}"
    if paths.exists(folder.record, where):
        with reading(where):
            history = read_history(folder.record, today.recipe.epochs, today.goal)
    study = begun(today, history)
    if (study.recipe.epochs, study.goal) != (today.recipe.epochs, today.goal):
        # The file was changed since; what happened is told by the study that it happened in.
        history = read_history(folder.record, study.recipe.epochs, study.goal)
    try:
        study = extended(study, history.extensions)
    except InputError as error:
        raise InputError(
            f"{folder.record}: the study cannot be extended as it says ({error}); it was changed: restore the file from a copy"
        ) from None
    check_points(folder, study, history)
    return folder, study, history


def check_points(folder: StudyFolder, study: Study, history: History) -> None:
    """Raises `InputError` where the record holds values that the study does not search."""
    points = [(f"trial {trial.number}", trial.params) for trial in history.trials.values()]
    for what, params in [*points, *((f"queued point {place}", one) for place, one in enumerate(history.queue))]:
        for name, value in params.items():
            if name not in study.space or not study.space[name].holds(value):
                raise InputError(
                    f"{folder.record}: {what} has {name} = {show(value)}, which is not in the study's space; it was changed: restore the file from a copy"
                )


def nothing_there(storage: str | Path, folder: StudyFolder, what: str) -> InputError:
    """What somebody is told who asks for a study that was not begun."""
    names = known(storage)
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return InputError(
        f"{what}: there is no study in {folder.address}; known there: {', '.join(names[:MOST_NAMED]) or 'none'}{more}"
    )


def known(storage: str | Path) -> list[str]:
    """The names of the studies in a storage."""
    if is_bucket(str(storage)):
        return sorted({key.split("/")[0] for key in Bucket(str(storage)).keys("") if key.endswith("/study.toml")})
    folder, where = Path(storage), f"--storage {storage}"
    if not is_dir(folder, where):
        if paths.exists(folder, where):
            raise InputError(f"{where} is no folder; give the one that studies lie in")
        return []
    with reading(where):
        names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if _begun_or_shut(folder / name)]


def _begun_or_shut(root: Path) -> bool:
    """Whether a study lies there, as far as one may look: one that is left out without a word would be missed."""
    try:
        return (root / "study.toml").exists()
    except OSError:
        return NAME.fullmatch(root.name) is not None


def _fetch(folder: StudyFolder, with_best: bool) -> None:
    """Bring study and record from a bucket; the rest of the copy is rebuilt from them."""
    if folder.bucket is None:
        return
    holder = read_lease_holder(folder.objects)
    if holder is not None and holder.is_here and holder.lives(time.time()) and folder.record.exists():
        return  # the copy is the leading process's own
    folder.root.mkdir(parents=True, exist_ok=True)
    write_whole(folder.root / COPY_OF, folder.address + "\n")
    write_bytes_whole(folder.study, folder.bucket.read("study.toml") or b"")
    write_bytes_whole(folder.record, read_segments(folder.bucket))
    # The best weights may be there alone, where the checkpoints were cleaned.
    folder.best.mkdir(exist_ok=True)
    wanted = folder.bucket.keys("best") if with_best else []
    own_ways = ("verdict/record", "verdict/checkpoints/")
    wanted += [key for key in folder.bucket.keys("verdict") if not key.startswith(own_ways)] if with_best else []
    for key in wanted:
        (folder.root / key).parent.mkdir(parents=True, exist_ok=True)
        folder.bucket.download(key, folder.root / key)


def begun(today: Study, history: History) -> Study:
    """The study as it was begun; as it is today where the record does not say."""
    if not history.study:
        return today
    study = study_from_plain(with_free_settings(history.study, today), "the study as it was begun")
    # One that was begun with a relative path is the same with the path that it means here.
    study = at_home(study)
    return study if study.fingerprint == history.fingerprint else replace(study, begun_as=history.fingerprint)


def budget_of_file(study: Study, history: History, extended_study: Study, where: str) -> dict[str, float]:
    """The larger budget that a study's file asks for since it was begun. Raises `InputError` where anything else was changed."""
    return grown_budget(begun(study, history), study, extended_study, where)


def audit_event(study: Study, history: History, count: int) -> Event:
    """A random sample of the trials that were stopped early, drawn from the study's seed, which then run to the end. Raises `InputError`."""
    stopped = sorted(
        trial.number
        for trial in history.trials.values()
        if trial.state == "stopped" and not always_promoted(trial, history)
    )
    if count > len(stopped):
        raise InputError(
            f"--audit must be at most the {len(stopped)} trials that were stopped early, got {count}; lower it"
        )
    drawn = random.Random(derive_seed(study.settings.seed, "audit", len(history.audited)))
    return {"event": "audit", "time": time.time(), "trials": sorted(drawn.sample(stopped, count))}
