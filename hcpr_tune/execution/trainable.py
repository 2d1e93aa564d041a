"""What a worker runs: it trains a job's recipe and reports each epoch. The process is reused for the next job."""

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
"""The key of a Ray result that holds the report as JSON: Ray would flatten nested dicts and cannot hold None."""

UNWRITABLE = "unwritable"
"""The status of a job whose checkpoint could not be stored: an error of the storage, not of the trial."""


class TrainJob(Trainable):  # type: ignore[misc]  # Ray is untyped
    """Trains one job at a time. Errors in training are reported, not raised.

    The configuration is {"job": JSON of {study, name, values, recipe, start, end, reported, checkpoints,
    checkpoint_every, gpus}}: `name` and `values` go into the worker's log, `reported` is the latest recorded epoch,
    `checkpoints` is a folder or a bucket's URL, `gpus` is the number of GPUs per trial.
    """

    def __repr__(self) -> str:
        """The process's name in Ray's dashboard. Ray asks for it only once, so it contains nothing about the job."""
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
        """Train one epoch, or report the end of the job."""
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
        # Any part of a report may contain text from user code that cannot be encoded.
        return {REPORT: json.dumps(encodable(report), allow_nan=False), "done": report["status"] != "training"}

    def cleanup(self) -> None:
        """Called when the process ends. The last process on a node deletes the shared images."""
        import gc

        from hcpr_tune.training.data.node_cache import release

        self._reports = self._shelf = None
        gc.collect()
        release(node_folder())

    def _end(self) -> None:
        """Release what the job held, including GPU memory, which other trials may share."""
        self._reports = None
        if "torch" in sys.modules:
            from hcpr_tune.training import gpu_memory

            gpu_memory.release()

    def _train(self) -> Iterator[dict[str, Any]]:
        """The job's epochs; the last one has the status `reached`."""
        # torch is imported late: the driver imports this module too, to ship the class.
        from hcpr_tune.search.storage.checkpoint_store import workspace
        from hcpr_tune.training import gpu_memory
        from hcpr_tune.training.recipe import recipe_from_plain
        from hcpr_tune.training.session import DataShelf, model_inputs, split_hashes, train_segment

        job = self._job
        # A trial without a GPU share still sees the GPUs.
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
    """Write one line to this process's log in Ray's dashboard, not to the driver's terminal. Ignores a full disk."""
    with suppress(OSError):
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(line)}\n")
        sys.stdout.flush()


def end_words(report: dict[str, Any]) -> str:
    """How a job ended: with its robust accuracy, or the reason if it did not reach its rung."""
    if report["status"] != "reached" or "robust_correct_validation" not in report:
        return f"{report['status']}: {report['reason']}".removesuffix(": ")
    return f"reached, robust accuracy {100 * report['robust_correct_validation'] / report['total_validation']:.1f} %"


def kept(action: Callable[[], Any]) -> Any:
    """Run `action`, which reads or writes checkpoints. Turns an `OSError` into a `StorageError`."""
    try:
        return action()
    except OSError as error:
        raise StorageError(
            f"checkpoints cannot be kept on {platform.node()}: {first_line(error)}; fix that, then go on with --resume"
        ) from error


def why_failed(error: Exception) -> str:
    """Why a training failed, with a hint where one is known."""
    if isinstance(error, Ended):
        return f"the model or the method {error}"
    if isinstance(error, ImportError):
        return f"{named(error)} (on {platform.node()}: each node needs the versions in constraints.txt)"
    from hcpr_tune.training.gpu_memory import out_of_memory

    return out_of_memory(error) or named(error)
