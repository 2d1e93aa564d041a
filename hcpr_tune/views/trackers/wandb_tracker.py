"""A search in Weights & Biases: the runs of the study and its trials form a group."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hcpr_tune.common.files import write_json
from hcpr_tune.errors import InputError
from hcpr_tune.views.trackers.tracked import STUDY, Point, Run

PROJECT = "hcpr_tune"
MARK = "hcpr_tune.json"
"""File in a run's local folder: its last step and state when it was closed."""
FINISH_SECONDS = 10.0
"""Time to upload the rest when a run is closed; anything left stays on disk for `wandb sync`."""
LOST = ("diverged", "failed", "storage")
"""The states that count as failed in W&B."""


class WandbTracker:
    """A run's id is derived from study and trial, so that it is found again. Only runs of running jobs are open.

    In offline mode (WANDB_MODE=offline) a run cannot be resumed, so its local folder is rewritten.
    """

    def __init__(self, folder: Path, study: Run) -> None:
        self._wandb = quiet_wandb()
        settings = self._wandb.setup().settings
        self._offline = settings.mode in ("offline", "dryrun")
        self._local = Path(settings.wandb_dir)
        self._open: dict[str, Any] = {}
        self._steps: dict[str, int] = {}

    def has(self, run: Run, steps: int, state: str) -> bool:
        return any(_read(one / MARK) == _mark(steps, state) for one in self._folders(run))

    def open(self, run: Run, points: Sequence[Point]) -> None:
        if run.key not in self._open:
            if self._offline:
                for folder in self._folders(run):
                    shutil.rmtree(folder)
            self._open[run.key] = self._init(run)
            self._steps[run.key] = self._open[run.key].starting_step - 1
        for point in points:
            self.add(run, point)

    def add(self, run: Run, point: Point) -> None:
        if point.step > self._steps[run.key]:
            self._open[run.key].log(point.values, step=point.step)
            self._steps[run.key] = point.step

    def end(self, run: Run, state: str, time: float) -> None:
        opened = self._open.pop(run.key)
        opened.summary["state"] = state
        folder = Path(opened.settings.sync_dir)
        opened.finish(exit_code=int(state in LOST))
        if folder.is_dir():
            write_json(folder / MARK, _mark(self._steps[run.key], state))

    def close(self) -> None:
        """Close all open runs, even if some fail: W&B's threads would complain at exit about a run left open."""
        errors = []
        for opened in self._open.values():
            try:
                opened.finish()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _init(self, run: Run) -> Any:
        settings = self._wandb.Settings(
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
        )
        return self._wandb.init(
            project=project(),
            group=run.study,
            job_type="study" if run.key == STUDY else "trial",
            id=_id(run),
            name=run.name,
            config={**run.params, **run.tags},
            tags=[f"{name} {value}"[:64] for name, value in run.tags.items()],
            resume=None if self._offline else "allow",
            reinit="create_new",
            settings=settings,
        )

    def _folders(self, run: Run) -> list[Path]:
        """The run's local folders from earlier sessions."""
        return sorted(self._local.glob(f"{'offline-run' if self._offline else 'run'}-*-{_id(run)}"))


def _id(run: Run) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', run.study)[:60]}-{run.identity}-{run.key}"


def _mark(steps: int, state: str) -> dict[str, Any]:
    return {"steps": steps, "state": state}


def _read(path: Path) -> Any:
    """A mark, or None if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def quiet_wandb() -> Any:
    """Import wandb with its output and error reporting turned off."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    return importlib.import_module("wandb")


def check_wandb() -> None:
    """Raises `InputError` if W&B would ask for a key in the middle of the search."""
    wandb = quiet_wandb()
    if wandb.setup().settings.mode in ("online", "shared", "run") and not wandb.login(prompt=False, verify=False):
        raise InputError(
            "--log-to wandb: there is no key for W&B; `wandb login` first, or set WANDB_API_KEY, or WANDB_MODE=offline"
            " for `wandb sync` later"
        )


def project() -> str:
    """The project that the runs belong to."""
    return os.environ.get("WANDB_PROJECT") or PROJECT
