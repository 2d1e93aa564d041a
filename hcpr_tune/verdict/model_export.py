"""Export the winner's model: its weights, the recipe to train it again, its metrics, and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hcpr_tune.common.files import write_json, write_whole
from hcpr_tune.errors import StorageError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.training.recipe import recipe_from_plain, recipe_to_toml
from hcpr_tune.verdict.decision.conclusion import best_model
from hcpr_tune.verdict.documents import model_card, verdict_md
from hcpr_tune.verdict.driver import training_name
from hcpr_tune.views.verdicts import read_verdict

WEIGHTS, RECIPE, METRICS, CARD = "model.safetensors", "recipe.toml", "metrics.json", "model_card.md"
PLAIN, WORDS = "verdict.json", "verdict.md"


def write_verdict(own: StudyFolder, plain: dict[str, Any], program: str) -> str:
    """Write verdict.json, verdict.md and the winner's model into the verdict's folder.

    Returns what is wrong with the model, if anything. `program`: the program's name in the commands that are shown.
    Raises `StorageError`.
    """
    plain |= whereabouts(own)
    try:
        wrong = plain["model_missing"] = write_model(own, plain, program)
        write_json(own.root / PLAIN, plain)
        write_whole(own.root / WORDS, verdict_md(plain, program))
        if own.bucket is not None:
            for name in (PLAIN, WORDS, WEIGHTS, RECIPE, METRICS, CARD):
                if (own.root / name).is_file():
                    own.bucket.upload(own.root / name, name)
    except OSError as error:
        raise StorageError(
            f"the verdict cannot be written to {own.root}: {error}; fix that, and run it again"
        ) from error
    return wrong


def retell(folder: StudyFolder, history: History, program: str) -> None:
    """Update verdict.json, verdict.md and the card, if they exist, with the accesses to the test images so far."""
    plain = read_verdict(folder.root)
    if plain is None or plain["test_accesses"] == history.test_accesses:
        return
    plain["test_accesses"] = history.test_accesses
    own = StudyFolder(folder.root / "verdict", None if folder.bucket is None else folder.bucket.child("verdict"))
    plain |= whereabouts(own)
    root, chosen = own.root, best_model(plain)
    written = {PLAIN: json.dumps(plain, indent=2) + "\n", WORDS: verdict_md(plain, program)}
    written |= {CARD: model_card(plain, chosen, program)} if chosen is not None and (root / CARD).is_file() else {}
    for name, text in written.items():
        write_whole(root / name, text)
        if own.bucket is not None:
            own.bucket.upload(root / name, name)


def whereabouts(own: StudyFolder) -> dict[str, str]:
    """The study's storage and the verdict's `own` folder, for the commands in the written files."""
    return {"storage": str(own.location.parent.parent), "folder": str(own.root)}


def write_model(own: StudyFolder, plain: Mapping[str, Any], program: str) -> str:
    """Write the winner's most robust model on validation, or delete an earlier one if there is no winner."""
    chosen = best_model(plain)
    for name in (WEIGHTS, RECIPE, METRICS, CARD):
        if chosen is None:
            (own.root / name).unlink(missing_ok=True)
    if chosen is None:
        return "" if plain["winner"] is None else "there is no model of the winner"
    wrong = own.checkpoint_store.copy_weights(training_name(chosen["id"]), chosen["epoch"], own.root / WEIGHTS)
    if wrong:
        (own.root / WEIGHTS).unlink(missing_ok=True)
        return f"the winner's weights: {wrong}; run it again to train them again"
    recipe = recipe_from_plain(chosen["recipe"] | {"seed": chosen["seed"]}, "the winner's recipe")
    write_whole(own.root / RECIPE, recipe_to_toml(recipe))
    write_json(own.root / METRICS, model_metrics(plain, chosen))
    write_whole(own.root / CARD, model_card(plain, chosen, program))
    return ""


def model_metrics(plain: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of this model, and the mean over the seeds of its recipe."""
    metrics: dict[str, Any] = {
        "model_inputs": plain["model_inputs"],
        "study": plain["study"],
        "study_fingerprint": plain["fingerprint"],
        "candidate": plain["winner"],
        "seed": chosen["seed"],
        "epoch_of_score": chosen["epoch"],
        "versions": plain["versions"],
    }
    for split, numbers in plain["splits"].items():
        of = numbers["candidates"].get(plain["winner"])
        if of is None:
            continue
        if chosen["seed"] in of["seeds"]:
            metrics[f"robust_accuracy_{split}"] = of["of_each_seed"][of["seeds"].index(chosen["seed"])]
        metrics[f"robust_accuracy_{split}_over_seeds"] = of["robust_accuracy"]
        metrics[f"clean_accuracy_{split}_over_seeds"] = of["clean_accuracy"]
        metrics[f"attacks_{split}"] = plain["attacks"][split]
    return metrics
