"""A study's record as a log: a line of `key=value` for each event, with its time of day."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from hcpr_tune.search.record.events.fields import accuracies
from hcpr_tune.search.record.events.search import EpochEvent
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.terminal.event_log import EventLog, plain_line
from hcpr_tune.views.wording import brief, printable


class RecordLog:
    """Turns the events of a study, from the first one on, into lines."""

    def __init__(self, study: StudySpec) -> None:
        self._news = EventLog(study, History(study.recipe.epochs, study.goal))

    def of(self, event: Event, history: History) -> list[str]:
        """The lines of an event that `history` has folded."""
        clock = time.strftime("%H:%M:%S", time.localtime(event.get("time", history.heard)))
        return [f"{clock} {printable(line)}" for line in self._lines(event, history)]

    def _lines(self, event: Event, history: History) -> Iterator[str]:
        if event["event"] == "begin":
            where = f" host={event['host']}" if "host" in event else ""
            yield f"begin workers={event['workers']}{where}"
        elif event["event"] == "trial":
            yield f"trial={event['trial']} source={event['source']} {_values(event['params'])}".rstrip()
        elif event["event"] == "job":
            yield f"trial={event['trial']} epoch={event['start']} status=running until={event['end']}"
        elif event["event"] == "epoch":
            yield _epoch(event)
        elif event["event"] == "choice":
            yield f"choice trial={event['trial']}"
        elif event["event"] == "extend":
            yield f"extend {_values(event['budget'])}"
        elif event["event"] == "kill":
            yield f"trial={event['trial']} asked to end"
        elif event["event"] == "end":
            yield f"end reason={event['reason']}"
        for news in self._news.of(event, history):
            yield plain_line(news)


def _epoch(event: EpochEvent) -> str:
    words = [f"trial={event['trial']}", f"epoch={event['epoch']}", f"loss={event['loss']:.4f}"]
    if "total_validation" in event:
        words += [f"{name}={share:.4f}" for name, share in accuracies(event).items()]
    if event.get("worker"):
        words.append(f"worker={event['worker']}")
    return " ".join(words)


def _values(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={brief(value)}" for name, value in values.items())
