"""verdict.md and the model card say what the verdict's values say, and nothing in data becomes markup."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest

from hcpr_tune.cli import main as cli
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.training import manifest
from hcpr_tune.training.recipe import load_recipe
from hcpr_tune.verdict.decision.agenda import Task
from hcpr_tune.verdict.decision.conclusion import best_model, conclude
from hcpr_tune.verdict.documents import model_card, verdict_md
from hcpr_tune.verdict.driver import training_name
from hcpr_tune.verdict.model_export import whereabouts, write_verdict
from hcpr_tune.views.verdicts import difference_words, mean_words, p_words, percent, verdict_lines
from hcpr_tune.views.wording import with_interval
from tests.search.histories import history_of
from tests.verdict.facts import INPUTS, MASKED, Facts, candidate, judged, plan_of
from tests.verdict.test_agenda import carry_out

SHARES = {"a": 0.45, "b": 0.85, "published": 0.3, "twin": 0.85}
NAME = "<script>n|ne"


def plain_of(study, facts, **more):
    """A verdict's values as they are read from verdict.json."""
    return json.loads(json.dumps(conclude(study, history_of(), "x", facts.plan, facts.state))) | more


@pytest.fixture(scope="module")
def facts():
    """A verdict that came to its end, with the test images."""
    found = Facts(plan_of("a", "b", test=True, test_images=40, images=60, ablations=True), SHARES)
    found.opened(closed=False)
    carry_out(found)
    found.write("test_access_end")
    found.end()
    return found


@pytest.fixture
def plain(small_study, facts):
    seen = {"number": 1, "time": 0.0, "command": "hcpr_tune verdict x --test", "numbers": {"b": 0.75}}
    return plain_of(small_study, facts, test_accesses=[seen])


def section(document, title):
    """The text under a heading that begins so."""
    return re.split(r"^## ", document.partition(f"## {title}")[2], flags=re.M)[0]


def rows(text):
    """The cells of a section's tables, without the lines under the titles."""
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in found if set(line[0].strip()) != {"-"}]


def test_the_answer_stands_first_with_its_numbers(plain):
    text = verdict_md(plain, "hcpr_tune")
    numbers = plain["splits"]["test"]
    own, theirs = (numbers["candidates"][name]["robust_accuracy"] for name in ("b", "published"))
    first, second = text.splitlines()[2:4]
    attacks = "AutoAttack (apgd-ce, apgd-t, fab-t, square)"
    assert first == f"- b: robust accuracy {mean_words(own)} on 40 test images, under {attacks}."
    words = difference_words(numbers["differences"]["published"])
    assert second == f"  - compared with the published recipe, {mean_words(theirs)}: {words}."


def test_every_candidate_has_its_row_with_means_deviations_and_the_difference(plain):
    text = verdict_md(plain, "hcpr_tune")
    for split, count in (("test", 2), ("validation", 5)):
        numbers = plain["splits"][split]
        table = rows(section(text, f"On {numbers['images']} {split} images"))
        assert len(table) == 1 + count
        for name, robust, clean, difference, doubt in table[1:]:
            of = numbers["candidates"][name.removesuffix(" (winner)")]
            assert (robust, clean) == (mean_words(of["robust_accuracy"]), mean_words(of["clean_accuracy"]))
            assert name.endswith("(winner)") == (difference == "") == name.startswith("b ")
            assert difference == "" or difference == difference_words(numbers["differences"][name])
            assert doubt == ""


def test_no_significant_difference_stands_exactly_where_holms_p_is_5_per_cent_or_more(small_study):
    plan = plan_of("b", "twin", images=60)
    told = plain_of(small_study, judged(plan, SHARES))
    differences = told["splits"]["validation"]["differences"]
    assert {name: one["p_holm"] < 0.05 for name, one in differences.items()} == {
        name: "no significant difference" not in difference_words(one) for name, one in differences.items()
    }
    assert len({one["found"] for one in differences.values()}) == 2, "one is found, the other one is not"
    table = rows(section(verdict_md(told, "x"), "On 60 validation images"))
    said = {name: "no significant difference" in difference for name, _, _, difference, _ in table[1:] if difference}
    assert said == {name: one["p_holm"] >= 0.05 for name, one in differences.items()}


@pytest.mark.parametrize(("p", "found"), [(0.0499, True), (0.05, False), (0.9, False), (0.0002, True)])
def test_a_difference_has_its_interval_and_p(p, found):
    one = {"difference": 0.034, "low_95": -0.001, "high_95": 0.07, "p": 0.0001, "p_holm": p, "found": found, "seeds": 3}
    words = f"+3.4 points (-0.1 to +7.0, p {p_words(p)})"
    assert difference_words(one) == words + ("" if found else ", no significant difference")


def test_mcnemars_table_has_a_row_for_each_seed(plain):
    for split, seeds in (("test", ["1001", "1002", "1003"]), ("validation", ["1", "2", "3"])):
        table = rows(section(verdict_md(plain, "x"), f"Model against model, {split} images"))
        assert table[0] == ["seed", "only b survives", "only published survives", "McNemar's p"]
        assert table[1:] == [
            [str(one["seed"]), str(one["only_first"]), str(one["only_second"]), p_words(one["p"])]
            for one in plain["splits"][split]["mcnemar"]["published"]
        ]
        assert [row[0] for row in table[1:]] == seeds


def test_optimism_is_told_in_points_too_high(plain):
    table = rows(section(verdict_md(plain, "x"), "How optimistic the search was"))
    # All seeds of these models have the same score.
    assert ["b", "75.0 %", "85.0 %", "-10.0 (-10.0 to -10.0)"] in table
    assert ["a", "75.0 %", "45.0 %", "+30.0 (+30.0 to +30.0)"] in table
    line = next(line for line in verdict_lines(plain) if "In the search" in line)
    assert line == (
        "In the search, a scored 75.0 %; trained again, under the same attack, it scores 45.0 %. The search"
        " overestimated it by 30.0 points (+30.0 to +30.0)."
    )
    of_b = next(one for one in plain["candidates"] if one["name"] == "b")["optimism"]
    for one in plain["candidates"]:
        one["optimism"] = {**of_b, "low_95": -25.0, "high_95": 5.0} if one["name"] == "b" else None
    line = next(line for line in verdict_lines(plain) if "In the search" in line)
    assert line.endswith("it scores 85.0 %. The search underestimated it by 10.0 points (-5.0 to +25.0).")


def test_worst_classes_and_hard_pairs_have_their_shares(plain):
    pairs = plain["splits"]["test"]["pairs"]
    table = rows(section(verdict_md(plain, "x"), "Classes and hard pairs, test images"))
    worst = next(row for row in table if row[0].endswith("(worst)"))
    assert worst[2] == with_interval(pairs["after"]["by_class"][pairs["after"]["worst_class"]])
    hardest = pairs["after"]["hard_pairs"][0]
    assert any(
        row[0] == f"{hardest['true']} taken for {hardest['taken_for']}" and row[2] == with_interval(hardest)
        for row in table
    )


def test_terms_are_explained_where_they_are_used(plain):
    said = section(verdict_md(plain, "x"), "Terms")
    assert "- published recipe: the recipe from the paper of the method" in said
    assert "- AutoAttack: " in said
    assert ("- pace: " in said) == any(one["name"] == "pace 0" for one in plain["candidates"])
    without = plain | {"candidates": [one for one in plain["candidates"] if one["name"] != "pace 0"]}
    assert "- pace: " not in section(verdict_md(without, "x"), "Terms")


def test_openings_are_counted_with_what_they_showed(plain):
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(0.0))
    text = section(verdict_md(plain, "x"), "The test images")
    assert f"The test images were used once, on {when}." in text
    assert "`hcpr_tune verdict x --test`, which showed: b 75.0 %" in text
    again = plain | {"test_accesses": plain["test_accesses"] * 3}
    for document in (verdict_md(again, "x"), model_card(again, best_model(again), "x")):
        assert f"The test images were used 3 times, first on {when}" in document
    none = plain | {"test_accesses": []}
    for document in (verdict_md(none, "x"), model_card(none, best_model(none), "x")):
        assert "The test images were not used." in document


def test_unreliable_candidates_are_named_with_the_reasons(small_study):
    told = plain_of(small_study, judged(plan_of("a"), SHARES, masking=MASKED))
    text = verdict_md(told, "x")
    assert text.splitlines()[2] == "- No winner: no candidate has reliable numbers."
    for one in told["candidates"]:
        reasons = "; ".join(one["unreliable"])
        assert reasons.startswith("50 steps break 21.0 points more than 10")
        assert f"- **{one['name']} is unreliable and cannot win**: {reasons}." in section(
            text, "Are the numbers reliable"
        )
        assert f"- UNRELIABLE {one['name']} cannot win: {reasons}." in text
    assert {row[4] for row in rows(section(text, "On 40"))[1:]} == {"unreliable"}


def test_without_doubts_it_is_said_what_was_looked_at(plain):
    text = section(verdict_md(plain, "x"), "Are the numbers reliable")
    assert re.search(
        r"No sign of masked gradients in 10 steps compared with 50, .* \(\d+ images\); AutoAttack's own checks \(", text
    )
    assert "Unknown" not in text


def test_a_check_that_was_not_made_on_all_is_not_said_to_have_found_nothing(plain):
    one = next(one for one in plain["candidates"] if one["name"] == "a")
    one["checked_images"] |= {"transfer": 0}
    text = section(verdict_md(plain, "x"), "Are the numbers reliable")
    assert "images that were attacked on another model" not in text.partition("Not checked on")[0]
    assert "Not checked on a: images that were attacked on another model." in text


UNMEASURED = {
    "nothing was begun": lambda facts: None,
    "nothing was attacked": lambda facts: [facts.in_place(one) for one in facts.plan.candidates],
    "attacks failed": lambda facts: [
        facts.over(Task("attack", model, "validation", 0, "autoattack"), "failed", "RuntimeError: view size")
        for one in facts.plan.candidates
        for model in facts.in_place(one)
    ],
    "nothing could be trained": lambda facts: [
        (facts.model(model), facts.over(Task("train", model), "failed", "RuntimeError: out of memory"))
        for one in facts.plan.candidates
        for model in facts.plan.models(one, 2)
    ],
}


@pytest.mark.parametrize("what", UNMEASURED)
def test_nothing_is_claimed_of_what_was_not_measured(small_study, what, tmp_path):
    facts = Facts(plan_of("a", "b", test=True))
    UNMEASURED[what](facts)
    told = plain_of(small_study, facts)
    own = StudyFolder(tmp_path / "verdict")
    own.root.mkdir()
    write_verdict(own, told, "x")
    text = (own.root / "verdict.md").read_text(encoding="utf-8")
    for claim in (
        "No sign of",
        "On 0 ",
        "is more robust",
        "was chosen on validation",
        "Attacks:",
        "recipe.toml",
        "points",
    ):
        assert claim not in text, claim
    assert "No image was attacked on all models." in text
    first = text.splitlines()[2]
    assert first.startswith("- LOST" if "RuntimeError" in text else "- No winner"), first
    assert ("view size" in first) == (what == "attacks failed")
    assert sorted(path.name for path in own.root.iterdir() if path.is_file()) == ["verdict.json", "verdict.md"]


def test_a_baseline_without_numbers_is_not_passed_over(small_study):
    facts = Facts(plan_of("a"), SHARES)
    finalist = facts.plan.candidates[0]
    for model in facts.in_place(finalist):
        facts.attacked(model)
    told = plain_of(small_study, facts)
    assert told["winner"] == "a"
    assert (
        "  compared with the published recipe: unknown, because no model of it was attacked on these images."
        in verdict_lines(told)
    )


def test_a_winner_that_is_doubted_after_the_choice_is_not_said_to_be_unable_to_win(plain):
    winner = next(one for one in plain["candidates"] if one["name"] == "b")
    winner["unreliable"] = ["Square breaks much"]
    text = verdict_md(plain, "x")
    assert "**b is unreliable and was chosen before this was seen**: Square breaks much." in text
    assert "cannot win" not in text


def test_what_is_unfinished_says_why_and_what_is_lost_says_so(small_study):
    facts = Facts(plan_of("a", "b", worker_seconds=60.0), SHARES)
    carry_out(facts)
    facts.state.models[next(iter(facts.state.models))].lost = "the loss is not finite"
    told = plain_of(small_study, facts)
    assert not told["settled"]
    text = verdict_md(told, "x")
    assert "UNFINISHED its budget of 0.0166667 worker-hours is spent (verdict.worker_hours)" in text
    assert "LOST a, seed 1: the loss is not finite" in text


def test_an_interrupted_verdict_says_so(small_study):
    facts = Facts(plan_of("a"), SHARES)
    carry_out(facts, stop_after=8)
    facts.end("interrupted")
    assert "UNFINISHED it was interrupted" in verdict_md(plain_of(small_study, facts), "x")


def test_where_no_chunk_is_common_the_tables_say_so(small_study):
    text = verdict_md(plain_of(small_study, Facts(plan_of("a"))), "x")
    assert "No image was attacked on all models." in text
    assert "no model was trained and attacked" in text


@pytest.mark.parametrize("classes", [2, 3])
def test_replaced_attacks_are_named(small_study, classes):
    told = plain_of(small_study, judged(plan_of("a"), SHARES, classes=classes))
    assert "margin, fab, square" in told["attacks_replaced"]
    for document in (verdict_md(told, "x"), model_card(told, best_model(told), "x")):
        assert f"{classes} classes are too few" in document


def test_the_card_says_data_threat_numbers_limits_and_how_to_load(plain):
    chosen = best_model(plain)
    text = model_card(plain, chosen, "python hcpr_tune.py")
    test, validation = plain["splits"]["test"], plain["splits"]["validation"]
    table = {row[0]: row for row in rows(section(text, "Numbers"))}
    for split, numbers in (("test", test), ("validation", validation)):
        robust = numbers["candidates"]["b"]["robust_accuracy"]
        interval = f"({100 * robust['low_95']:.1f} to {100 * robust['high_95']:.1f})"
        row = table[f"{numbers['images']} {split} images"]
        assert row[3] == f"{percent(robust['mean'])} {interval} over 3 seeds"
    of = validation["candidates"]["b"]
    place = of["seeds"].index(chosen["seed"])
    row = table[f"{validation['images']} validation images"]
    assert row[1] == percent(of["clean_accuracy"]["per_seed"][place])
    assert row[2] == with_interval(of["of_each_seed"][place])
    # Fresh seeds are attacked on the test images, of which this is none.
    assert table[f"{test['images']} test images"][1:3] == ["not attacked", "not attacked"]
    assert "within a linf ball of radius 0.15" in text
    assert 'load_model("results/x/verdict")' in text
    assert "python hcpr_tune.py train --recipe results/x/verdict/recipe.toml" in text
    assert "The weakest class of its recipe is" in text


def test_the_model_to_take_away_withstands_most_on_validation(plain):
    of = plain["splits"]["validation"]["candidates"]["b"]["robust_accuracy"]["per_seed"]
    chosen = best_model(plain)
    assert of[chosen["seed"] - 1] == max(of)
    assert best_model(plain | {"winner": None}) is None


@pytest.mark.parametrize("document", ["verdict", "card"])
def test_nothing_in_data_becomes_markup_or_a_cell_of_its_own(small_study, document):
    evil = "x | <script>alert(1)</script>\n## y"
    mine = candidate(evil, "compared", params={"model.name": evil})
    plan = plan_of("a", more=[mine])
    told = plain_of(small_study, judged(plan, {"a": 0.5, evil: 0.4, "published": 0.3}))
    told["task"]["dataset"] = f"folder:{evil}"
    # A winner, a class and a reason with the same name.
    told = json.loads(json.dumps(told).replace('"a"', json.dumps(evil + "a")))
    told["candidates"][0] |= {"unreliable": [evil], "lost": [{"seed": 9, "reason": evil}]}
    text = verdict_md(told, "x") if document == "verdict" else model_card(told, best_model(told), "x")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "\n## y" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_class_that_looks_like_markup_is_in_both(plain):
    assert INPUTS["class_names"][-1] == NAME
    assert "&lt;script&gt;n\\|ne" in verdict_md(plain, "x")
    assert "&lt;script&gt;n|ne" in model_card(plain, best_model(plain), "x")


def write(folder, plain):
    """Written into a folder in which the winner's checkpoints lie."""
    own = StudyFolder(folder)
    chosen = best_model(plain)
    if chosen is not None:
        place = own.checkpoints / training_name(chosen["id"]) / f"epoch_{chosen['epoch']:04d}"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"weights")
        manifest.write(place)
    return own, chosen


def test_what_is_taken_away_is_written_whole(plain, tmp_path):
    own, chosen = write(tmp_path / "verdict", plain)
    assert write_verdict(own, plain, "x") == ""
    assert sorted(path.name for path in own.root.iterdir() if path.is_file()) == [
        "metrics.json",
        "model.safetensors",
        "model_card.md",
        "recipe.toml",
        "verdict.json",
        "verdict.md",
    ]
    assert load_recipe(own.root / "recipe.toml").seed == chosen["seed"]
    metrics = json.loads((own.root / "metrics.json").read_text())
    of = plain["splits"]["validation"]["candidates"]["b"]
    assert metrics["robust_accuracy_validation"] == of["of_each_seed"][of["seeds"].index(chosen["seed"])]
    on_test = plain["splits"]["test"]["candidates"]["b"]["robust_accuracy"]
    assert metrics["robust_accuracy_test_over_seeds"] == on_test
    assert "robust_accuracy_test" not in metrics, "the exported model was not attacked on the test images"
    assert json.loads((own.root / "verdict.json").read_text()) == plain


def test_damaged_weights_are_not_taken_away(plain, tmp_path):
    own, _ = write(tmp_path / "verdict", plain)
    for path in own.checkpoints.glob("*/*/model.safetensors"):
        path.write_bytes(b"wei")
    assert (
        write_verdict(own, plain, "x")
        == "the winner's weights: model.safetensors is cut off; run it again to train them again"
    )
    assert not (own.root / "model.safetensors").exists()
    assert (own.root / "verdict.md").is_file()


def test_where_nobody_wins_no_earlier_model_is_left(plain, tmp_path):
    own, _ = write(tmp_path / "verdict", plain)
    write_verdict(own, plain, "x")
    write_verdict(own, plain | {"winner": None, "baseline": None}, "x")
    left = sorted(path.name for path in own.root.iterdir() if path.is_file())
    assert left == ["verdict.json", "verdict.md"]


def test_class_names_that_are_no_text_are_written_as_they_can_be(plain, tmp_path):
    told = json.loads(json.dumps(plain).replace(json.dumps(NAME)[1:-1], "\\udcff"))
    own, _ = write(tmp_path / "verdict", told)
    assert write_verdict(own, told, "x") == ""
    assert (own.root / "verdict.md").read_text(encoding="utf-8")


def test_attacks_that_failed_are_told_of_once_for_each_reason(plain):
    jobs = {
        "attack a test 0 autoattack": "out of memory",
        "attack a test 1 autoattack": "out of memory",
        "train b": "diverged",
    }
    told = [line for line in verdict_lines(plain | {"failed_jobs": jobs}) if "attacks failed" in line]
    assert len(told) == 1
    assert told[0].endswith("out of memory")


def test_its_commands_find_the_study_where_it_lies(plain, tmp_path):
    own = StudyFolder(tmp_path / "my results" / "one" / "verdict")
    plain |= {"study": "one", **whereabouts(own)}
    assert plain["storage"] == str(tmp_path / "my results")
    text = verdict_md(plain, "hcpr_tune") + model_card(plain, best_model(plain), "hcpr_tune")
    found = re.findall(r"^    (hcpr_tune .*)$", text, re.M) + re.findall(r"`(hcpr_tune export .*?)`", text)
    read = [cli.parser().parse_args(shlex.split(line)[1:]) for line in found]
    by_command = {one.command: one for one in read}
    assert set(by_command) == {"verdict", "train", "evaluate", "export"}
    assert by_command["verdict"].storage == by_command["export"].storage == plain["storage"]
    assert by_command["evaluate"].model == str(own.root)
    assert by_command["train"].recipe == str(own.root / "recipe.toml")
    assert f'load_model("{own.root}")' in text
