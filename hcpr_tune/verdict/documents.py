"""verdict.md and the model card, from the plain values of a verdict."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hcpr_tune.common.shell import USUAL, command, option, study_command
from hcpr_tune.views.verdicts import (
    TABLE_TITLES,
    barred_words,
    p_words,
    percent,
    table_rows,
    verdict_lines,
    words_on_test_access,
)
from hcpr_tune.views.wording import counted, with_interval


def verdict_md(plain: Mapping[str, Any], program: str) -> str:
    """The whole verdict as Markdown."""
    parts = [
        f"# Verdict on {plain_text(plain['study'])}",
        "",
        *(f"{'  ' * line.startswith('  ')}- {plain_text(line)}" for line in verdict_lines(plain)),
        "",
        *_tables(plain),
        *_mcnemar(plain),
        *_optimism(plain),
        *_pairs(plain),
        *_doubts(plain),
        *_how(plain),
        *_test_accesses(plain),
        *_again(plain, program),
    ]
    return "\n".join(parts) + "\n"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(plain_text(cell).replace("|", "\\|") for cell in line) + " |" for line in lines] + [""]


def plain_text(text: str) -> str:
    """Text on one line of Markdown, with HTML escaped, which many viewers let through.

    Replaces what cannot be encoded, as folder names may contain any bytes.
    """
    return html.escape(" ".join(text.split()), quote=False).encode("utf-8", "replace").decode("utf-8")


def _tables(plain: Mapping[str, Any]) -> Iterator[str]:
    for split in ("test", "validation"):
        numbers = plain["splits"].get(split)
        if numbers is None:
            continue
        if not numbers["candidates"]:
            yield from (f"## On {split} images", "", "No image was attacked on all models.", "")
            continue
        yield f"## On {numbers['images']} {split} images"
        yield ""
        yield f"{plain['attacks'][split]}; mean and standard deviation over seeds."
        yield ""
        yield from table(TABLE_TITLES, table_rows(plain, split))
        if numbers["differences"]:
            yield (
                "Intervals at 95 % and p by a bootstrap over seeds (if there are several) and images;"
                " p adjusted by Holm for the comparisons of the table."
            )
            yield ""


def _mcnemar(plain: Mapping[str, Any]) -> Iterator[str]:
    for split in ("test", "validation"):
        found = plain["splits"].get(split, {}).get("mcnemar", {})
        of_baseline = found.get(plain["baseline"])
        if not of_baseline:
            continue
        yield f"## Model against model, {split} images"
        yield ""
        rows = [
            [str(one["seed"]), str(one["only_first"]), str(one["only_second"]), p_words(one["p"])]
            for one in of_baseline
        ]
        yield from table(
            ("seed", f"only {plain['winner']} survives", f"only {plain['baseline']} survives", "McNemar's p"), rows
        )


def _optimism(plain: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            one["name"],
            percent(one["optimism"]["search"]),
            percent(one["optimism"]["again"]),
            f"{one['optimism']['points']:+.1f}",
        ]
        for one in plain["candidates"]
        if one["optimism"] is not None
    ]
    if rows:
        yield "## How optimistic the search was"
        yield ""
        yield (
            "Robust accuracy on validation under the search's own attack: in the search, and as the mean of the models"
            " that were trained again."
        )
        yield ""
        yield from table(("candidate", "in the search", "trained again", "points too high"), rows)


def _pairs(plain: Mapping[str, Any]) -> Iterator[str]:
    split = "test" if plain["splits"].get("test", {}).get("pairs") else "validation"
    pairs = plain["splits"].get(split, {}).get("pairs", {})
    if "after" not in pairs:
        return
    yield f"## Worst classes and pairs, {split} images, means over the seeds"
    yield ""
    before, after = pairs.get("before"), pairs["after"]
    names = list(after["by_class"])
    rows = []
    for name in names:
        was = [with_interval(before["by_class"][name])] if before else []
        marks = " (worst)" if name == after["worst_class"] else ""
        rows.append([name + marks, *was, with_interval(after["by_class"][name])])
    yield from table(("class", *([f"{plain['baseline']}"] if before else []), str(plain["winner"])), rows)
    rows = [
        [f"{one['true']} taken for {one['taken_for']}", _pair_of(before, one), with_interval(one)]
        for one in after["hard_pairs"]
    ]
    yield from table(("hard pair, share of the class", str(plain["baseline"]), str(plain["winner"])), rows)


def _pair_of(before: Mapping[str, Any] | None, pair: Mapping[str, Any]) -> str:
    found = (
        one
        for one in (before or {}).get("hard_pairs", [])
        if one["true"] == pair["true"] and one["taken_for"] == pair["taken_for"]
    )
    one = next(found, None)
    return with_interval(one) if one else "not among its hardest"


def _doubts(plain: Mapping[str, Any]) -> Iterator[str]:
    yield "## Are the numbers reliable"
    yield ""
    bad = [one for one in plain["candidates"] if one["unreliable"]]
    for one in bad:
        name, reasons = plain_text(one["name"]), plain_text("; ".join(one["unreliable"]))
        yield f"- **{name} is unreliable and {barred_words(plain, one)}**: {reasons}."
    yield from () if bad else _unmasked(plain)
    yield ""


CHECKS = {
    "gradients": "10 against 50 steps, cross-entropy against the margin, and images without a gradient",
    "autoattack": "AutoAttack's own checks",
    "square": "Square after APGD",
    "transfer": "images attacked on another model",
}
"""The checks for masked gradients, by their names in `checked_images`."""


def _unmasked(plain: Mapping[str, Any]) -> Iterator[str]:
    """Which checks found nothing, on how many images, and which were not made."""
    checked = {one["name"]: one.get("checked_images", {}) for one in plain["candidates"] if one["models"]}
    images = {check: [of.get(check, 0) for of in checked.values()] for check in CHECKS}
    made = [
        f"{words} ({sum(images[check])} images)"
        for check, words in CHECKS.items()
        if images[check] and all(images[check])
    ]
    yield (
        f"No sign of masked gradients in {'; '.join(made)}."
        if made
        else "Unknown: no model was checked for masked gradients."
    )
    for check, words in CHECKS.items():
        left_out = [name for name, of in checked.items() if not of.get(check, 0)]
        if made and left_out:
            yield f"Not made on {plain_text(', '.join(left_out))}: {words}."


def _how(plain: Mapping[str, Any]) -> Iterator[str]:
    task = plain["task"]
    yield "## How it was done"
    yield ""
    yield (
        f"- Data: {plain_text(task['dataset'])}, split seed {task['split_seed']}; threat: {task['norm']} ball of radius"
        f" {task['epsilon']:g}, images in [0, 1]."
    )
    trained = [one for one in plain["candidates"] if not one["elsewhere"] and one["models"]]
    if trained:
        yield f"- Training: {plain['schedule']}. Seeds from {plain['seeds']['first']}, none of them the search's."
    if len(trained) > 1 and plain["winner"] is not None:
        yield (
            f"- The winner was chosen on validation by {counted(plain['seeds']['others'], 'seed')} of each candidate;"
            f" it and its baseline have {plain['seeds']['winner_and_baseline']}, including those."
        )
    attacks = [f"{split}: {words}" for split, words in plain["attacks"].items() if plain["splits"][split]["images"]]
    if attacks:
        yield f"- Attacks: {'; '.join(attacks)}; each on the images that survived the ones before."
    for one in plain["candidates"]:
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in one["params"].items()
        )
        yield plain_text(f"- {one['name']}: {values or 'see verdict.json'}")
    yield (
        f"- {plain['worker_seconds']:.0f} worker-seconds;"
        f" {', '.join(f'{name} {version}' for name, version in plain['versions'].items())}."
    )
    yield ""


def _test_accesses(plain: Mapping[str, Any]) -> Iterator[str]:
    yield "## The test images"
    yield ""
    yield words_on_test_access(plain["test_accesses"])
    for one in plain["test_accesses"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["time"]))
        seen = ", ".join(f"{name} {percent(value)}" for name, value in one.get("numbers", {}).items())
        yield f"- {when}: `{one['command']}`" + (f", which showed: {seen}" if seen else "")
    yield ""


def _again(plain: Mapping[str, Any], program: str) -> Iterator[str]:
    if is_elsewhere(plain):
        return
    yield "## Again"
    yield ""
    yield f"    {study_command('verdict', plain['study'], storage_of(plain), program=program)}"
    if plain["winner"] is not None and not plain.get("model_missing"):
        yield f"    {command('train', option('--recipe', f'{folder_of(plain)}/recipe.toml'), program=program)}"
    yield ""


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
    task, inputs = plain["task"], plain["model_inputs"]
    folder = folder_of(plain)
    export = study_command("export", plain["study"], storage_of(plain), "--onnx model.onnx", program=program)
    names = [plain_text(str(name)) for name in inputs.get("class_names", [])]
    height, width = inputs.get("image_size", ["?", "?"])
    lines = [
        f"# Model card: {plain_text(plain['study'])}, {plain_text(plain['winner'])}, seed {chosen['seed']}",
        "",
        _card_origin(plain, chosen),
        "",
        "## Data",
        "",
        f"{plain_text(task['dataset'])}: {inputs.get('channels')} x {height} x {width} pixels in [0, 1],"
        f" {inputs.get('classes')} classes ({', '.join(names[:20])}{', ...' if len(names) > 20 else ''}).",
        _card_training(plain),
        "",
        "## Threat model",
        "",
        f"An attacker who knows the model and changes each image within a {task['norm']} ball of radius"
        f" {task['epsilon']:g}. Other changes (larger, other norms, rotations, patches, corruptions) were not tried.",
        "",
        "## Numbers",
        "",
        *_card_numbers(plain, chosen),
        "",
        "## Limits",
        "",
        *_card_doubts(plain),
        f"- {words_on_test_access(plain['test_accesses'])}",
        "- Accuracy under a known attack is an upper bound: a stronger one may break more.",
        *(f"- {plain['attacks_replaced']}." for _ in range(bool(plain["attacks_replaced"]))),
        *_worst(plain),
        "",
        "## Use",
        "",
        "```python",
        "from hcpr_tune import load_model",
        "",
        f"model = load_model({json.dumps(folder, ensure_ascii=False)})"
        "  # images (B, C, H, W) in [0, 1] -> logits (B, K); eval mode",
        "```",
        "",
        "Files: `model.safetensors` (weights), `recipe.toml`"
        f" ({'its network' if is_elsewhere(plain) else 'how it was trained'}), `metrics.json`. As ONNX: `{export}`.",
        "",
        "## Attack it, or train it again",
        "",
        f"    {command('evaluate', option('--model', folder), '--attack autoattack', program=program)}",
        *(
            []
            if is_elsewhere(plain)
            else [f"    {command('train', option('--recipe', f'{folder}/recipe.toml'), program=program)}"]
        ),
        "",
        f"Made with {', '.join(f'{name} {version}' for name, version in plain['versions'].items())}.",
    ]
    return "\n".join(lines) + "\n"


def _card_origin(plain: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    network = chosen["recipe"]["model"]["name"]
    if is_elsewhere(plain):
        return f"An image classifier ({network}) that was trained elsewhere; how is not known here."
    return f"An image classifier ({network}), trained adversarially ({chosen['recipe']['method']})."


def _card_training(plain: Mapping[str, Any]) -> str:
    if is_elsewhere(plain):
        return "What it was trained on is not known here; it may include images that are for validation here."
    task = plain["task"]
    held_out = f"{100 * task['validation_fraction']:g} % held out for validation (split seed {task['split_seed']})"
    return f"Trained on the training part without the {held_out}."


def _card_doubts(plain: Mapping[str, Any]) -> Iterator[str]:
    of_winner = next((one for one in plain["candidates"] if one["name"] == plain["winner"]), None)
    if not is_elsewhere(plain) and of_winner is not None and len(of_winner["models"]) > 1:
        yield (
            "- Of the seeds of its recipe this is the most robust model on validation; on new images expect the mean"
            " over seeds."
        )
    for one in plain["candidates"]:
        if one["name"] == plain["winner"] and one["unreliable"]:
            yield f"- **Its numbers are unreliable**: {plain_text('; '.join(one['unreliable']))}."


def _card_numbers(plain: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    rows = []
    for split, numbers in plain["splits"].items():
        of = numbers["candidates"].get(plain["winner"])
        if of is None or chosen["seed"] not in of["seeds"]:
            continue
        robust, clean, place = of["robust_accuracy"], of["clean_accuracy"], of["seeds"].index(chosen["seed"])
        rows.append(
            [
                f"{numbers['images']} {split} images",
                percent(clean["per_seed"][place]),
                with_interval(of["of_each_seed"][place]),
                f"{percent(robust['mean'])} over {len(robust['per_seed'])} seed{'s' * (len(robust['per_seed']) > 1)}",
                plain["attacks"][split],
            ]
        )
    return table(("images", "clean accuracy", "robust accuracy (95 %)", "its recipe", "attacks"), rows)


def _worst(plain: Mapping[str, Any]) -> Iterator[str]:
    split = "test" if plain["splits"].get("test", {}).get("pairs") else "validation"
    after = plain["splits"].get(split, {}).get("pairs", {}).get("after")
    if after:
        worst = after["worst_class"]
        yield (
            f"- The weakest class of its recipe is {plain_text(worst)}: {with_interval(after['by_class'][worst])}"
            f" robust on {split} images."
        )
