"""The live page in a real browser: all views are drawn, nothing fails, on a desk, on a phone, in the dark, on paper."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest

from hcpr_tune.views.report.figures import ALL_FIGURES
from tests.search.histories import epoch, job
from tests.views.test_report_browser import contrast
from tests.web.conftest import served
from tests.web.test_live_page import append

pytestmark = pytest.mark.browser

VIEWS = {
    "list": "/",
    "study": "/studies/large",
    "trial": "/studies/large/trials/3",
    "compare": "/compare?study=large&study=small",
}


@contextmanager
def opened(browser, live, path, width=1200, scheme="light"):
    """The page; afterwards nothing must have failed, and nothing have been asked of another address."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(live.address(path))
        page.wait_for_selector("body[data-version]", timeout=60_000)
        yield page
        assert said == []
        assert not [url for url in asked if not url.startswith((live.root, "blob:", "data:"))]
    finally:
        page.close()


def draw_all(page):
    """Scroll to each figure, as it is fetched only then; returns how many there are."""
    figures = page.locator("figure.live")
    for place in range(figures.count()):
        figures.nth(place).scroll_into_view_if_needed()
        page.wait_for_function(
            "place => document.querySelectorAll('figure.live')[place].dataset.drawn", arg=place, timeout=60_000
        )
    page.evaluate("scrollTo(0, 0)")
    return figures.count()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_drawn(view, page, browser, artefacts):
    with opened(browser, page, VIEWS[view]) as shown:
        count = draw_all(shown)
        assert count == {"list": 0, "study": len(ALL_FIGURES) + 1, "trial": 1, "compare": 2}[view]
        captions = shown.locator("figure.live figcaption").all_inner_texts()
        assert all(len(caption) > 30 and "could not" not in caption for caption in captions)
        assert shown.locator("figure.live .main-svg").count() >= count
        shown.screenshot(path=artefacts / f"live-{view}.png", full_page=True)
        shown.emulate_media(media="print")
        shown.wait_for_timeout(200)
        assert not shown.locator("form.request").first.is_visible() if view != "list" else True


@pytest.mark.parametrize("view", VIEWS)
def test_on_a_phone_in_the_dark_it_is_legible(view, page, browser, artefacts):
    with opened(browser, page, VIEWS[view], width=390, scheme="dark") as shown:
        draw_all(shown)
        assert shown.evaluate("document.documentElement.scrollWidth") <= 390
        for selector in ("body", "h1", "a", "td", ".dim"):
            if shown.locator(selector).count():
                assert contrast(shown, selector) >= 4.5, selector
        shown.screenshot(path=artefacts / f"live-{view}-phone-dark.png", full_page=True)


def test_the_table_is_sorted_and_turned_by_keyboard_and_leads_to_a_trial(page, browser):
    with opened(browser, page, "/studies/large") as shown:
        table = shown.locator("#trials-table")
        table.locator("tbody tr").first.wait_for()
        table.locator("[data-sort=trial]").focus()
        shown.keyboard.press("Enter")
        shown.wait_for_function("document.querySelector('#trials-table [aria-sort]').innerText == 'trial'")
        assert table.locator("tbody td:nth-child(2)").first.inner_text().startswith("0")
        assert shown.evaluate("document.activeElement.dataset.sort") == "trial"
        table.locator("text=Next").click()
        shown.wait_for_function("document.querySelector('#trials-table .pager').innerText.includes('Page 2 of 4')")
        shown.locator("select[name=state]").select_option("failed")
        shown.wait_for_function("document.querySelector('#trials-table .pager').innerText.includes('12 trials')")
        table.locator("tbody a").first.click()
        shown.wait_for_selector("body[data-version]")
        assert "failed" in shown.locator("[data-part=state]").inner_text()
        shown.locator("text=Enqueue a variation of it").click()
        shown.wait_for_selector("body[data-version]")
        assert shown.locator("details[open] [name='hcpr.scale']").input_value()


def test_two_dimensions_are_chosen(page, browser):
    with opened(browser, page, "/studies/large") as shown:
        figure = shown.locator("#contour figure")
        figure.scroll_into_view_if_needed()
        shown.wait_for_selector("#contour figure[data-drawn]")
        shown.locator("#contour select[name=x]").select_option("hcpr.scale")
        figure.scroll_into_view_if_needed()  # figures above it have been drawn meanwhile
        shown.wait_for_function(
            "document.querySelector('#contour figcaption').innerText.includes('over hcpr.scale and')"
        )


def test_it_follows_a_record_without_a_reload_and_keeps_what_was_typed(recorded_studies, tmp_path, browser):
    storage = tmp_path / "results"
    shutil.copytree(recorded_studies / "small", storage / "small")
    with served(storage) as live, opened(browser, live, "/studies/small/trials/1") as shown:
        draw_all(shown)
        shown.locator("textarea").fill("half a sentence")
        shown.evaluate("window.here = true")
        append(storage / "small", job(1, 27, 30), epoch(1, 28, 300, 359, clean=340) | {"is_rung": False})
        shown.wait_for_function("document.querySelector('figure.live figcaption').innerText.includes('28 epochs')")
        assert "training to epoch 30 began" in shown.locator("[data-part=course]").inner_text()
        assert shown.evaluate("window.here")
        assert shown.locator("textarea").input_value() == "half a sentence"
        shown.locator("form[data-post$=note] button").click()
        shown.wait_for_function("document.querySelector('form[data-post$=note] .answer').innerText == 'Saved.'")
        assert json.loads((storage / "small" / "notes.json").read_text())["trials"]["1"]["text"] == "half a sentence"


def test_a_page_whose_server_is_gone_says_so(recorded_studies, browser):
    with served(recorded_studies) as live:
        page = browser.new_page()
        page.goto(live.address("/studies/small"))
        page.wait_for_selector("body[data-version]")
    page.wait_for_selector("#connection:not([hidden])")
    assert "not connected" in page.locator("#connection").inner_text()
    page.close()
