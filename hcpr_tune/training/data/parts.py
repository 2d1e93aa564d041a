"""The contents of a folder of images by name: its parts, their class folders and their files. No file is opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hcpr_tune.errors import InputError
from hcpr_tune.training.data.part_names import (
    PARTS,
    check_parts_above_classes,
    check_parts_are_not_classes,
    near_part,
    part_of,
)
from hcpr_tune.training.data.registry import FOLDER

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
)
MOST_NAMED = 20

Identity = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The folders of the parts; a folder without parts is the training part. `skipped`: what belongs to no part."""

    train: Path
    validation: Path | None
    test: Path | None
    skipped: tuple[str, ...] = ()

    def fence(self) -> frozenset[Identity]:
        """The parts and their class folders: a link between them would put an image into two classes or two parts."""
        parts = [part for part in (self.train, self.validation, self.test) if part is not None]
        folders = [*parts, *(folder for part in parts for folder in _subfolders(part))]
        return frozenset(filter(None, map(_identity, folders)))


@dataclass(frozen=True)
class Entry:
    """A file below a folder, or the reason why it cannot be opened (`trouble`)."""

    path: Path
    trouble: str = ""


def dataset_folder(dataset: str) -> Path:
    """The folder of `folder:PATH`. Raises `InputError` if it does not exist or cannot be accessed."""
    name = dataset.removeprefix(FOLDER)
    try:
        folder = Path(name).expanduser()
        found = folder.stat()
        if stat.S_ISDIR(found.st_mode):
            next(folder.iterdir(), None)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"task.dataset: the folder {_short(name)} cannot be accessed: {why}; "
            "give folder:PATH with one subfolder of images per class"
        ) from None
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise InputError(
            f"task.dataset: there is no folder {_short(name)}; give folder:PATH with one subfolder of images per class"
        )
    return folder


def layout(root: Path) -> Layout:
    """The parts of a folder, by the names of its subfolders. Raises `InputError` if they are ambiguous."""
    subfolders = [path for path in _subfolders(root) if not is_hidden(path.name)]
    named = {path: part_of(path.name) for path in subfolders}
    known = [path for path, part in named.items() if part]
    # A class called train contains images; a part called train contains class folders.
    holding = [path for path in subfolders if _holds_folders_only(path)]
    unclear = [path for path in holding if not named[path] and near_part(path.name)]
    if not holding:
        check_parts_are_not_classes(root, [path.name for path in subfolders])
    one_class = len(known) == 1 < len(subfolders) and known[0] not in holding
    if not unclear and (not known or one_class):
        return Layout(root, None, None)
    if unclear:
        raise InputError(
            f"task.dataset: {root} has {_names(unclear)}: parts or classes? Rename parts to train, val and test, "
            "and classes to names less like those; a class may also hold its images directly, without subfolders"
        )
    by_part: dict[str, list[Path]] = {part: [path for path in known if named[path] == part] for part in PARTS}
    twice = next((paths for paths in by_part.values() if len(paths) > 1), None)
    if twice is not None:
        raise InputError(f"task.dataset: {root} has {_names(twice)} for the same part; keep one of them")
    if not by_part["train"]:
        raise InputError(
            f"task.dataset: {root} has {_names(known)} but no train/; "
            "name the training part train, or give the classes other names"
        )
    others = [path for path in subfolders if path not in known]
    mixed = [path for path in others if path in holding]
    if others and (len(known) < 2 or not set(known) <= set(holding) or mixed):
        raise InputError(
            f"task.dataset: {root} has {_names(known)} next to {_names(mixed or others)}: parts and classes are mixed; "
            "move the class folders into the parts, move other folders away, or rename a class named like a part"
        )
    parts = {part: paths[0] if paths else None for part, paths in by_part.items()}
    _check_apart(root, known)
    train = parts["train"]
    assert train is not None
    many = "s" * (len(others) > 1)
    skipped = [f"{len(others)} folder{many} next to the parts of {root}: {_names(others)}"] if others else []
    return Layout(train, parts["validation"], parts["test"], tuple(skipped))


def class_folders(part: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The class folders of a part, sorted by name, and what else is there. Raises `InputError` for unusable names."""
    found = _subfolders(part)
    classes = [path for path in found if not is_hidden(path.name)]
    if len(classes) < 2:
        raise InputError(
            f"task.dataset: {part} must have at least 2 subfolders, one per class, got {len(classes)}; "
            f"{_instead(classes) or 'sort the images into them'}"
        )
    unwritable = [repr(path.name) for path in classes if not writable(path.name)]
    if unwritable:
        raise InputError(
            f"task.dataset: class names must be UTF-8 without control characters, got {named(unwritable)} in {part}; "
            "rename the folders"
        )
    alike = Counter(unicodedata.normalize("NFC", path.name) for path in classes)
    if twice := [name for name, count in alike.items() if count > 1]:
        raise InputError(
            f"task.dataset: {part} has folders whose names differ only in their Unicode normalisation: {named(twice)}; "
            "put their images into one"
        )
    _check_apart(part, classes)
    check_parts_above_classes(part, {path.name: _inner(path) for path in classes}, _holds_folders_only)
    hidden = [path.name for path in found if path not in classes]
    files = [entry.name for entry in _scan(part) if not entry.is_dir()]
    beside = [
        f"{len(names)} {words}{'s' * (len(names) > 1)} next to the class folders of {part}: {named(names, 5)}"
        for words, names in (("hidden folder", hidden), ("file", sorted(files)))
        if names
    ]
    return classes, tuple(beside)


def _inner(folder: Path) -> list[str]:
    """The names of the subfolders, sorted; links that lead nowhere are left to who reads the files."""
    return sorted(entry.name for entry in _scan(folder) if _is_folder(entry) and not is_hidden(entry.name))


def _instead(classes: Sequence[Path]) -> str:
    """What to give instead of a folder whose only subfolder holds the classes, or the parts; empty for another one."""
    inner = _inner(classes[0]) if classes else []
    if len(inner) < 2 and not any(map(part_of, inner)):
        return ""
    return f"give {classes[0]}, which has {named([f'{name}/' for name in inner], 3)}"


OF_OTHER_PROGRAMS = ("@eaDir", "__MACOSX")
"""Folders that NAS systems (@eaDir) and macOS archives (__MACOSX) add."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not one of the user's images or classes."""
    return name.startswith(".") or name in OF_OTHER_PROGRAMS


def below(folder: Path, fence: Collection[Identity] = ()) -> Iterator[Entry]:
    """All files at or below `folder`, sorted in each folder.

    Links are followed, but not into `fence` and to no folder twice. Hidden folders are not entered; inaccessible
    folders and broken links are entries with a `trouble`.
    """
    start = _identity(folder)
    seen = {one for one in fence if one != start}
    waiting = [folder]
    # Not recursive: folders can be nested deeper than Python's recursion limit.
    while waiting:
        here = waiting.pop()
        if here is not folder and is_hidden(here.name):
            yield Entry(here)
            continue
        try:
            found = here.stat()
            if not stat.S_ISDIR(found.st_mode):
                yield Entry(here)
                continue
            if (found.st_dev, found.st_ino) in seen:
                yield Entry(here, LEADS_BACK)
                continue
            seen.add((found.st_dev, found.st_ino))
            waiting += sorted(here.iterdir(), reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            yield Entry(here, "a broken link")
        except OSError as error:
            yield Entry(here, error.strerror or str(error))


LEADS_BACK = "leads to a folder that was already read or belongs to another class or part"


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return name.casefold().endswith(SUFFIXES) and not is_hidden(name)


def named(things: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first `most` things, then the number of the rest."""
    more = len(things) - most
    return ", ".join(map(_short, things[:most])) + (f" and {more} more" if more > 0 else "")


def _short(name: str) -> str:
    """A long path or message shortened; the end, with the file name and the reason, matters most."""
    return name if len(name) <= 400 else f"{name[:100]}...{name[-280:]}"


def _names(paths: Sequence[Path]) -> str:
    return named([f"{path.name}/" for path in paths])


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder. Raises `InputError` if it cannot be accessed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(
            f"task.dataset: {folder} cannot be accessed: {error.strerror or error}; "
            "change its permissions, or remove it"
        ) from None


def _subfolders(folder: Path) -> list[Path]:
    """Subfolders and links to folders, sorted by name. Raises `InputError` for a broken link: it may be a class."""
    entries = _scan(folder)
    lost = [entry.name for entry in entries if entry.is_symlink() and not is_hidden(entry.name) and not _leads(entry)]
    if lost:
        raise InputError(f"task.dataset: {folder} has broken links: {named(sorted(lost))}; replace or remove them")
    return sorted(Path(folder, entry.name) for entry in entries if _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(
            f"task.dataset: the link {entry.path} cannot be followed: {error.strerror or error}; replace or remove it"
        ) from None
    return True


def _holds_folders_only(folder: Path) -> bool:
    """Whether a folder has subfolders but no images directly in it."""
    entries = [entry for entry in _scan(folder) if not is_hidden(entry.name)]
    return any(map(_is_folder, entries)) and not any(
        is_image_name(entry.name) for entry in entries if not _is_folder(entry)
    )


def _identity(folder: Path) -> Identity | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_apart(root: Path, folders: Sequence[Path]) -> None:
    """Raise `InputError` if two of the folders are the same through a link: each image would be in both."""
    first: dict[Identity | None, Path] = {}
    for folder in folders:
        other = first.setdefault(_identity(folder), folder)
        if other is not folder:
            raise InputError(
                f"task.dataset: {folder.name}/ and {other.name}/ in {root} are the same folder through a link; "
                "remove one of them"
            )


def writable(name: str) -> bool:
    """Whether a name can be written to text files: no lone surrogates (invalid UTF-8), line ends or controls."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)
