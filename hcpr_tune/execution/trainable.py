"""What a worker runs: it trains a job's recipe and reports each epoch. The process is reused for the next job."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from ray.tune import Trainable
from ray.util import get_node_ip_address

from hcpr_tune.common.files import node_folder
from hcpr_tune.common.text import clean, encodable, first_line, named, one_line, traceback_of
from hcpr_tune.errors import Diverged, InputError, StorageError
from hcpr_tune.search.scheduling.orders import (
    DIVERGED,
    REACHED,
    UNWRITABLE,
    EpochReport,
    Order,
    Report,
    TrainOrder,
    failed,
    read_order,
)
from hcpr_tune.training.plugins import Ended, guarded

if TYPE_CHECKING:
    from hcpr_tune.training.recipe import Recipe
    from hcpr_tune.training.session import DataShelf

REPORT = "report"
"""The key of a Ray result that holds the report as JSON: Ray would flatten nested dicts and cannot hold None."""


class TrainJob(Trainable):  # type: ignore[misc]  # Ray is untyped
    """Carries out one order at a time. Errors in training are reported, not raised.

    The configuration is {"job": the order as JSON}.
    """

    def __repr__(self) -> str:
        """The process's name in Ray's dashboard. Ray asks for it only once, so it contains nothing about the job."""
        return f"{self._study} worker {os.getpid()}"

    def setup(self, config: dict[str, Any]) -> None:
        self._shelf: DataShelf | None = None
        self._take(config)
        self._study = json.loads(self._text).get("study", "")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._text, self._name = config["job"], ""
        # Dropping the last job's generator frees its model before the next one is built.
        self._reports: Iterator[Report] | None = None

    def step(self) -> dict[str, Any]:
        """Train one epoch, or report the end of the job."""
        try:
            if self._reports is None:
                order = read_order(self._text)
                self._name = order["name"]
                log(f"{self._name}: {order['values']}")
                self._reports = self._carry_out(order)
            with guarded():  # a model may call sys.exit() in any epoch
                text = written(next(self._reports))
        except Diverged as error:
            text = written({"end": {"status": DIVERGED, "reason": clean(str(error))}})
        except StorageError as error:
            text = written({"end": {"status": UNWRITABLE, "reason": clean(f"on node {node_words()}: {error}")}})
        except Exception as error:
            end_if_broken(error, self._name)
            text = written(failed(why_failed(error), traceback_of(error)))
        report: Report = json.loads(text)
        if "end" in report:
            log(f"{self._name}: {end_words(report)}")
            self._end()
        return {REPORT: text, "done": "end" in report}

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

            if "torch._dynamo" in sys.modules:
                # A limit on compilations counts over jobs, and beyond it torch would run them uncompiled.
                sys.modules["torch._dynamo"].reset()
            gpu_memory.release()

    def _carry_out(self, order: Order) -> Iterator[Report]:
        """The job's reports, the last one with its end."""
        if order["kind"] != "train":
            raise ValueError(f"a search has no {order['kind']} jobs")
        yield from self._train(order)

    def _train(self, order: TrainOrder) -> Iterator[Report]:
        """The job's epochs; the last one has reached its end."""
        # torch is imported late: the driver imports this module too, to ship the class.
        from hcpr_tune.search.storage.checkpoint_store import workspace
        from hcpr_tune.training.session import model_inputs, split_hashes, train_segment

        recipe, shelf = self._ready(order)
        worker = f"{get_node_ip_address()}:{os.getpid()}"
        with workspace(order["checkpoints"]) as space:
            lost = kept(lambda: space.fetch(order["end"]))
            segment = order["start"], order["end"], order["reported"], order["checkpoint_every"]
            for epoch in train_segment(recipe, shelf, space.folder, *segment):
                kept(space.push)
                losses, lost = [*lost, *epoch.pop("losses")], []
                report: Report = {"epoch": cast(EpochReport, epoch | {"worker": worker}), "losses": losses}
                if epoch["epoch"] == order["end"]:
                    data = shelf.get(recipe.task)
                    hashes, inputs = split_hashes(data), model_inputs(data)
                    report["end"] = {"status": REACHED, "reason": "", "splits": hashes, "model_inputs": inputs}
                yield report

    def _ready(self, order: Order) -> tuple[Recipe, DataShelf]:
        """The order's recipe, and the shelf with the data, on the GPU if the job has a share of one."""
        from hcpr_tune.training import gpu_memory
        from hcpr_tune.training.recipe import recipe_from_plain
        from hcpr_tune.training.session import DataShelf

        # A trial without a GPU share still sees the GPUs.
        self._shelf = self._shelf or DataShelf(on_gpu=order["gpus"] > 0, cache=node_folder())
        gpu_memory.claim(self._shelf.device, order["gpus"])
        return recipe_from_plain(order["recipe"], "the job's recipe"), self._shelf


def end_if_broken(error: Exception, job: str) -> None:
    """End this process if its CUDA context is broken: in it every later job would fail. The job goes on in another."""
    if "torch" not in sys.modules:
        return
    from hcpr_tune.training.cuda_context import broken

    if reason := broken(error):
        log(f"{job}: {reason}; this process ends, and the job continues in another one")
        os._exit(1)  # an ordinary exit would wait for the GPU


def written(report: Report) -> str:
    """A report as JSON. Any part of it may contain text from user code that cannot be encoded."""
    return json.dumps(encodable(report), allow_nan=False)


def log(line: str) -> None:
    """Write one line to this process's log in Ray's dashboard, not to the driver's terminal. Ignores a full disk."""
    with suppress(OSError):
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(line)}\n")
        sys.stdout.flush()


def end_words(report: Report) -> str:
    """How a job ended: with its robust accuracy, or the reason if it did not reach its rung."""
    end, epoch = report["end"], report.get("epoch")
    if end["status"] != REACHED or epoch is None or "robust_correct_validation" not in epoch:
        return f"{end['status']}: {end['reason']}".removesuffix(": ")
    return f"reached, robust accuracy {100 * epoch['robust_correct_validation'] / epoch['total_validation']:.1f} %"


def kept(action: Callable[[], Any]) -> Any:
    """Run `action`, which reads or writes checkpoints. Turns an `OSError` and an unusable URL into a `StorageError`."""
    try:
        return action()
    except OSError as error:
        raise StorageError(
            f"checkpoints cannot be kept: {first_line(error)}; fix that, then continue with --resume"
        ) from error
    except InputError as error:  # of this node's environment: the driver uses the same URL
        raise StorageError(str(error)) from error


def node_words() -> str:
    """This node, for messages: its name and its address in the cluster."""
    return f"{platform.node()} ({get_node_ip_address()})"


def why_failed(error: Exception) -> str:
    """Why a training failed, with a hint where one is known."""
    if isinstance(error, Ended):
        return f"the model or the method {error}"
    if isinstance(error, ImportError):
        return f"{named(error)} (on {platform.node()}: each node needs the versions in constraints.txt)"
    from hcpr_tune.training.gpu_memory import out_of_memory

    return out_of_memory(error) or named(error)
