"""The driver of a real search, and the orders that its workers get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hcpr_tune.common.settings import to_plain
from hcpr_tune.search.record.history import History, Job
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder, recipe_of_job, training_name
from hcpr_tune.search.scheduling.driver import Surroundings
from hcpr_tune.search.scheduling.orders import TrainOrder
from hcpr_tune.search.scheduling.search_driver import SearchDriver
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.inbox import Inbox
from hcpr_tune.search.suggestion.sampler import Suggester


def search_driver(
    study: StudySpec, record: Record[History], folder: StudyFolder, workers: Callable[[], int], gpus: float = 0.0
) -> SearchDriver:
    """The driver that continues the search of `record`; `gpus`: the GPUs, or the share of one, of each worker."""
    history, inbox = record.history, Inbox(folder.objects)

    def order_of(job: Job, reported: int) -> TrainOrder:
        trial = history.trials[job.trial]
        training = training_name(trial, job.end, study.restarted)
        return {
            "kind": "train",
            "study": folder.root.name,
            # Includes the study, as a cluster may run several.
            "name": f"study {folder.root.name}: {job.name} (rung {job.end})",
            "values": values_words(trial.params),
            "recipe": to_plain(recipe_of_job(study, trial, job)),
            "gpus": gpus,
            "start": job.start,
            "end": job.end,
            "reported": reported,
            "checkpoints": folder.checkpoint_store.where(training),
            "checkpoint_every": study.settings.resources.checkpoint_every,
        }

    surroundings = Surroundings(record.append, record.clock, workers, lambda: inbox.take(study, history))
    return SearchDriver(study, history, Suggester(study), surroundings, order_of)


def values_words(params: Params) -> str:
    """A trial's values in one line. Names are shortened to their last part where that is unambiguous."""
    last = Counter(name.rpartition(".")[2] for name in params)
    short = {name: name.rpartition(".")[2] for name in params}
    named = {name if last[short[name]] > 1 else short[name]: value for name, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in named.items()
    )
