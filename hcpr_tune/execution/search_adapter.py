"""The search's Ray Tune adapter: asks the scheduler for jobs, and passes reports on to it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from hcpr_tune.common.settings import to_plain
from hcpr_tune.errors import StorageError
from hcpr_tune.execution.capacity import Capacity
from hcpr_tune.execution.ray_tune import Halt, RayTuneAdapter
from hcpr_tune.execution.trainable import UNWRITABLE
from hcpr_tune.search.record.history import Event, History, Job
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder, recipe_of_job, training_name
from hcpr_tune.search.scheduling.scheduler import Scheduler
from hcpr_tune.search.spec.space import Params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.inbox import Inbox
from hcpr_tune.search.suggestion.sampler import Suggester


class SearchAdapter(RayTuneAdapter[Job]):
    """Runs what the scheduler decides; each decision is recorded before the worker starts."""

    def __init__(self, study: StudySpec, record: Record[History], folder: StudyFolder, capacity: Capacity) -> None:
        super().__init__()
        self._study, self._record, self._folder, self._capacity = study, record, folder, capacity
        self._scheduler = Scheduler(study, record.history, Suggester(study), self._write, record.clock)
        self._inbox = Inbox(folder.objects)

    def look(self) -> None:
        for request, name in self._inbox.take(self._study, self._record.history):
            if request["kind"] == "stop":
                self.halt = Halt(None)
            else:
                self._scheduler.request(request, name)
        self._scheduler.has(self._capacity.now())

    def has_room(self) -> bool:
        return len(self.jobs) < self._record.history.workers

    def next_work(self) -> Job | Literal["wait", "finished"]:
        return self._scheduler.next_work()

    def hand_out(self, work: Job) -> dict[str, Any]:
        """Record that the job begins, and return what its worker needs to know."""
        reported = self._scheduler.begin(work)
        trial = self._record.history.trials[work.trial]
        recipe = recipe_of_job(self._study, trial, work)
        return {
            "study": self._folder.root.name,
            "name": self._name(work),
            "values": values_words(trial.params),
            "recipe": to_plain(recipe),
            "start": work.start,
            "end": work.end,
            "reported": reported,
            "checkpoints": self._folder.checkpoint_store.where(
                training_name(work.trial, work.end, self._study.restarted)
            ),
            "checkpoint_every": self._study.settings.resources.checkpoint_every,
            "gpus": self._capacity.share.gpus_per_trial,
        }

    def _name(self, job: Job) -> str:
        """The job's name in Ray and in the worker's log; includes the study, as a cluster may run several."""
        return f"study {self._folder.root.name}: {job.name} (rung {job.end})"

    def take(self, work: Job, report: dict[str, Any]) -> None:
        self._scheduler.take(work, report, ends=report["status"] not in ("training", UNWRITABLE))

    def died(self, work: Job) -> None:
        self._scheduler.died(work)

    def broken_off(self, work: Job) -> bool:
        return self._scheduler.broken_off(work)

    def _write(self, event: Event) -> None:
        if self.halt is not None:
            raise StorageError("the search has ended")
        self._record.append(event)


def values_words(params: Params) -> str:
    """A trial's values in one line. Names are shortened to their last part where that is unambiguous."""
    last = Counter(name.rpartition(".")[2] for name in params)
    short = {name: name.rpartition(".")[2] for name in params}
    named = {name if last[short[name]] > 1 else short[name]: value for name, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in named.items()
    )
