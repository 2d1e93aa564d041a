"""What a large search saturates first: the cost of each part, and its share of capacity at 100 to 10,000 GPUs.

python benchmarks/scale.py decisions     # folding an event, a decision, a suggestion, up to 100,000 trials
python benchmarks/scale.py driver        # reports per second of the real driver, without and with listeners
python benchmarks/scale.py waiting       # what Ray Tune's loop costs with so many workers to wait for
python benchmarks/scale.py record        # an event of the record, on this disk and in a bucket on loopback
python benchmarks/scale.py ask           # a suggestion of each sampler
python benchmarks/scale.py views         # an event of each view, files and bytes per trial, time until TensorBoard
python benchmarks/scale.py checkpoints   # bytes and seconds of a checkpoint, and the bandwidth that many workers need
python benchmarks/scale.py saturation    # the table, from the figures that the others left in --figures

Each command prints JSON, and leaves it in the folder --figures where one is given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from decisions import decisions
from driven import drive, driver
from figures import machine
from parts import ask, checkpoints, record, views, waiting
from saturation import saturation


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def parse(known: dict[str, object]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=known)
    parser.add_argument("--figures", type=Path, help="a folder for the JSON of each command")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--many", type=numbers, help="how many workers (driver, waiting) or trials (decisions, ask, views), with commas"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of `driver`: how long a search is measured")
    parser.add_argument(
        "--jobs", choices=("long", "short"), default="long", help="of `driver`: jobs of 100 epochs, or of 3, 6 and 18"
    )
    parser.add_argument("--sampler", default="random", help="of `driver` and `decisions`")
    parser.add_argument("--samplers", default="random,qmc,tpe,gp,nsgaii", help="of `ask`, with commas")
    parser.add_argument(
        "--recorded", type=int, default=0, help="of `driver`: made-up trials in the record before it begins"
    )
    parser.add_argument("--epoch-seconds", type=float, default=0.0, help="of `driver`: how long an epoch does nothing")
    parser.add_argument("--workers", type=int, default=8, help="of `drive`, one search of `driver` in this process")
    parser.add_argument("--listeners", action="store_true", help="of `drive`")
    parser.add_argument("--profile", type=Path, help="of `drive`: a file for what Python's profiler says")
    options = parser.parse_args()
    usual = {
        "decisions": "1000,10000,100000",
        "driver": "2,4,8,16,32,64",
        "waiting": "10,100,1000,10000",
        "ask": "10,100,1000,3000,10000",
        "views": "100,1000,10000",
    }
    options.many = options.many or numbers(usual.get(options.command, "0"))
    return options


def main() -> None:
    known = {
        "decisions": decisions,
        "driver": driver,
        "drive": drive,
        "waiting": waiting,
        "record": record,
        "ask": ask,
        "views": views,
        "checkpoints": checkpoints,
        "saturation": saturation,
    }
    options = parse(known)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    text = json.dumps({"machine": machine(), options.command: known[options.command](options)}, indent=1)
    if options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
        (options.figures / f"{options.command}.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
