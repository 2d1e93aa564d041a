"""The share of its capacity that each part of a search needs at 100 to 10,000 GPUs, derived from the other commands.

Above 1 it is too small.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from figures import Plain

GPUS, EPOCH_SECONDS = (100, 1000, 10000), (10.0, 60.0, 600.0)
EPOCHS_A_TRIAL = 7.0
"""Of the default's rungs where each promotes a third: 3 epochs, a third go on to 9, a ninth to 27."""
EVENTS_A_TRIAL = EPOCHS_A_TRIAL + 1 + 2 * (1 + 1 / 3 + 1 / 9)
"""Its epochs, itself, and the beginning and the end of its jobs."""
STORES = {"1 GB/s": 1e9, "10 GB/s": 1e10}
REQUESTS_A_CHECKPOINT, REQUESTS_A_SECOND = 7, 3500
"""Of a checkpoint in a bucket: three files written, the manifest of an older one deleted, the rest of it listed and
deleted. What S3 says that it takes under one prefix; it splits busy ones."""
BUCKET_SECONDS = 0.03
"""A small write to S3 within its region, as its makers say (10 to 30 ms and more); the server on loopback is none."""


def saturation(options: argparse.Namespace) -> Plain:
    """The table, and which part is above 1 first in each case."""
    costs = measured(options.figures)
    table = []
    for gpus in GPUS:
        for seconds in EPOCH_SECONDS:
            shares = shares_of(gpus, seconds, costs)
            most = max(shares, key=lambda name: shares[name])
            table.append(
                {
                    "gpus": gpus,
                    "epoch_seconds": seconds,
                    "reports_per_second": gpus / seconds,
                    "fullest": most,
                    **shares,
                }
            )
    return {"costs": costs, "shares": table}


def measured(folder: Path) -> Plain:
    """What one report, one suggestion and one checkpoint cost."""
    read = {path.stem: json.loads(path.read_text(encoding="utf-8"))[path.stem] for path in folder.glob("*.json")}
    turns = {turn["waited_for"]: turn["cpu_seconds"]["median"] for turn in read["waiting"]["turns"]}
    listening = [one for one in read["driver"]["searches"] if one["listeners"]]
    asks: dict[str, Plain] = {}
    for one in read["ask"]["suggestions"]:
        if "seconds" in one:
            asks.setdefault(one["sampler"], {})[str(one["trials"])] = one["seconds"]["median"]
    return {
        "report_cpu_seconds": min(one["loop_cpu_seconds_per_report"]["median"] for one in listening),
        "waiting_cpu_seconds": turns,
        "event_seconds": read["record"]["folder"]["median"],
        "ask_seconds": asks,
        "checkpoint_bytes": {name: one["bytes"] for name, one in read["checkpoints"].items()},
    }


def shares_of(gpus: int, epoch_seconds: float, costs: Plain) -> dict[str, float]:
    reports = gpus / epoch_seconds
    events = reports * EVENTS_A_TRIAL / EPOCHS_A_TRIAL
    asks = reports / EPOCHS_A_TRIAL
    turns = costs["waiting_cpu_seconds"]
    waiting = turns[min(turns, key=lambda many: abs(many - gpus))] - turns[min(turns)]
    shares = {
        "driver": reports * (costs["report_cpu_seconds"] + waiting),
        "record, flushed": events * costs["event_seconds"],
        "record in a bucket, a request an event": events * BUCKET_SECONDS,
        "record in a bucket, epochs together": (1.0 + (events - reports - asks)) * BUCKET_SECONDS,
        "object store, checkpoint requests": reports * REQUESTS_A_CHECKPOINT / REQUESTS_A_SECOND,
    }
    for sampler, by_trials in costs["ask_seconds"].items():
        most = max(by_trials, key=int)
        shares[f"sampler {sampler}, {most} trials"] = asks * by_trials[most]
    for model, size in costs["checkpoint_bytes"].items():
        for store, bandwidth in STORES.items():
            shares[f"checkpoints of {model}, {store}"] = reports * size / bandwidth
    return {name: round(share, 4) for name, share in shares.items()}
