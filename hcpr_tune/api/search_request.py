"""What a search is to do, found out before anything starts: a new study, or one that was begun before."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import Trust, named_in_study, trust_space, trust_study
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.search.record.events.search import Request
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.spec.study import StudySpec

EXTENSIBLE = ("trials", "hours", "worker_hours", "epochs")
"""What extends a study: the keys of [budget], and `epochs`, a new top rung."""


@dataclass(frozen=True)
class SpaceSource:
    """A space file with the values that are laid over it, by dotted name; `given`: how the user gave them."""

    path: Path
    overrides: tuple[tuple[str, Any], ...] = ()
    given: str = ""

    @property
    def where(self) -> str:
        """Where the settings are, for messages."""
        return f"{self.path} with {self.given}" if self.given else str(self.path)

    def read(self, trust: Trust) -> StudySpec:
        """The study that the space describes. Raises `InputError`, also if it names code that is not trusted."""
        from hcpr_tune.search.spec.study_file import read_study

        spec = read_study(self.path, self.overrides, self.given)
        trust_space(trust, self.path, spec)
        return spec


@dataclass(frozen=True)
class SearchRequest:
    """A study to search, new or begun before, and the events that come first.

    `where`: where its settings are, for messages; `patience`: seconds to wait for a driver that may be dead.
    """

    study: StoredStudy
    where: str
    requests: tuple[Request, ...] = ()
    patience: float = 0.0


@dataclass(frozen=True)
class Extension:
    """What resuming a study adds to it.

    `budget`: new values of trials, hours, worker_hours and epochs; a text such as "+10" adds to what there is or was
    spent. `audit`: how many of the stopped trials to run to the end. `label`: a setting's name in messages.
    """

    budget: Mapping[str, float | str]
    audit: int | None = None
    label: Callable[[str], str] = str


def new_search(
    source: SpaceSource, storage: str | Path, name: str | None, warm_start: str | Path | None, trust: Trust
) -> SearchRequest:
    """A new study. Raises `InputError`, and then nothing was written."""
    from hcpr_tune.common.files import new_name
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.spec.study_file import check_reopens
    from hcpr_tune.search.storage.studies import check_new

    spec = source.read(trust)
    check_reopens(spec, source.where)
    requests = _warm_start(warm_start, spec, storage)
    folder = check_new(storage, new_name(source.path.stem) if name is None else name)
    return SearchRequest(StoredStudy(folder, spec, History(spec.recipe.epochs, spec.goal)), source.where, requests)


def search_of_program(
    space: str | Path | Mapping[str, Any],
    name: str | None,
    storage: str | Path,
    settings: Mapping[str, Any] | None,
    trust: bool,
    warm_start: str | Path | None = None,
) -> SearchRequest:
    """A new study from a program's values: a space by name, path or tables, and settings by dotted name."""
    from hcpr_tune.common.files import new_name
    from hcpr_tune.common.settings import plain_values

    values = plain_values(settings or {}, "settings")
    vouched = Trust.of(trust, values.values())
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        path = _space_file(space, Path(scratch))
        given = "settings" if values else ""
        source = SpaceSource(path, tuple(values.items()), given)
        return new_search(source, storage, name or new_name(path.stem), warm_start, vouched)


def _space_file(space: str | Path | Mapping[str, Any], scratch: Path) -> Path:
    """A space as a file."""
    if not isinstance(space, Mapping):
        from hcpr_tune.search.spec.study_file import find_space

        return find_space(str(space))
    import tomli_w

    path = scratch / "space.toml"
    try:
        path.write_text(tomli_w.dumps(dict(space)), encoding="utf-8")
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"the space cannot be written as TOML: {error}; give tables of plain numbers, texts, truths and lists"
        ) from None
    return path


def continued_search(
    source: SpaceSource, storage: str | Path, name: str, warm_start: str | Path | None, trust: Trust
) -> SearchRequest:
    """The study `name`, begun by the space unless it was begun by it before. Raises `InputError`."""
    from hcpr_tune.search.storage.lease import STALE_SECONDS
    from hcpr_tune.search.storage.studies import budget_of_file, exists, reopen, study_folder

    if not exists(study_folder(storage, name)):
        return new_search(source, storage, name, warm_start, trust)
    today = source.read(trust)
    study = reopen(storage, name, "--continue --name ", today)
    trust_study(trust, study, named_in_study(today))
    budget = budget_of_file(today, study.history, study.spec, source.where)
    # Where this follows a kill, its machine may have died with it: then its heartbeat must first run out.
    request = SearchRequest(study, source.where, patience=STALE_SECONDS + 10)
    if not study.history.trials and not study.history.old_trials:
        # It was killed before its record had begun.
        request = replace(request, requests=_warm_start(warm_start, study.spec, storage))
    return _with_budget(request, budget)


def resumed_search(
    storage: str | Path, name: str | Path, extension: Extension, trust: Trust, warm_start: str | Path | None = None
) -> SearchRequest:
    """A study that was begun before, given by name or path, with what its file and `extension` add.

    `warm_start` is possible before its first trial. Raises `InputError`.
    """
    from hcpr_tune.search.spec.study_file import read_study
    from hcpr_tune.search.storage.lease import living_lease_holder, refusal
    from hcpr_tune.search.storage.studies import audit_event, budget_of_file, reopen

    study = reopen(storage, name)
    folder, history = study.folder, study.history
    trust_study(trust, study)
    holder = living_lease_holder(folder.objects)
    if holder is not None:
        raise refusal(f"--resume {name}: {folder.address}", holder, folder.address)
    request = SearchRequest(study, str(folder.study))
    request = _with_budget(request, budget_of_file(read_study(folder.study), history, study.spec, str(folder.study)))
    request = _with_budget(request, _extended_budget(extension, request.study.spec, history))
    if warm_start is not None:
        if history.trials or history.old_trials:
            raise InputError(f"warm_start {warm_start}: {folder.address} has trials already; create another study")
        request = replace(request, requests=(*request.requests, *_warm_start(warm_start, request.study.spec, storage)))
    if extension.audit is not None:
        event = audit_event(request.study.spec, history, extension.audit)
        request = replace(request, requests=(*request.requests, event))
    return request


def _warm_start(given: str | Path | None, spec: StudySpec, storage: str | Path) -> tuple[Request, ...]:
    """The event of a warm start from a study, given by its name in the same storage or by its path."""
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.search.suggestion.warm_start import warm_start

    if given is None:
        return ()
    return (warm_start(reopen(storage, given, "--warm-start ").folder.root, spec, time.time()),)


def _with_budget(request: SearchRequest, budget: dict[str, float]) -> SearchRequest:
    """The request with its study extended."""
    from hcpr_tune.search.spec.study import extend

    if not budget:
        return request
    event: Request = {"event": "extend", "time": time.time(), "budget": budget}
    study = request.study._replace(spec=extend(request.study.spec, budget))
    return replace(request, study=study, requests=(*request.requests, event))


def _extended_budget(extension: Extension, spec: StudySpec, history: History) -> dict[str, float]:
    """The new budget. +N is more than the limit, or than what was spent beyond it. Raises `InputError`."""
    from hcpr_tune.common.numbers import real, whole
    from hcpr_tune.common.settings import to_plain

    spent = {"hours": history.seconds / 3600, "worker_hours": history.worker_seconds / 3600}
    limits = {**to_plain(spec.settings.budget), "epochs": spec.recipe.epochs}
    now = {name: max(limit, spent.get(name, limit)) for name, limit in limits.items()}
    wanted: dict[str, float] = {}
    for key in EXTENSIBLE:
        if key not in extension.budget:
            continue
        text, label = str(extension.budget[key]), extension.label(key)
        number = whole(label, text) if key in ("trials", "epochs") else real(label, text)
        wanted[key] = now[key] + number if text.startswith("+") else number
        if key == "trials" and wanted[key] < now[key]:
            raise InputError(
                f"{label} must be at least the {now[key]} that the study has, got {text}; {label} +10 adds ten"
            )
        if key in spent and wanted[key] <= spent[key] and wanted[key] != 0:
            raise InputError(
                f"{label} must be above the {spent[key]:.3g} hours that are spent, or 0 for no limit, got {text}; "
                f"{label} +1 adds an hour"
            )
    return wanted
