"""Searches of three spaces decide, suggest, score and train, to the bit, as in `tests/reference/searches.json`.

To write it again, after a change that is meant to change results: `python -m tests.search.test_reference_searches`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.training.loop import torch_threads
from tests.search.one_worker import arithmetic, search, summary

REFERENCE = Path(__file__).parent.parent / "reference" / "searches.json"
CASES = [(space, seed) for space in ("default", "wide", "pareto") for seed in range(3)]
SHORT = [("default", 0), ("wide", 1), ("pareto", 2)]
"""What `make test` plays; `make test-faults` plays them all."""
SMALL = (
    ("budget.trials", 12), ("sampler.startup_trials", 4), ("recipe.epochs", 8), ("early_stopping.first_rung", 2),
    ("early_stopping.reduction_factor", 2), ("early_stopping.calibration", 2), ("recipe.batch_size", 256),
    ("recipe.model.width", 2), ("recipe.attack.steps", 2), ("recipe.evaluation.steps", 3),
)  # fmt: skip


def played(space: str, seed: int, folder: Path) -> dict[str, Any]:
    with torch_threads(1):
        return summary(search(read_study(find_space(space), [("seed", seed), *SMALL]), folder, space))


@pytest.mark.parametrize(
    ("space", "seed"), [case if case in SHORT else pytest.param(*case, marks=pytest.mark.long) for case in CASES]
)
def test_a_search_is_what_it_was(space, seed, tmp_path):
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    found = json.loads(json.dumps(played(space, seed, tmp_path)))
    expected = reference["searches"][f"{space} {seed}"]
    if arithmetic() != reference["arithmetic"]:
        # Only what no training has decided.
        first = next(at for at, event in enumerate(expected["events"]) if event[0] == "epoch")
        assert found["events"][:first] == expected["events"][:first]
        pytest.skip("this machine's processor rounds differently from the one that the reference was written on")
    assert found == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        searches = {f"{space} {seed}": played(space, seed, Path(scratch) / str(seed)) for space, seed in CASES}
    text = json.dumps({"arithmetic": arithmetic(), "searches": searches}, separators=(",", ":"))
    REFERENCE.write_text(text.replace('["trial"', '\n["trial"') + "\n", encoding="utf-8")
    sys.stderr.write(f"{REFERENCE}: {REFERENCE.stat().st_size} bytes\n")
