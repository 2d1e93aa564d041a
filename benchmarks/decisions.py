"""What a search's decisions cost as it grows: a search of made-up scores is simulated, and its parts are timed.

Every epoch of every worker is folded into the history, and a worker that is free gets what the history decides. Nothing
is written and nothing is trained; the time of the play itself is left out. Times are of the processor, so that what
else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from figures import Plain, spread

from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.scheduling.asha import Job, NewTrial, first_job, next_decision
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.search.suggestion.sampler import Suggester

T = TypeVar("T")


class Stopwatch:
    """Seconds of the processor and calls by kind of work."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.own = 0.0
        """Seconds that timing one call takes; they are no part of what was timed."""
        for _ in range(10_000):
            self.time("nothing", lambda: None)
        self.own = self.seconds.pop("nothing") / self.calls.pop("nothing")

    def time(self, kind: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        done = work()
        self.seconds[kind] += time.process_time() - began - self.own
        self.calls[kind] += 1
        return done


class Play:
    """A search of `study` on virtual workers, from the first event to the last."""

    def __init__(self, study: StudySpec, workers: int) -> None:
        self.study, self.asha_config, self.workers = study, study.asha_config, workers
        self.history, self.suggester = History(study.recipe.epochs, study.goal), Suggester(study)
        self.watch, self.draw, self.now = Stopwatch(), random.Random(0), 0.0
        self.busy: list[tuple[float, int, Job, int]] = []
        """(when its next epoch ends, a number that tells equals apart, the job, that epoch)."""

    def run(self) -> Stopwatch:
        self.fold({"event": "begin", "versions": {}, "workers": self.workers, "fingerprint": "made up"})
        while True:
            while len(self.busy) < self.workers and self.hand_out():
                pass
            if not self.busy:
                return self.watch
            self.now, number, job, epoch = heapq.heappop(self.busy)
            self.fold(self.report(job, epoch))
            if epoch < job.end:
                self.work_on(number, job, epoch + 1)
            else:
                place = {"trial": job.trial, "start": job.start, "end": job.end}
                self.fold({"event": "job_end", **place, "status": "reached", "reason": ""})

    def hand_out(self) -> bool:
        """Whether there was something to do."""
        decision = self.watch.time("decision", lambda: next_decision(self.history, self.asha_config))
        if isinstance(decision, NewTrial):
            number = decision.number
            params, source = self.watch.time("suggestion", lambda: self.suggester.suggest(number, self.history))
            self.fold({"event": "trial", "trial": number, "params": params, "source": source})
            decision = first_job(self.history.trials[number], self.asha_config)
        if not isinstance(decision, Job):
            return False
        self.fold({"event": "job", "trial": decision.trial, "start": decision.start, "end": decision.end})
        self.work_on(self.watch.calls["event"], decision, decision.start + 1)
        return True

    def work_on(self, number: int, job: Job, epoch: int) -> None:
        heapq.heappush(self.busy, (self.now + self.draw.uniform(50.0, 150.0), number, job, epoch))

    def report(self, job: Job, epoch: int) -> Event:
        seconds = {f"seconds_{part}": 1.0 for part in ("attack", "update", "evaluation")}
        event: Event = {"event": "epoch", "trial": job.trial, "epoch": epoch, "is_rung": epoch == job.end, **seconds}
        if event["is_rung"]:
            # A trial is good or bad throughout, so that the rungs foretell the end.
            score = random.Random(job.trial).gauss(5000, 1000) + self.draw.gauss(20 * epoch, 300)
            event |= {"robust_correct_validation": int(score), "clean_correct_validation": 9000}
            event["total_validation"] = 10_000
        return event

    def fold(self, event: Event) -> None:
        event["time"] = self.now
        self.watch.time("event", lambda: self.history.apply(event))


WORKERS = 500


def decisions(options: argparse.Namespace) -> Plain:
    """Microseconds of each kind of work, and of all of it together for each event, by the number of trials."""
    Play(made_up_study(20, options.sampler), 4).run()  # what is imported at the first use is none of a search's costs
    return {str(trials): played(trials, options) for trials in options.many}


def played(trials: int, options: argparse.Namespace) -> Plain:
    study = made_up_study(trials, options.sampler)
    watches = [Play(study, WORKERS).run() for _ in range(options.repeats)]
    calls = dict(watches[0].calls)
    microseconds = {
        kind: spread([1e6 * watch.seconds[kind] / watch.calls[kind] for watch in watches]) for kind in calls
    }
    whole = [1e6 * sum(watch.seconds.values()) / watch.calls["event"] for watch in watches]
    return {"calls": calls, "microseconds": microseconds, "microseconds_an_event_in_all": spread(whole)}


def made_up_study(trials: int, sampler: str) -> StudySpec:
    return read_study(find_space("default"), [("budget.trials", trials), ("sampler.name", sampler)])
