"""A verdict in the report and in few words; what is no verdict is none."""

from __future__ import annotations

import json
import re

import pytest

from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.verdict.decision.conclusion import conclude
from hcpr_tune.views.report.report import write_report
from hcpr_tune.views.verdicts import (
    VERDICT_JSON,
    difference_words,
    mean_words,
    read_verdict,
    short,
    table_rows,
    verdict_lines,
    words_on_test_access,
)
from tests.verdict.facts import MASKED, Facts, candidate, judged, plan_of
from tests.verdict.test_agenda import carry_out
from tests.views.recorded import history_like
from tests.views.test_report import Text

SHARES = {"a": 0.45, "b": 0.85, "published": 0.3}


@pytest.fixture(scope="module")
def study():
    return read_study(find_space("default"), [("budget.trials", 12)])


@pytest.fixture(scope="module")
def history(study):
    return history_like(study, 12)


def concluded(study, history, facts):
    return json.loads(json.dumps(conclude(study, history, "x", facts.plan, facts.state)))


@pytest.fixture
def plain(study, history):
    facts = Facts(plan_of("a", "b", test=True, test_images=20), SHARES)
    carry_out(facts)
    return concluded(study, history, facts)


def put(folder, plain):
    path = folder / VERDICT_JSON
    path.parent.mkdir(exist_ok=True)
    path.write_text(plain if isinstance(plain, str) else json.dumps(plain), encoding="utf-8")


def page_of(folder, study, history):
    return write_report(StoredStudy(StudyFolder(folder), study, history)).read_text(encoding="utf-8")


def test_a_verdict_is_read_as_it_was_written(plain, tmp_path):
    put(tmp_path, plain)
    assert read_verdict(tmp_path) == plain


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": 2}', '{"format": 1, "stu', "null", '"x"'])
def test_what_is_no_verdict_is_none(study, history, tmp_path, content):
    if content is not None:
        put(tmp_path, content)
    assert read_verdict(tmp_path) is None
    assert short(None) is None


def test_bytes_that_are_no_text_are_no_verdict(plain, tmp_path):
    put(tmp_path, plain)
    path = tmp_path / VERDICT_JSON
    path.write_bytes(b"\xff" + path.read_bytes())
    assert read_verdict(tmp_path) is None


def test_the_report_has_the_verdict_after_the_answer(study, history, plain, tmp_path):
    put(tmp_path, plain)
    page = page_of(tmp_path, study, history)
    text = Text(page)
    assert list(text.sections)[:4] == ["", "answer", "verdict", "alarms"]
    for line in verdict_lines(plain):
        assert line.strip() in text.sections["verdict"]
    for split in ("test", "validation"):
        for row in table_rows(plain, split):
            for cell in row:
                assert cell in text.sections["verdict"]
    assert len(set(text.ids)) == len(text.ids)
    assert 'href="#verdict"' in page


def test_without_a_verdict_there_is_no_such_section(study, history, tmp_path):
    put(tmp_path, '{"format": 99}')
    page = page_of(tmp_path, study, history)
    assert "verdict" not in Text(page).sections
    assert 'href="#verdict"' not in page


def test_the_page_stays_one_that_fetches_nothing(study, history, plain, tmp_path):
    put(tmp_path, plain)
    page = page_of(tmp_path, study, history)
    ours = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["']?(?!#|data:)[^\s"'>]+""", ours)
    assert "default-src 'none'" in page
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_nothing_in_a_verdict_becomes_markup(study, history, tmp_path):
    evil = "x|<script>alert(1)</script>"
    facts = judged(plan_of("a", more=[candidate(evil, "compared")]), SHARES | {evil: 0.4}, masking=MASKED)
    plain = concluded(study, history, facts)
    plain["candidates"][0]["lost"] = [{"seed": 3, "reason": evil}]
    plain["unfinished"] = evil
    put(tmp_path, plain)
    page = page_of(tmp_path, study, history)
    assert "<script>alert" not in page
    assert page.count("</script>") == 4
    assert f"UNRELIABLE   {evil} cannot win" in Text(page).sections["verdict"]


def test_the_lines_begin_with_the_answer_and_end_with_the_openings(plain):
    lines = verdict_lines(plain)
    numbers = plain["splits"]["test"]
    own = mean_words(numbers["candidates"]["b"]["robust_accuracy"])
    assert lines[0].startswith(f"b: robust accuracy {own} on 20 test images, under AutoAttack")
    assert lines[1] == (
        f"  compared with the published recipe, {mean_words(numbers['candidates']['published']['robust_accuracy'])}:"
        f" {difference_words(numbers['differences']['published'])}."
    )
    assert lines[-1] == words_on_test_access(plain["test_accesses"]) == "The test images were not used."


def test_a_published_recipe_that_wins_is_said_first(study, history):
    lines = verdict_lines(concluded(study, history, judged(plan_of("a", "b"), SHARES | {"published": 0.95})))
    assert lines[0] == "No finalist is more robust than the published recipe."
    assert lines[1].startswith("published: robust accuracy 9")
    assert lines[1].endswith(" on 40 validation images, under AutoAttack's first two attacks (apgd-ce, apgd-t).")
    assert lines[2].startswith("  compared with b, ")


def test_fewer_images_than_there_are_are_told(study, history):
    facts = Facts(plan_of("a", "b"), SHARES)
    for one in facts.plan.candidates:
        for model in facts.in_place(one):
            facts.attacked(model)
    assert " on 20 of the 40 validation images, " in verdict_lines(concluded(study, history, facts))[0]


def test_in_short_it_is_who_wins_and_by_how_much(plain):
    assert short(plain) == {
        "size": "full",
        "settled": True,
        "winner": "b",
        "baseline": "published",
        "winner_minus_baseline": {
            split: plain["splits"][split]["differences"]["published"] for split in ("validation", "test")
        },
    }


def test_one_seed_has_no_deviation():
    assert mean_words({"mean": 0.5, "standard_deviation": None, "per_seed": [0.5]}) == "50.0 % (one seed)"
    words = mean_words({"mean": 0.5, "standard_deviation": 0.0123, "per_seed": [0.5] * 3})
    assert words == "50.0 % ± 1.2 (3 seeds)"


ODD = {
    "no winner said": lambda plain: plain.pop("winner"),
    "splits are a list": lambda plain: plain.update(splits=[]),
    "a mean is text": lambda plain: plain["splits"]["validation"]["candidates"]["b"].update(robust_accuracy="much"),
    "a candidate has no name": lambda plain: plain["candidates"][0].pop("name"),
    "an opening has no time": lambda plain: plain.update(test_accesses=[{"number": 1}]),
}


@pytest.mark.parametrize("what", ODD)
def test_a_verdict_that_was_changed_by_hand_is_none(plain, tmp_path, what):
    ODD[what](plain)
    put(tmp_path, plain)
    assert read_verdict(tmp_path) is None
    assert short(read_verdict(tmp_path)) is None


def test_half_a_character_in_a_verdict_is_escaped(plain, tmp_path):
    put(tmp_path, plain | {"unfinished": "\udce4"})
    assert read_verdict(tmp_path)["unfinished"] == "\\udce4"
