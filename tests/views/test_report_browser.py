"""The report in a real browser: no failures, no requests, legible on a phone and in the dark, by mouse and keyboard."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager

import pytest

from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.views.report.figures import FIGURES
from hcpr_tune.views.report.report import write_report
from tests.views.boards import picture
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
            if history.best_trial is not None:
                best = StudyFolder(root).trial(history.best_trial.number)
                best.mkdir(parents=True)
                (best / f"examples_epoch_{history.best_trial.best_rung:04d}.png").write_bytes(picture())
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


@pytest.fixture(scope="module")
def phone(reports, browser):
    """A page on a phone in the dark."""
    with opened(browser, reports("running")[2], width=390, scheme="dark") as page:
        yield page


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


def contrast_of(one, other):
    """The contrast of two colours `rgb(r, g, b)`, as WCAG 2 has it."""

    def light(text):
        values = [float(value) / 255 for value in re.findall(r"[\d.]+", text)[:3]]
        red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    brighter, darker = sorted((light(one), light(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def contrast(page, selector):
    """The contrast of a text with the page behind it."""
    return contrast_of(
        *page.evaluate(
            """(selector) => {
                const at = document.querySelector(selector);
                return [getComputedStyle(at).color, getComputedStyle(document.body).backgroundColor];
            }""",
            selector,
        )
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


CUT = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
    const box = plot.getBoundingClientRect();
    return [...plot.querySelectorAll("[class*=xtitle], [class*=ytitle], .cbaxis text, .legendtext")].filter((text) => {
        const {left, right, top, bottom} = text.getBoundingClientRect();
        return left < box.left - 1 || right > box.right + 1 || top < box.top - 1 || bottom > box.bottom + 1;
    }).map((text) => plot.id + ": " + text.textContent);
})"""
"""The titles of axes, numbers of colour bars and names in legends that a figure cuts off."""


def test_a_phone_cuts_no_title_of_an_axis(phone):
    assert phone.locator(".xtitle").count() >= 5
    assert phone.evaluate(CUT) == []


def test_a_long_title_is_broken_where_its_axis_is_short(phone):
    lines = phone.evaluate(
        """async () => {
            const plot = document.getElementById("plot-curves");
            const figures = JSON.parse(document.getElementById("figures").textContent);
            return [plot.layout.yaxis.title.text, figures.curves.layout.yaxis.title.text,
                    plot.querySelector(".ytitle").getBoundingClientRect().height,
                    plot._fullLayout.yaxis._length];
        }"""
    )
    drawn, whole, height, room = lines
    assert drawn.replace("<br>", " ") == whole == "robust accuracy (validation)"
    assert height <= room + 1


def test_what_scrolls_says_so_and_does_so_by_keyboard(phone):
    places = phone.locator(".wide")
    hidden = 0
    for index in range(places.count()):
        place = places.nth(index)
        hint = place.evaluate(
            "place => [place.previousElementSibling.textContent, place.previousElementSibling.hidden]"
        )
        wide, tall = place.evaluate(
            "place => [place.scrollWidth > place.clientWidth + 1, place.scrollHeight > place.clientHeight + 1]"
        )
        assert ("sideways" in hint[0], "down" in hint[0]) == (wide, tall)
        assert hint[1] is not (wide or tall)
        hidden += hint[1]
        assert place.get_attribute("tabindex") == "0"
    assert 0 < hidden < places.count()
    table = phone.locator("#answer .wide")
    table.focus()
    phone.keyboard.press("ArrowRight")
    phone.wait_for_function("document.querySelector('#answer .wide').scrollLeft > 0")


def test_every_point_can_be_told_from_the_page(shown, phone):
    for page in (shown("running"), phone):
        fills = page.eval_on_selector_all(
            "#plot-slices .points path", "all => all.map(one => getComputedStyle(one).fill)"
        )
        assert len(set(fills)) > 5
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert min(contrast_of(fill, paper) for fill in set(fills)) >= 3


def test_the_colour_bars_have_numbers(shown):
    page = shown("running")
    for name, number in (("parallel", r"\d+%"), ("slices", r"\d+")):
        texts = page.locator(f"#plot-{name} .cbaxis text").all_text_contents()
        assert len(texts) >= 3
        assert all(re.fullmatch(number, text) for text in texts)
    assert page.evaluate(CUT) == []


def test_pictures_are_dark_on_a_dark_page(shown, phone):
    corner = """() => {
        const image = document.querySelector("#examples img"), canvas = document.createElement("canvas");
        canvas.getContext("2d").drawImage(image, 0, 0);
        return [...canvas.getContext("2d").getImageData(1, 1, 1, 1).data.slice(0, 3)];
    }"""
    assert shown("running").evaluate(corner) == [255, 255, 255]
    paper = phone.evaluate("getComputedStyle(document.body).backgroundColor")
    assert phone.evaluate(corner) == [int(value) for value in re.findall(r"\d+", paper)]


def test_it_prints(shown, artefacts):
    page = shown("running")
    data = page.pdf(path=artefacts / "report-running.pdf", format="A4")
    pages = re.findall(rb"/Type\s*/Page\b", data)
    assert len(pages) >= 3
    # Every page has something on it: an empty one has no fonts and no pictures.
    assert len(re.findall(rb"/Font\s*<<", data)) >= len(pages)


def test_figures_fit_on_paper_and_come_back(shown):
    page = shown("running")
    widths = "() => [...document.querySelectorAll('.plot .main-svg')].map(one => one.getBoundingClientRect().width)"
    on_screen = page.evaluate(widths)
    page.emulate_media(media="print")
    page.wait_for_function(f"Math.max(...({widths})()) <= 661")
    assert page.evaluate(CUT) == []
    assert page.locator(".hint:visible, nav:visible").count() == 0
    page.emulate_media(media="screen")
    page.wait_for_function(f"JSON.stringify(({widths})()) === '{str(on_screen).replace(' ', '')}'")
