"""The page of a plan and its words: they say what was simulated, at any size, and the page opens in a real browser."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from hcpr_tune.views.plan_words import answer_lines, named, plan_lines, plan_table, short
from hcpr_tune.views.report.figures.plans import rungs
from hcpr_tune.views.report.plan_page import plan_html, write_plan_page
from tests.views.plans import plain_of, plan_of, results_of
from tests.views.test_report_browser import contrast, opened


@pytest.fixture(scope="module")
def plan():
    """Two variants, two repeats each."""
    vary = ("early_stopping.first_rung=3,9",)
    return plan_of(results_of(vary, ("budget.trials", 6), repeats=2), warnings=["some <b>warning</b>"])


def estimate(mean, low=None, high=None):
    return {"mean": mean, "low_95": mean if low is None else low, "high_95": mean if high is None else high}


def variant(name, hours=1.0, score=0.6, **more):
    """A result as `Played.to_plain` has it."""
    return {
        "variant": name,
        "workers": 4,
        "wall_clock_seconds": estimate(900 * hours),
        "worker_seconds": estimate(3600 * hours),
        "use": estimate(0.9),
        "driver_use": estimate(0.01),
        "score": estimate(score, score - 0.02, score + 0.02),
        "loss": estimate(0.01, 0.0, 0.02),
        "gain_over_base": estimate(score - 0.6, score - 0.61, score - 0.59),
        "trials": estimate(24),
        "epochs": estimate(240),
        "deaths": estimate(0),
        "checkpoint_bytes_kept": estimate(45e6),
        "checkpoint_bytes_written": estimate(1.5e9),
        "busy": ((0.0, 4), (450.0 * hours, 2), (900.0 * hours, 0)),
        "rungs": [],
        **more,
    }


def test_the_answer_says_what_to_take_why_and_what_it_saves():
    results = [
        variant("the unchanged space", 8.0),
        variant("epochs=9", 2.0, 0.57, gain_over_base=estimate(-0.03, -0.07, 0.01)),
    ]
    assert answer_lines(results, {"the unchanged space", "epochs=9"}, "epochs=9", "robust_accuracy") == [
        "Recommended: epochs=9. It takes 30 min on 4 workers (2 worker-hours). The trial that it chooses is expected to"
        " have a robust accuracy of 57.0 % (55.0 to 59.0), 1.0 points (0.0 to 2.0) less than the best of its trials"
        " would reach at full length.",
        "No variant is dominated by another. Of these, this one takes the fewest worker-hours among those that are not"
        " shown to score lower than the best.",
        "Compared with the unchanged space, it takes 1.5 h less wall-clock time (75 %) and 6 fewer worker-hours (75 %)."
        " Its score is 3.0 points lower (-7.0 to +1.0), which is no significant difference.",
    ]


def test_the_answer_may_be_to_leave_it_as_it_is():
    results = [variant("the unchanged space"), variant("epochs=9", 2.0), variant("seed=1", 1.5)]
    take, why = answer_lines(results, {"the unchanged space"}, "the unchanged space", "clean_accuracy")
    assert take.startswith(
        "Recommended: the unchanged space. It takes 15 min on 4 workers (1 worker-hours). The trial that it chooses is"
        " expected to have a clean accuracy of"
    )
    assert why == (
        "Each of the other 2 variants is dominated by one that costs less and is not shown to score lower, or that"
        " costs the same and is shown to score higher."
    )
    alone = answer_lines(results[:1], {"the unchanged space"}, "the unchanged space", "robust_accuracy")
    assert "the only variant" in alone[1]


def test_a_gain_within_its_interval_is_none():
    gain = {"gain_over_base": estimate(0.01, -0.01, 0.03)}
    results = [variant("the unchanged space"), variant("seed=1", 0.9, 0.61, **gain)]
    last = answer_lines(results, {"seed=1"}, "seed=1", "robust_accuracy")[-1]
    assert "Its score is 1.0 points higher (-1.0 to +3.0), which is no significant difference." in last


def test_the_table_fits_80_columns_with_the_names_below():
    names = [f"early_stopping.first_rung={one}, early_stopping.reduction_factor=2.5, workers=1024" for one in range(12)]
    results = [variant(name, 12345.6) for name in names]
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(plan_table(results, set(names[:3]), names[1]))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert not any("…" in line for line in lines)
    rows = [line for line in lines if "12,346" in line and "60.0 % (58.0 to 62.0)" in line]
    assert [row[0] for row in rows] == ["+", "*", "+", *" " * 9]
    assert [int(row[1:6]) for row in rows] == [*range(1, 13)]
    assert f"  12  {short(names[11])}" in lines
    assert short(names[0]) == "first_rung=0, reduction_factor=2.5, workers=1024"
    assert short("the unchanged space") == "the unchanged space"


def test_a_rung_is_told_in_a_line():
    rung = {
        "epoch": 3,
        "reached": 16,
        "stopped": 9,
        "saved_worker_seconds": 4320.0,
        "lost_the_best": 0.2,
        "correlation_with_truth": estimate(0.65, 0.47, 1.3),
        "correlation_measured": estimate(0.5, 0.4, 0.6),
        "stops": 0.75,
    }
    no_words = dict.fromkeys(("correlation_with_truth", "correlation_measured"))
    unknown = {**rung, "epoch": 9, "reached": 1, "stopped": 1, "stops": 1.0, **no_words}
    assert plan_lines([variant("seed=1", rungs=[rung, unknown])], "seed=1") == [
        "rung at epoch 3: 16 trials reach it, 9 are stopped there, which saves 1.2 worker-hours. Rank correlation of"
        " its scores with the true final scores: 0.65 (0.47 to 1.00); as the search estimates it: 0.50 (0.40 to 0.60),"
        " too low to stop trials in 25 % of the repeats. The best trial is stopped there in 20 % of the repeats.",
        "rung at epoch 9: 1 trial reaches it, 1 is stopped there, which saves 1.2 worker-hours. Rank correlation of"
        " its scores with the true final scores: unknown (too few trials); as the search estimates it: unknown (too few"
        " trials). The best trial is stopped there in 20 % of the repeats.",
    ]


def test_rungs_that_stop_nobody_are_said_to():
    rung = {"epoch": 3, "reached": 9, "stopped": 0, "saved_worker_seconds": 0.0, "lost_the_best": 0.0}
    of = {"rungs": [rung | {"correlation_with_truth": estimate(0.7)}]}
    assert "It stops no trial at any rung." in rungs([variant("seed=1", **of)], "seed=1").says
    of["rungs"][0]["stopped"] = 0.5
    assert "stops no trial" not in rungs([variant("seed=1", **of)], "seed=1").says


def test_the_page_says_what_was_played(plan):
    page = plan_html(plan)
    for one in plan.results:
        assert page.count(f'<td class="long">{one["variant"]}</td>') == 1
    assert page.count('<tr class="best">') == 1
    assert "some &lt;b&gt;warning&lt;/b&gt;" in page
    assert "The learning curves are a guess" in page
    assert "The learning curves are a guess" not in plan_html(replace(plan, guess=False))
    epochs = [rung["epoch"] for rung in named(plan.results, plan.chosen)["rungs"]]
    assert all(f"recommended, epoch {epoch}" in page for epoch in epochs)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the only variant"),
        ([("early_stopping.method", "none")], "There is only one rung: nothing is stopped early"),
    ],
)
def test_one_variant_and_no_rungs_make_a_page_too(given, said):
    results = results_of((), ("budget.trials", 2), *given, repeats=1)
    page = plan_html(plan_of(results))
    assert said in page
    assert "A single repeat has no intervals" in page
    assert plain_of(results)[0]["gain_over_base"]["mean"] == 0


def test_it_opens_on_a_phone_and_by_night_and_by_keyboard(plan, tmp_path, browser, artefacts):
    path = tmp_path / "plan.html"
    write_plan_page(path, plan)
    with opened(browser, path, width=400) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.locator(".plot .main-svg").count() > 0
        page.emulate_media(color_scheme="dark")
        for selector in ("body", ".dim", "nav a", "figcaption", "tr.best td", ".banner"):
            assert contrast(page, selector) >= 4.5, selector
        pictures = page.locator("[role=img]")
        assert pictures.count() == 3
        assert all(len(pictures.nth(place).get_attribute("aria-label")) > 100 for place in range(3))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#answer"
        page.get_by_role("button", name="worker-hours").press("Enter")
        seconds = page.eval_on_selector_all(
            "table.sortable tbody tr", "rows => rows.map(row => Number(row.cells[4].dataset.value))"
        )
        assert seconds == sorted(seconds)
        scrollable = page.locator(".wide")
        assert all(scrollable.nth(place).get_attribute("tabindex") == "0" for place in range(scrollable.count()))
        page.screenshot(path=artefacts / "plan-phone-dark.png", full_page=True)
    assert re.search(r"default-src 'none'", path.read_text(encoding="utf-8"))
