"""verdict.md and the model card, from the plain values of a verdict; their texts are in `templates`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from hcpr_tune.common.shell import USUAL, command, option, study_command
from hcpr_tune.verdict.plan import PACE_0
from hcpr_tune.views.templates import markdown_environment
from hcpr_tune.views.terms import terms
from hcpr_tune.views.verdicts import (
    SPLITS,
    TABLE_TITLES,
    barred_words,
    optimism_words,
    p_words,
    percent,
    smallest_words,
    table_rows,
    verdict_lines,
    words_on_test_access,
)
from hcpr_tune.views.wording import counted, with_interval

MOST_CLASSES = 20
"""The most classes that a card names."""


def verdict_md(plain: Mapping[str, Any], program: str) -> str:
    """The whole verdict as Markdown."""
    return _render(
        "verdict",
        {
            **{name: plain[name] for name in ("study", "winner", "baseline")},
            "lines": [(line.startswith("  "), line) for line in verdict_lines(plain)],
            "titles": TABLE_TITLES,
            "splits": [_split(plain, split) for split in SPLITS if split in plain["splits"]],
            "mcnemar": list(_mcnemar(plain)),
            "optimism": _optimism(plain),
            "pairs": _pairs(plain),
            "unreliable": [
                (one["name"], barred_words(plain, one), "; ".join(one["unreliable"]))
                for one in plain["candidates"]
                if one["unreliable"]
            ],
            "checks": _checks(plain),
            "how": list(_how(plain)),
            "test_access": words_on_test_access(plain["test_accesses"]),
            "test_accesses": [_test_access(one) for one in plain["test_accesses"]],
            "terms": terms(_terms(plain)),
            "again": list(_again(plain, program)),
        },
    )


def _terms(plain: Mapping[str, Any]) -> Iterator[str]:
    """The terms that a verdict explains."""
    yield from ("published recipe", "robust accuracy", "AutoAttack")
    if any(one["name"] == PACE_0 for one in plain["candidates"]):
        yield "pace"


def _render(template: str, values: Mapping[str, Any]) -> str:
    return markdown_environment("hcpr_tune.verdict").get_template(f"{template}.md.jinja2").render(values)


def _split(plain: Mapping[str, Any], split: str) -> dict[str, Any]:
    numbers = plain["splits"][split]
    return {
        "name": split,
        "images": numbers["images"],
        "attacks": plain["attacks"][split],
        "rows": table_rows(plain, split),
        "compared": bool(numbers["differences"]),
    }


def _mcnemar(plain: Mapping[str, Any]) -> Iterator[tuple[str, list[list[Any]]]]:
    """The winner's models against the baseline's with the same seeds, for each split."""
    for split in SPLITS:
        found = plain["splits"].get(split, {}).get("mcnemar", {}).get(plain["baseline"])
        if found:
            yield split, [[one["seed"], one["only_first"], one["only_second"], p_words(one["p"])] for one in found]


def _optimism(plain: Mapping[str, Any]) -> list[list[str]]:
    return [
        [one["name"], percent(optimism["search"]), percent(optimism["again"]), optimism_words(optimism)]
        for one in plain["candidates"]
        if (optimism := one["optimism"]) is not None
    ]


def _pairs(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """Robust accuracy by class, and the hardest pairs of classes, of the baseline (if it is known) and the winner."""
    split = "test" if plain["splits"].get("test", {}).get("pairs") else "validation"
    pairs = plain["splits"].get(split, {}).get("pairs", {})
    if "after" not in pairs:
        return None
    before, after = pairs.get("before"), pairs["after"]
    return {
        "split": split,
        "titles": ["class", *([plain["baseline"]] if before else []), plain["winner"]],
        "classes": [
            [
                name + (" (worst)" if name == after["worst_class"] else ""),
                *([with_interval(before["by_class"][name])] if before else []),
                with_interval(accuracy),
            ]
            for name, accuracy in after["by_class"].items()
        ],
        "hard": [
            [f"{one['true']} taken for {one['taken_for']}", _pair_of(before, one), with_interval(one)]
            for one in after["hard_pairs"]
        ],
    }


def _pair_of(before: Mapping[str, Any] | None, pair: Mapping[str, Any]) -> str:
    found = (
        one
        for one in (before or {}).get("hard_pairs", [])
        if one["true"] == pair["true"] and one["taken_for"] == pair["taken_for"]
    )
    one = next(found, None)
    return with_interval(one) if one else "not among its hardest pairs"


CHECKS = {
    "gradients": "10 steps compared with 50, cross-entropy with the margin, and images without a gradient",
    "autoattack": "AutoAttack's own checks",
    "square": "the Square attack after APGD",
    "transfer": "images that were attacked on another model",
}
"""The checks for masked gradients, by their names in `checked_images`."""


def _checks(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Which checks were made on all trained candidates, on how many images, and which were left out for some."""
    checked = {one["name"]: one.get("checked_images", {}) for one in plain["candidates"] if one["models"]}
    images = {check: [of.get(check, 0) for of in checked.values()] for check in CHECKS}
    made = [
        f"{words} ({sum(images[check])} images)"
        for check, words in CHECKS.items()
        if images[check] and all(images[check])
    ]
    left_out = [
        (", ".join(names), words)
        for check, words in CHECKS.items()
        if made and (names := [name for name, of in checked.items() if not of.get(check, 0)])
    ]
    return {"made": "; ".join(made), "left_out": left_out}


def _how(plain: Mapping[str, Any]) -> Iterator[str]:
    task = plain["task"]
    yield (
        f"Data: {task['dataset']}, split seed {task['split_seed']}; threat: {task['norm']} ball of radius"
        f" {task['epsilon']:g}, images in [0, 1]."
    )
    trained = [one for one in plain["candidates"] if not one["elsewhere"] and one["models"]]
    if trained:
        seeds = f"Seeds from {plain['seeds']['first']} on, none of which the search has used"
        if plain["seeds"].get("of_the_search"):
            seeds = "The seeds are those on which the search trained these recipes again"
        yield f"Training: {plain['schedule']}. {seeds}."
    if len(trained) > 1 and plain["winner"] is not None:
        yield (
            f"The winner was chosen on validation, with {counted(plain['seeds']['others'], 'seed')} of each candidate;"
            f" the winner and its baseline have {counted(plain['seeds']['winner_and_baseline'], 'seed')}, including"
            " these."
        )
    for split, numbers in plain["splits"].items():
        if numbers["smallest_difference"] is not None and numbers["differences"]:
            seeds = plain["seeds"]["winner_and_baseline"]
            yield f"Power: {smallest_words(split, numbers['images'], seeds, numbers['smallest_difference'])}."
    if plain["splits"].get("test", {}).get("images"):
        yield "Test images: attacked on models of further seeds, by which nothing was chosen."
    attacks = [f"{split}: {words}" for split, words in plain["attacks"].items() if plain["splits"][split]["images"]]
    if attacks:
        yield f"Attacks: {'; '.join(attacks)}; each on the images that survived the attacks before it."
    for one in plain["candidates"]:
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in one["params"].items()
        )
        yield f"{one['name']}: {values or 'see verdict.json'}"
    yield f"{plain['worker_seconds']:.0f} worker-seconds; {_versions(plain)}."


def _versions(plain: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in plain["versions"].items())


def _test_access(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """When the test images were used, by which command, and what it showed."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["time"]))
    return when, one["command"], ", ".join(f"{name} {percent(of)}" for name, of in one.get("numbers", {}).items())


def _again(plain: Mapping[str, Any], program: str) -> Iterator[str]:
    """The commands that make the verdict, and its model, again."""
    if is_elsewhere(plain):
        return
    yield study_command("verdict", plain["study"], storage_of(plain), program=program)
    if plain["winner"] is not None and not plain.get("model_missing"):
        yield command("train", option("--recipe", f"{folder_of(plain)}/recipe.toml"), program=program)


def storage_of(plain: Mapping[str, Any]) -> str:
    """The study's storage, as given to `--storage`."""
    return str(plain.get("storage", USUAL))


def folder_of(plain: Mapping[str, Any]) -> str:
    """The folder of the verdict and its model on this machine."""
    return str(plain.get("folder", f"{USUAL}/{plain['study']}/verdict"))


def is_elsewhere(plain: Mapping[str, Any]) -> bool:
    """Whether the winner is an external model."""
    return any(one["elsewhere"] for one in plain["candidates"] if one["name"] == plain["winner"])


def model_card(plain: Mapping[str, Any], chosen: Mapping[str, Any], program: str) -> str:
    """The exported model's card: data, threat model, numbers, limits, how to load it and how to train it again."""
    inputs, folder, study = plain["model_inputs"], folder_of(plain), plain["study"]
    names, (height, width) = inputs.get("class_names", []), inputs.get("image_size", ["?", "?"])
    of_winner = next((one for one in plain["candidates"] if one["name"] == plain["winner"]), None)
    return _render(
        "model_card",
        {
            **{name: plain[name] for name in ("study", "winner", "task", "attacks_replaced")},
            "seed": chosen["seed"],
            "network": chosen["recipe"]["model"]["name"],
            "method": chosen["recipe"].get("method"),
            "elsewhere": is_elsewhere(plain),
            "inputs": {name: inputs.get(name) for name in ("channels", "classes")} | {"height": height, "width": width},
            "class_names": ", ".join([*map(str, names[:MOST_CLASSES]), *["..."] * (len(names) > MOST_CLASSES)]),
            "numbers": list(_card_numbers(plain, chosen)),
            "several_seeds": not is_elsewhere(plain) and of_winner is not None and len(of_winner["models"]) > 1,
            "unreliable": "; ".join(of_winner["unreliable"]) if of_winner is not None else "",
            "test_access": words_on_test_access(plain["test_accesses"]),
            "worst": _worst(plain),
            "folder_literal": json.dumps(folder, ensure_ascii=False),
            "commands": {
                "export": study_command("export", study, storage_of(plain), "--onnx model.onnx", program=program),
                "evaluate": command("evaluate", option("--model", folder), "--attack autoattack", program=program),
                "train": command("train", option("--recipe", f"{folder}/recipe.toml"), program=program),
            },
            "versions": _versions(plain),
        },
    )


def _card_numbers(plain: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[list[str]]:
    for split, numbers in plain["splits"].items():
        of = numbers["candidates"].get(plain["winner"])
        if of is None:
            continue
        robust, clean, own = of["robust_accuracy"], of["clean_accuracy"], ["not attacked", "not attacked"]
        if chosen["seed"] in of["seeds"]:
            index = of["seeds"].index(chosen["seed"])
            own = [percent(clean["per_seed"][index]), with_interval(of["of_each_seed"][index])]
        low, high = 100 * robust["low_95"], 100 * robust["high_95"]
        seeds = counted(len(robust["per_seed"]), "seed")
        recipe = f"{percent(robust['mean'])} ({low:.1f} to {high:.1f}) over {seeds}"
        yield [f"{numbers['images']} {split} images", *own, recipe, plain["attacks"][split]]


def _worst(plain: Mapping[str, Any]) -> dict[str, str] | None:
    """The class of the winner with the lowest robust accuracy."""
    split = "test" if plain["splits"].get("test", {}).get("pairs") else "validation"
    after = plain["splits"].get(split, {}).get("pairs", {}).get("after")
    if not after:
        return None
    name = after["worst_class"]
    return {"name": name, "accuracy": with_interval(after["by_class"][name]), "split": split}
