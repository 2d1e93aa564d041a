"""Studies in their folders or buckets: create a new one, reopen an existing one."""

from __future__ import annotations

import random
import re
import time
from dataclasses import replace
from pathlib import Path

from hcpr_tune.common import paths
from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.common.buckets.location import is_bucket
from hcpr_tune.common.files import read_text, write_bytes_whole, write_new, write_whole
from hcpr_tune.common.paths import check_writable, is_dir, is_file, looked_at, reading
from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.settings import show
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.search import AuditEvent
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.record import read_history
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.record.segments import read_segments
from hcpr_tune.search.scheduling.config import always_promoted
from hcpr_tune.search.spec.changes import grown_budget, with_free_settings
from hcpr_tune.search.spec.study import StudySpec, extended, study_to_toml
from hcpr_tune.search.spec.study_file import at_home, check_reopens, read_study, study_from_plain
from hcpr_tune.search.storage.lease import read_lease_holder

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""Valid names of studies."""
MOST_NAMED = 20
"""Most studies listed in a message."""
COPIES = Path("results")
"""Folder of the local copies of studies in buckets."""
COPY_OF = ".copy_of"
"""A file in a local copy that names its bucket."""


def study_folder(storage: str | Path, name: str) -> StudyFolder:
    """The folder of a study, which need not exist. Raises `InputError` for an invalid name or storage."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"a study's name must be 1 to 100 letters, digits, dots, dashes or underscores, got {show(name)};"
            " choose another --name"
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
            f"{folder.root}, where the copy of {folder.address} would be, is another study;"
            " move it away, or choose another --name"
        )
    return folder


def check_new(storage: str | Path, name: str) -> StudyFolder:
    """The folder for a new study. Raises `InputError` if the name is taken or the storage is not writable."""
    folder = study_folder(storage, name)
    if folder.bucket is not None:
        Bucket(str(storage)).check()
    if exists(folder) or (folder.bucket is None and _in_use(folder.root)):
        raise InputError(
            f"--name {show(name)} is taken: {folder.address} exists; go on with it by --resume {name},"
            " or choose another --name"
        )
    check_writable(folder.root, f"--storage {storage}", "choose another --storage")
    return folder


def _in_use(path: Path) -> bool:
    """Whether something is there, other than an empty folder left by a search that was killed right at the start."""
    return paths.exists(path, str(path)) and (
        not path.is_dir() or any(not one.name.startswith(".") for one in path.iterdir())
    )


def exists(folder: StudyFolder) -> bool:
    """Whether there is a study."""
    return folder.objects.read("study.toml") is not None


def create(folder: StudyFolder, study: StudySpec) -> StoredStudy:
    """Create a new study's folder with the resolved study file. Raises `InputError` if it could not be reopened."""
    check_reopens(study, folder.address)
    text = study_to_toml(study)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        write_new(folder.study, text)
        if folder.bucket is not None:
            write_whole(folder.root / COPY_OF, folder.address + "\n")
    except FileExistsError:
        raise InputError(
            f"--name {show(folder.root.name)} is taken: another process has just begun {folder.address};"
            " choose another --name"
        ) from None
    except OSError as error:
        raise InputError(
            f"--storage {folder.root.parent} cannot be written: {error}; choose another --storage"
        ) from None
    if folder.bucket is not None:
        folder.bucket.write("study.toml", text.encode())
    return StoredStudy(folder, study, History(study.recipe.epochs, study.goal))


def reopen(
    storage: str | Path, name: str, option: str = "--resume ", now: StudySpec | None = None, with_best: bool = False
) -> StoredStudy:
    """An existing study, with its extensions.

    `now` is the study as given today, by default its file in the folder; only its settings that influence no decision
    are used. `with_best`: best/ and verdict/ are downloaded from a bucket too, as for a search that is resumed.
    Raises `InputError` if there is no such study.
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
        # The file was changed: read the record again with the study that it was written for.
        history = read_history(folder.record, study.recipe.epochs, study.goal)
    try:
        study = extended(study, history.extensions)
    except InputError as error:
        raise InputError(
            f"{folder.record}: the study cannot be extended as recorded ({error});"
            " the record was changed: restore the file from a copy"
        ) from None
    check_points(StoredStudy(folder, study, history))
    return StoredStudy(folder, study, history)


def check_points(stored: StoredStudy) -> None:
    """Raises `InputError` if the record has values outside the study's space."""
    folder, study, history = stored
    points = [(f"trial {trial.number}", trial.params) for trial in history.trials.values()]
    for what, params in [*points, *((f"queued point {place}", one) for place, one in enumerate(history.queue))]:
        for name, value in params.items():
            if name not in study.space or not study.space[name].holds(value):
                raise InputError(
                    f"{folder.record}: {what} has {name} = {show(value)}, which is not in the study's space;"
                    " the record was changed: restore the file from a copy"
                )


def nothing_there(storage: str | Path, folder: StudyFolder, what: str) -> InputError:
    """The error for a study that does not exist."""
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
            raise InputError(f"{where} is not a folder; give the folder that contains the studies")
        return []
    with reading(where):
        names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if _begun_or_shut(folder / name)]


def _begun_or_shut(root: Path) -> bool:
    """Whether there is a study, or an unreadable folder that may be one: listing it is better than hiding it."""
    try:
        return (root / "study.toml").exists()
    except OSError:
        return NAME.fullmatch(root.name) is not None


def _fetch(folder: StudyFolder, with_best: bool) -> None:
    """Download study file and record from a bucket; the rest of the copy is rebuilt from them."""
    if folder.bucket is None:
        return
    holder = read_lease_holder(folder.objects)
    if holder is not None and holder.is_here and holder.lives(time.time()) and folder.record.exists():
        return  # the copy belongs to the process that holds the lease
    folder.root.mkdir(parents=True, exist_ok=True)
    write_whole(folder.root / COPY_OF, folder.address + "\n")
    write_bytes_whole(folder.study, folder.bucket.read("study.toml") or b"")
    write_bytes_whole(folder.record, read_segments(folder.bucket))
    # If the checkpoints were deleted, the best weights exist only in the bucket.
    folder.best.mkdir(exist_ok=True)
    wanted = folder.bucket.keys("best") if with_best else []
    own_ways = ("verdict/record", "verdict/checkpoints/")
    wanted += [key for key in folder.bucket.keys("verdict") if not key.startswith(own_ways)] if with_best else []
    for key in wanted:
        (folder.root / key).parent.mkdir(parents=True, exist_ok=True)
        folder.bucket.download(key, folder.root / key)


def begun(today: StudySpec, history: History) -> StudySpec:
    """The study as it was begun; as it is today if the record does not have it."""
    if not history.study:
        return today
    study = study_from_plain(with_free_settings(history.study, today), "the study as it was begun")
    # A study begun with a relative path is the same as with its absolute path.
    study = at_home(study)
    return study if study.fingerprint == history.fingerprint else replace(study, begun_as=history.fingerprint)


def budget_of_file(study: StudySpec, history: History, extended_study: StudySpec, where: str) -> dict[str, float]:
    """The larger budget in a study's file since it was begun. Raises `InputError` if anything else was changed."""
    return grown_budget(begun(study, history), study, extended_study, where)


def audit_event(study: StudySpec, history: History, count: int) -> AuditEvent:
    """An event that lets `count` early-stopped trials, drawn with the study's seed, run to the last epoch.

    Raises `InputError` if there are fewer.
    """
    stopped = sorted(
        trial.number
        for trial in history.trials.values()
        if trial.state == "stopped" and trial.replicate_of is None and not always_promoted(trial, history)
    )
    if count > len(stopped):
        raise InputError(
            f"--audit must be at most the {len(stopped)} trials that were stopped early, got {count}; lower it"
        )
    drawn = random.Random(derive_seed(study.settings.seed, "audit", len(history.audited)))
    return {"event": "audit", "time": time.time(), "trials": sorted(drawn.sample(stopped, count))}
