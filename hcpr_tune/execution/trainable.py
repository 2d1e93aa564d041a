"""The work on a worker: a job becomes a recipe, is trained, and each epoch is reported. The process is reused for the next job."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable
from ray.util import get_node_ip_address

from hcpr_tune.common.files import node_folder
from hcpr_tune.common.text import clean, encodable, first_line, named, one_line, traceback_of
from hcpr_tune.errors import Diverged, StorageError
from hcpr_tune.training.plugins import Ended, guarded

if TYPE_CHECKING:
    from hcpr_tune.training.session import DataShelf

REPORT = "report"
"""The key of a Ray result that holds what is reported, as JSON: Ray would flatten a table and cannot hold None."""

UNWRITABLE = "unwritable"
"""The status of a job whose checkpoint could not be kept: the fault of the storage, not of the trial."""


class TrainJob(Trainable):  # type: ignore[misc]  # Ray is untyped
    """Trains one job at a time. What goes wrong in training is reported, not raised: Ray retries only the death of a process.

    The configuration is {"job": JSON of {study, name, values, recipe, start, end, reported, checkpoints,
    checkpoint_every, gpus}}: `name` and `values` say in
    the worker's log what runs, `reported` is the latest epoch that is known, `checkpoints` a folder or a bucket's URL, `gpus` the trial's
    share of GPUs.
    """

    def __repr__(self) -> str:
        """What Ray's dashboard calls the process and its tasks. Ray asks once, so it names nothing that changes with the job."""
        return f"{self._job['study']} worker {os.getpid()}"

    def setup(self, config: dict[str, Any]) -> None:
        self._shelf: DataShelf | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._job = json.loads(config["job"])
        # Dropping the last job's generator frees its model before the next one is built.
        self._reports: Iterator[dict[str, Any]] | None = None

    def step(self) -> dict[str, Any]:
        """One epoch, and with the last one the end of the job."""
        try:
            if self._reports is None:
                log(f"{self._job['name']}: {self._job['values']}")
                self._reports = self._train()
            with guarded():  # a model may call sys.exit() in any epoch
                report = next(self._reports)
        except Diverged as error:
            report = {"status": "diverged", "reason": clean(str(error))}
        except StorageError as error:
            report = {"status": UNWRITABLE, "reason": clean(str(error))}
        except Exception as error:
            report = {"status": "failed", "reason": why_failed(error), "traceback": traceback_of(error)}
        if report["status"] != "training":
            log(f"{self._job['name']}: {end_words(report)}")
            self._end()
        # A report is recorded for good, and there may be somebody's text in any part of it.
        return {REPORT: json.dumps(encodable(report), allow_nan=False), "done": report["status"] != "training"}

    def cleanup(self) -> None:
        """The process ends. The last one on a node that held shared images deletes them."""
        import gc

        from hcpr_tune.training.data.node_cache import release

        self._reports = self._shelf = None
        gc.collect()
        release(node_folder())

    def _end(self) -> None:
        """Give back what the job held; on a GPU its memory too, for whoever shares it."""
        self._reports = None
        if "torch" in sys.modules:
            from hcpr_tune.training import gpu_memory

            gpu_memory.release()

    def _train(self) -> Iterator[dict[str, Any]]:
        """The job's epochs; the last one has the status `reached`."""
        # torch comes late: the driver imports this module too, to ship the class.
        from hcpr_tune.search.storage.checkpoint_store import workspace
        from hcpr_tune.training import gpu_memory
        from hcpr_tune.training.recipe import recipe_from_plain
        from hcpr_tune.training.session import DataShelf, model_inputs, split_hashes, train_segment

        job = self._job
        # A trial that was given no GPU sees them all the same.
        self._shelf = self._shelf or DataShelf(on_gpu=job["gpus"] > 0, cache=node_folder())
        gpu_memory.claim(self._shelf.device, job["gpus"])
        recipe = recipe_from_plain(job["recipe"], "the job's recipe")
        worker = f"{get_node_ip_address()}:{os.getpid()}"
        with workspace(job["checkpoints"]) as space:
            lost = kept(lambda: space.fetch(job["end"]))
            segment = job["start"], job["end"], job["reported"], job["checkpoint_every"]
            for report in train_segment(recipe, self._shelf, space.folder, *segment):
                kept(space.push)
                report |= {"worker": worker, "losses": lost + report["losses"]}
                lost = []
                if report["epoch"] < job["end"]:
                    yield report | {"status": "training"}
                else:
                    data = self._shelf.get(recipe.task)
                    more = {"splits": split_hashes(data), "model_inputs": model_inputs(data)}
                    yield report | {"status": "reached", "reason": "", **more}


def log(line: str) -> None:
    """One line for this process's page in Ray's dashboard; the driver's terminal shows none of it. A full disk is no fault of the job."""
    with suppress(OSError):
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(line)}\n")
        sys.stdout.flush()


def end_words(report: dict[str, Any]) -> str:
    """How a job ended, with what it reached or why it did not."""
    if report["status"] != "reached" or "robust_correct_validation" not in report:
        return f"{report['status']}: {report['reason']}".removesuffix(": ")
    return f"reached, robust accuracy {100 * report['robust_correct_validation'] / report['total_validation']:.1f} %"


def kept(action: Callable[[], Any]) -> Any:
    """What brings checkpoints from the storage or to it: the fault of a disk is none of the trial."""
    try:
        return action()
    except OSError as error:
        raise StorageError(
            f"checkpoints cannot be kept on {platform.node()}: {first_line(error)}; mend that, then go on by --resume"
        ) from error


def why_failed(error: Exception) -> str:
    """Why a training failed, with the way out where it is known."""
    if isinstance(error, Ended):
        return f"the model or the method {error}"
    if isinstance(error, ImportError):
        return f"{named(error)} (on {platform.node()}: each node needs the versions in constraints.txt)"
    from hcpr_tune.training.gpu_memory import out_of_memory

    return out_of_memory(error) or named(error)
