"""Run a verdict: hold the study's lease, keep the verdict's record, and run the jobs on Ray Tune."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from hcpr_tune.common.files import sweep, write_bytes_whole
from hcpr_tune.common.shell import typed
from hcpr_tune.errors import MovedOn
from hcpr_tune.execution.connection.capacity import Capacity, Share
from hcpr_tune.execution.runner import NAMED_VERSIONS, driver_facts, ending, run_on_ray
from hcpr_tune.search.record.events.verdict import VerdictBeginEvent, VerdictEvent
from hcpr_tune.search.record.record import Hearing, Record
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.record.segments import Segments, read_segments
from hcpr_tune.search.scheduling.driver import Surroundings
from hcpr_tune.search.storage.inbox import Inbox, clear_stops
from hcpr_tune.search.storage.lease import Lease
from hcpr_tune.verdict.adoption import adopt
from hcpr_tune.verdict.curves import Curves
from hcpr_tune.verdict.decision.conclusion import conclude
from hcpr_tune.verdict.decision.statement import reached
from hcpr_tune.verdict.driver import VerdictDriver
from hcpr_tune.verdict.model_export import retell, write_verdict
from hcpr_tune.verdict.plan import Plan
from hcpr_tune.verdict.state import FORMAT, State, read_state
from hcpr_tune.verdict.test_access import OpenTest, write_test_numbers

FOLDER = "verdict"
"""Inside the study's folder."""
MORE_NAMED = ("pyautoattack", "safetensors")


def verdict_folder(folder: StudyFolder) -> StudyFolder:
    """The verdict's folder or bucket, inside the study's."""
    return StudyFolder(folder.root / FOLDER, None if folder.bucket is None else folder.bucket.child(FOLDER))


def known_state(folder: StudyFolder) -> State:
    """The results so far. Raises `InputError` for the record of another version."""
    own = verdict_folder(folder)
    if own.bucket is not None and (data := read_segments(own.bucket)):
        own.root.mkdir(parents=True, exist_ok=True)
        write_bytes_whole(own.record, data)
    return read_state(own.record)


def carry_out(
    study: StoredStudy,
    plan: Plan,
    share: Share,
    command: str,
    listeners: Sequence[Hearing[VerdictEvent, State]] = (),
) -> dict[str, Any]:
    """Run `plan` on the connected Ray, continuing from what is recorded. Writes the results and returns them.

    `command`: the user's command, to record with a test access. Raises `Interrupted`, `StorageError`, `InputError` if
    another process holds the lease, and `MovedOn` if another process has written to the record since `study` was read.
    """
    folder, spec, history = study
    own, most, program = verdict_folder(folder), spec.settings.resources.workers, typed("hcpr_tune")
    with ExitStack() as stack:
        lease = Lease(folder.objects, folder.address)
        stack.callback(lease.close)
        if history.bytes_read and folder.record_bytes() != history.bytes_read:
            raise MovedOn(f"{folder.address} was just changed by another process; start again")
        history.bytes_read = 0  # from here on only this process writes it
        sweep(own.root)
        clear_stops(folder.objects)
        state = known_state(folder)
        own.root.mkdir(parents=True, exist_ok=True)
        segments = None if own.bucket is None else Segments(own.bucket, lease.check)
        record = stack.enter_context(Record(own.record, state, [*listeners, Curves(own.root)], segments, lease.check))
        # However the verdict ends, the written files say how often the test images were seen.
        stack.callback(retell, folder, history, program)
        record.append(_begin(share.workers, record.clock()))
        open_test = OpenTest(folder, history, record, lease, command)
        if plan.search_seeds:
            adopt(study, own, plan, record)
        with ending(record):
            # Imported late, so that Ray is loaded only if something is trained or attacked.
            from hcpr_tune.execution.verdict_trainable import VerdictJob

            capacity, inbox = Capacity(share, most), Inbox(folder.objects)
            surroundings = Surroundings(record.append, record.clock, capacity.now, inbox.stops)
            store, gpus = own.checkpoint_store, share.gpus_per_trial
            driver = VerdictDriver(plan, state, surroundings, study.name, store, open_test, gpus)
            run_on_ray(f"{study.name}-verdict", driver, VerdictJob, share, most)
        return settle(study, plan, record, program)


def settle(study: StoredStudy, plan: Plan, record: Record[State], program: str) -> dict[str, Any]:
    """Write the conclusion, and close a test access once everything it was for has been attacked."""
    folder, spec, history = study
    state = record.history
    plain = conclude(spec, history, study.name, reached(plan, state), state)
    if plain["settled"] and plan.test and state.test_accesses and not state.test_accesses[-1]["ended"]:
        candidates = plain["splits"]["test"]["candidates"]
        numbers = {name: one["robust_accuracy"]["mean"] for name, one in candidates.items()}
        write_test_numbers(folder, history, state.test_accesses[-1]["number"], numbers)
        plain["test_accesses"] = history.test_accesses
        record.append({"event": "test_access_end", "time": record.clock()})
    write_verdict(verdict_folder(folder), plain, program)
    return plain


def _begin(workers: int, time: float) -> VerdictBeginEvent:
    facts = driver_facts((*NAMED_VERSIONS, *MORE_NAMED))
    return {"event": "begin", "format": FORMAT, "time": time, "workers": workers, **facts}
