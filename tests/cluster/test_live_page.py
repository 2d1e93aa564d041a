"""The live page of a search that really runs, in a real browser: what it shows changes, and the search obeys it."""

from __future__ import annotations

import json
import re

import optuna
import pytest

from tests.cluster.test_search import ONE_WORKER, in_folder
from tests.conftest import SLOW_SPACE

pytestmark = [pytest.mark.cluster, pytest.mark.browser]


def test_a_running_search_is_watched_and_steered(tmp_path, background, browser, artefacts):
    in_folder(tmp_path, SLOW_SPACE)
    options = [
        "--space",
        "small.toml",
        "--name",
        "live",
        "--trials",
        "40",
        "--watch",
        "--log-to",
        "optuna",
        *ONE_WORKER,
    ]
    search = background("tune", *options)
    url = next(found[1] for line in search.stdout if (found := re.match(r"live page +(\S+)", line)))
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(url)
    page.wait_for_selector("body[data-version]")
    page.evaluate("window.here = true")

    # It follows the search.
    page.wait_for_function(
        "/^running[^]*trial \\d+ at epoch/.test(document.querySelector('[data-part=state]').innerText)"
    )
    page.wait_for_function("document.querySelector('[data-part=answer] table')", timeout=120_000)
    assert page.evaluate("window.here")  # without a reload
    first = page.get_attribute("body", "data-version")
    page.wait_for_function("first => document.body.dataset.version != first", arg=first)

    # A trial that is asked for is trained.
    page.locator("summary:has-text('Enqueue')").click()
    page.locator("form.values [name='hcpr.scale']").fill("11.25")
    page.locator("form.values button").click()
    page.wait_for_function("document.querySelector('form.values .answer').innerText.startsWith('The trial is queued')")
    page.select_option("#trials select[name=state]", "")
    page.wait_for_function(
        "[...document.querySelectorAll('#trials-table tr')].some(row => row.innerText.includes('enqueued'))",
        timeout=120_000,
    )
    page.screenshot(path=artefacts / "live-running.png", full_page=True)

    # A trial that is to end ends.
    row = page.locator("#trials-table tr", has_text="enqueued")
    row.locator("a").click()
    page.wait_for_selector("body[data-version]")
    page.locator("form[data-post$=kill] button").click()
    page.wait_for_function(
        "/will end|has ended already/.test(document.querySelector('form[data-post$=kill] .answer').innerText)"
    )
    page.wait_for_function(
        "/killed|stopped|completed/.test(document.querySelector('[data-part=state]').innerText)", timeout=120_000
    )

    # The search stops, and the page with it.
    page.goto(url)
    page.wait_for_selector("body[data-version]")
    page.locator("form[data-post$=stop] button").click()
    page.wait_for_function(
        "document.querySelector('form[data-post$=stop] .answer').innerText.includes('asked to stop')"
    )
    assert search.wait(120) == 130
    page.wait_for_selector("#connection:not([hidden])")
    page.close()
    assert failures == []

    lines = (tmp_path / "results/live/record.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    enqueued = [event for event in events if event["event"] == "trial" and event["source"] == "enqueued"]
    assert [event["params"]["hcpr.scale"] for event in enqueued] == [11.25]

    # Optuna's journal has the same trials.
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "results/live/optuna.log"))
    )
    trials = optuna.load_study(study_name="live", storage=storage).trials
    begun = [event for event in events if event["event"] == "trial"]
    assert [trial.user_attrs["source"] for trial in trials] == [event["source"] for event in begun]
    assert all(
        trial.params["hcpr.scale"] == event["params"]["hcpr.scale"] for trial, event in zip(trials, begun, strict=True)
    )
    assert any(trial.intermediate_values for trial in trials)
