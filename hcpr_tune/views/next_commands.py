"""Suggestions for the next command, with the study's storage filled in."""

from __future__ import annotations

from hcpr_tune.common.shell import study_command
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study import StudySpec


def about(verb: str, folder: StudyFolder, *more: str, program: str = "") -> str:
    """A command about the study in `folder`."""
    return study_command(verb, folder.root.name, storage_of_folder(folder), *more, program=program)


def storage_of_folder(folder: StudyFolder) -> str:
    """The value of `--storage` for the study in `folder`."""
    return str(folder.location.parent)


def way_on(stored: StoredStudy, state: str, program: str, *more: str) -> str:
    """The command that continues a study that is not running; `state` is one of `status.STATES`.

    `more`: further options, such as the cluster's address.
    """
    folder, study, history = stored
    return about("tune --resume", folder, _more(study, history, state), *more, program=program)


def _more(study: StudySpec, history: History, state: str) -> str:
    """The budget to add so that it can continue."""
    if state == "finished":
        return "--trials +20"
    if state != "out of time":
        return ""
    limit = study.settings.budget.hours
    return "--hours +1" if limit and history.seconds >= 3600 * limit else "--worker-hours +1"
