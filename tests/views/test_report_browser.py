"""The report in a real browser: no failures, no requests, legible on a phone and in the dark, by mouse and keyboard."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager

import pytest

from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.views.report.figures import FIGURES
from hcpr_tune.views.report.report import write_report
from tests.views.recorded import history_like

pytestmark = pytest.mark.browser

STUDIES = {
    "none": (0, {}, "none"),
    "one": (1, {}, "one"),
    "many": (200, {}, "many"),
    "failed": (12, {"lost": 1.0}, "failed"),
    "running": (16, {"running": 3}, "running"),
    "escaped": (12, {}, "<img src=x onerror=alert(1)> & <script>alert(2)"),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Study, history and page of each kind, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            trials, more, name = STUDIES[kind]
            study = read_study(find_space("default"), [("budget.trials", max(1, trials))])
            history = history_like(study, trials, **more)
            root = tmp_path_factory.mktemp("reports") / name
            root.mkdir()
            made[kind] = (
                study,
                history,
                write_report(StoredStudy(StudyFolder(root), study, history), alive="running" in more),
            )
        return made[kind]

    return get


@contextmanager
def opened(browser, path, width=1200, scheme="light"):
    """The page when all is drawn; afterwards nothing must have failed, and nothing been asked for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-drawn]", timeout=60_000)
        yield page
        assert said == []
        assert asked == [path.as_uri()]
    finally:
        page.close()


@pytest.fixture(scope="module")
def shown(reports, browser):
    """The pages by day, each opened once: drawing them takes most of the time."""
    pages = {}
    with ExitStack() as stack:

        def get(kind):
            if kind not in pages:
                pages[kind] = stack.enter_context(opened(browser, reports(kind)[2]))
            return pages[kind]

        yield get


@pytest.mark.parametrize("kind", STUDIES)
def test_every_study_opens_without_an_error_or_a_request(kind, reports, shown, artefacts):
    _, history, _ = reports(kind)
    page = shown(kind)
    drawn = page.locator(".plot .main-svg").count()
    assert page.locator("section h2").count() >= 3 + len(FIGURES)
    assert drawn > 0
    assert page.locator("table.sortable tbody tr").count() == len(history.trials)
    best = history.best_trial
    if best is not None:
        assert f"Trial {best.number}: {100 * best.score:.1f} %" in page.locator("#answer .lead").inner_text()
    page.screenshot(path=artefacts / f"report-{kind}.png", full_page=True)


@pytest.mark.parametrize("kind", [pytest.param("many", marks=pytest.mark.long), "escaped"])
def test_a_phone_needs_no_sideways_scrolling(kind, reports, browser, artefacts):
    with opened(browser, reports(kind)[2], width=360, scheme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.screenshot(path=artefacts / f"report-{kind}-phone-dark.png", full_page=True)


def contrast(page, selector):
    """The contrast of a text with the page behind it, as WCAG 2 has it."""
    return page.evaluate(
        """(selector) => {
            const numbers = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
            const light = (text) => {
                const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                const [r, g, b] = numbers(text).map((v) => linear(v / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const at = document.querySelector(selector);
            const [a, b] = [light(getComputedStyle(at).color), light(getComputedStyle(document.body).backgroundColor)];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }""",
        selector,
    )


def check_readable(page):
    for selector in ("body", ".dim", "nav a", "figcaption", "#alarms li", "tr.best td", "code"):
        assert contrast(page, selector) >= 4.5, selector
    inks = page.eval_on_selector_all(".plot .xtick text", "all => all.map(one => getComputedStyle(one).fill)")
    assert inks
    assert set(inks) == {page.evaluate("getComputedStyle(document.body).color")}


def test_it_can_be_read_by_day(shown):
    check_readable(shown("running"))


def test_it_can_be_read_by_night(reports, browser):
    with opened(browser, reports("running")[2], scheme="dark") as page:
        check_readable(page)


def test_those_who_cannot_see_it_are_told_the_same(shown):
    page = shown("many")  # where nobody has clicked yet
    pictures = page.locator("[role=img], img")
    assert pictures.count() >= len(FIGURES)
    for place in range(pictures.count()):
        one = pictures.nth(place)
        assert len(one.get_attribute("aria-label") or one.get_attribute("alt") or "") > 40
    levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#answer"


def test_pointing_at_a_trial_says_which_it_is(reports, shown):
    _, history, _ = reports("many")
    best = history.best_trial
    page = shown("many")
    page.locator("#plot-accuracies").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """(number) => {
            const plot = document.getElementById("plot-accuracies"), {xaxis, yaxis} = plot._fullLayout;
            const trace = plot.data.find((one) => one.name === "best");
            const box = plot.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])];
        }""",
        best.number,
    )
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    label = page.locator("#plot-accuracies .hoverlayer .hovertext")
    label.wait_for(timeout=10_000)
    said = label.text_content()
    # Another one may lie within a pixel.
    pointed = history.trials[int(re.search(r"trial (\d+)", said)[1])]
    assert f"trial {pointed.number}, epoch {pointed.best_rung}" in said
    assert f"robust {100 * pointed.score:.1f}%" in said
    assert pointed.score == pytest.approx(best.score, abs=0.02)


def test_the_table_sorts_by_mouse_and_by_keyboard(reports, shown):
    _, history, _ = reports("many")
    page = shown("many")

    def column(place):
        return page.eval_on_selector_all(
            "table.sortable tbody tr",
            f"rows => rows.map(row => row.cells[{place}].dataset.value ?? row.cells[{place}].textContent)",
        )

    page.get_by_role("button", name="trial", exact=True).click()
    assert column(1) == [str(number) for number in sorted(history.trials)]
    page.get_by_role("button", name="trial", exact=True).press("Enter")
    assert column(1) == [str(number) for number in sorted(history.trials, reverse=True)]
    assert page.locator("th[aria-sort=descending]").inner_text().strip().startswith("trial")
    page.get_by_role("button", name="hcpr.scale", exact=True).click()
    scales = [
        float(value) for value in column(8 + list(read_study(find_space("default")).space).index("hcpr.scale")) if value
    ]
    assert scales == sorted(scales)


def test_a_range_is_picked_along_an_axis(shown):
    page = shown("running")
    plot = page.locator("#plot-parallel")
    plot.scroll_into_view_if_needed()
    axis = plot.locator(".axis-brush").first.bounding_box()
    x = axis["x"] + axis["width"] / 2
    page.mouse.move(x, axis["y"] + 40)
    page.mouse.down()
    page.mouse.move(x, axis["y"] + 120, steps=8)
    page.mouse.up()
    page.wait_for_function("document.getElementById('plot-parallel').data[0].dimensions[0].constraintrange")


def test_it_prints(shown, artefacts):
    data = shown("running").pdf(path=artefacts / "report-running.pdf", format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 3
