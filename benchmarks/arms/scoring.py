"""What the final choice of an arm is worth: trained again on fresh seeds, under standard AutoAttack on the test images.

Nothing is chosen by these numbers; they are the benchmark's measure only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

from shared import Plain, make_pool

SEEDS = (900_001, 900_002, 900_003)
"""Of the trainings that are scored, the same for all arms; searches use 0, 1, 2, ... and what they derive from it."""
Key = tuple[str, int]


def key_of(choice: Plain, seed: int) -> Key:
    """Equal choices with equal seeds are one training."""
    return json.dumps(choice, sort_keys=True), seed


def missing(runs: Sequence[Plain], scores: Sequence[Plain]) -> list[tuple[Plain, int]]:
    """The (choice, seed) that no score is known of yet, each once."""
    known = {key_of(score["choice"], score["seed"]) for score in scores}
    found: dict[Key, tuple[Plain, int]] = {}
    for run in runs:
        for seed in SEEDS if run["choice"] is not None else ():
            key = key_of(run["choice"], seed)
            if key not in known:
                found.setdefault(key, (run["choice"], seed))
    return list(found.values())


def score_all(todo: Sequence[tuple[Plain, int]], workers: int, images: int, found: Callable[[Plain], None]) -> None:
    """Score every (choice, seed) on a pool; `found` takes each score as it comes. `images`: as for `true_score`."""
    if not todo:
        return
    with make_pool(workers) as pool:
        running = {pool.submit(true_score, choice, seed, images) for choice, seed in todo}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    found(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def true_score(choice: Plain, seed: int, images: int = 0) -> Plain:
    """Train one choice on one seed and attack it: counts on the test images, and whether it collapsed.

    A training that diverges has collapsed: its counts are 0. `images`: only so many test images, for a try; 0: all.
    """
    from dataclasses import replace

    from arms.trainer import data_of
    from hcpr_tune.api.evaluate import evaluate_model
    from hcpr_tune.common.collapse import has_collapsed
    from hcpr_tune.errors import Diverged
    from hcpr_tune.training.data.heldout import open_test
    from hcpr_tune.training.loop import initial_state, train
    from hcpr_tune.training.recipe import recipe_from_plain

    recipe = replace(recipe_from_plain(choice, "choice"), seed=seed)
    data, test = data_of(recipe.task), open_test(recipe.task)
    state = initial_state(recipe, data)
    score: Plain = {"choice": choice, "seed": seed, "total": images or len(test)}
    try:
        for _ in train(recipe, data, state):
            pass
    except Diverged:
        return score | {"clean_correct": 0, "robust_correct": 0, "collapsed": True}
    found = evaluate_model(state.scored_model(), recipe, "autoattack", "test", images)
    clean = found.clean.count
    largest = int(test.labels.bincount().max()) * found.clean.total // len(test)
    collapsed = has_collapsed(clean, found.clean.total, largest)
    return score | {"clean_correct": clean, "robust_correct": found.robust.count, "collapsed": collapsed}
