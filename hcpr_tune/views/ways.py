"""What to type next, as commands that work where they are read."""

from __future__ import annotations

import shlex
from pathlib import Path

from hcpr_tune.search.history import History
from hcpr_tune.search.results import StudyFolder
from hcpr_tune.search.study import Study

USUAL = Path("results")


def storage_option(folder: StudyFolder) -> str:
    """`--storage` for a study that does not lie in results/, else nothing."""
    if folder.bucket is not None:
        return f" --storage {shlex.quote(folder.bucket.url.rsplit('/', 1)[0])}"
    return "" if folder.root.parent == USUAL else f" --storage {shlex.quote(str(folder.root.parent))}"


def way_on(folder: StudyFolder, study: Study, history: History, state: str, program: str) -> str:
    """The command that goes on with a study that is not running; `state` is one of `standing.STATES`."""
    return (
        f"{program} tune --resume {shlex.quote(folder.root.name)}{storage_option(folder)}{_more(study, history, state)}"
    )


def _more(study: Study, history: History, state: str) -> str:
    """What it lacks to go on."""
    if state == "finished":
        return " --trials +20"
    if state != "out of time":
        return ""
    limit = study.settings.budget.hours
    return " --hours +1" if limit and history.seconds >= 3600 * limit else " --worker-hours +1"
