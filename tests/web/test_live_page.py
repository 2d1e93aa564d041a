"""The live page over HTTP: who may see it, what it shows, that it follows a record, and what it asks of a search."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest

from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.common.settings import to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.lines import checksum_of, seal, sealed_row
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.search.storage.lease import Lease
from hcpr_tune.study import Study
from hcpr_tune.views.report.figures import ALL_FIGURES
from hcpr_tune.web import watched as watched_module
from hcpr_tune.web.app import SECONDS_BETWEEN_LOOKS
from hcpr_tune.web.server import TOKEN, Server
from hcpr_tune.web.watched import LOOK_EVERY, WatchedStudy
from tests.conftest import ROOT
from tests.s3 import s3_server
from tests.search.histories import epoch, job
from tests.views.recorded import written
from tests.web.conftest import Page, served

__all__ = ["s3_server"]
READS = (
    "/",
    "/parts",
    "/changes",
    "/studies/small",
    "/studies/small/parts",
    "/studies/small/table",
    "/studies/small/changes",
)
WRITES = ("enqueue", "kill", "stop", "note")


@pytest.fixture
def own(recorded_studies, tmp_path):
    """A storage of the test's own, with the small study."""
    shutil.copytree(recorded_studies / "small", tmp_path / "results" / "small")
    return tmp_path / "results"


def append(folder, *events):
    """More lines of a record, as a driver writes them."""
    path = folder / "record.jsonl"
    latest = checksum_of(path.read_bytes().splitlines(keepends=True)[-1])
    with path.open("ab") as file:
        for event in events:
            line = seal(json.dumps(event).encode(), latest)
            latest = checksum_of(line)
            file.write(line)


@pytest.mark.parametrize("path", [*READS, "/studies/small/figures/curves", "/studies/small/trials/1"])
def test_without_the_token_nothing_is_shown(page, path):
    for code, body in (page.get(path, token=False), page.get(path, token=False, Authorization="Bearer wrong")):
        assert code == 401
        assert "token" in body
        assert "small" not in body


def test_a_person_without_the_token_is_told_the_way_out(page):
    code, body = page.get("/", token=False, Accept="text/html")
    assert code == 401
    assert body.startswith("<!doctype html>")
    assert "Open the whole URL that hcpr_tune watch printed" in body


@pytest.mark.parametrize("what", WRITES)
def test_another_site_cannot_ask_for_anything(own, what):
    """A form elsewhere could send the token in a URL, if it knew it, but not in this header."""
    before = sorted(path.name for path in (own / "small").rglob("*"))
    with served(own) as page:
        path = f"/studies/small/{what}"
        assert page.post(path, {"trial": 1}, token=False)[0] == 401
        assert page.post(page.address(path).removeprefix(page.root), {"trial": 1}, token=False)[0] == 401
    assert sorted(path.name for path in (own / "small").rglob("*")) == before


def test_the_page_says_what_the_report_says(page, recorded_studies):
    parts = page.json("/studies/large/parts")
    best = Study.open(recorded_studies / "large").history.best_trial
    assert f"Trial {best.number}: {100 * best.score:.1f} %" in parts["answer"]
    assert "may mask its gradients" in parts["alarms"]
    assert "200 of 200 trials ended" in parts["state"]
    assert "hcpr_tune verdict large" in parts["verdict"]
    assert "its process died" in page.json("/studies/killed/parts")["state"]


@pytest.mark.parametrize("name", ALL_FIGURES)
def test_every_figure_is_drawn_with_a_caption(page, name):
    found = page.json(f"/studies/large/figures/{name}")
    assert found["figure"]["data"]
    assert len(found["says"]) > 40


def test_two_dimensions_are_chosen(page, recorded_studies):
    first, second, third = list(Study.open(recorded_studies / "large").spec.space)[:3]
    one, other = (page.json(f"/studies/large/figures/contour?x={first}&y={name}") for name in (second, third))
    assert first in one["says"]
    assert second in one["says"]
    assert third in other["says"]
    assert one["figure"] != other["figure"]
    code, body = page.get(f"/studies/large/figures/contour?x={first}&y=nothing")
    assert code == 404
    assert f"must each be one of {first}" in body


def rows_of(html):
    return [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in html.split("<tr class=")[1:]]


def test_the_table_is_sorted_filtered_and_paged(page, recorded_studies):
    history = Study.open(recorded_studies / "large").history
    _, html = page.get("/studies/large/table")
    assert len(rows_of(html)) == 50
    assert "Page 1 of 4, 200 trials" in html
    assert f">{history.best_trial.number}</a>" in rows_of(html)[0][1]
    _, html = page.get("/studies/large/table?sort=trial&descending=yes")
    assert ">199</a>" in rows_of(html)[0][1]
    _, html = page.get("/studies/large/table?sort=rank&descending=yes&page=4")
    assert rows_of(html)[-1][0] == ""  # those without a score come last, whatever the order
    _, html = page.get("/studies/large/table?state=diverged")
    assert {cells[2] for cells in rows_of(html)} == {"diverged"}
    _, html = page.get("/studies/large/table?sort=hcpr.scale")
    values = [
        float(cells[8 + list(Study.open(recorded_studies / "large").spec.space).index("hcpr.scale")])
        for cells in rows_of(html)
    ]
    assert values == sorted(values)
    for query, words in (
        ("sort=nothing", "sort must be one of rank"),
        ("page=0", "page must"),
        ("state=x", "state must"),
    ):
        code, body = page.get(f"/studies/large/table?{query}")
        assert code == 404
        assert words in body


def test_a_trial_says_what_happened_and_why(page, recorded_studies):
    history = Study.open(recorded_studies / "large").history
    stopped = next(trial for trial in history.trials.values() if trial.state == "stopped")
    failed = next(trial for trial in history.trials.values() if trial.status == "failed")
    parts = page.json(f"/studies/large/trials/{stopped.number}/parts")
    assert "training to epoch 3 began, from scratch" in parts["course"]
    assert re.search(r"rank \d+ of the \d+ with a score there; stopped: the best 1 in 3 are promoted", parts["course"])
    parts = page.json(f"/studies/large/trials/{failed.number}/parts")
    assert "failed: RuntimeError: &lt;b&gt;no&lt;/b&gt;" in parts["course"]
    best = page.json(f"/studies/large/trials/{history.best_trial.number}/parts")
    assert 'class="differs"' in best["values"]
    assert "&lt;i&gt;nine&lt;/i&gt;" in best["pairs"]
    assert page.json(f"/studies/large/trials/{history.best_trial.number}/figures/curves")["figure"]["data"]
    published = page.json("/studies/large/trials/0/parts")
    assert 'class="differs"' not in published["values"]
    code, body = page.get("/studies/large/trials/200")
    assert code == 404
    assert "large has no trial 200; it has 200" in body


def test_the_pictures_of_a_trial_are_shown(own):
    folder = own / "small" / "trials" / "trial_0001"
    folder.mkdir(parents=True)
    (folder / "examples_epoch_0003.png").write_bytes(b"\x89PNG...")
    with served(own) as page:
        assert "/trials/1/examples/3.png" in page.json("/studies/small/trials/1/parts")["pictures"]
        assert page.get("/studies/small/trials/1/examples/3.png")[0] == 200
        assert page.get("/studies/small/trials/1/examples/9.png")[0] == 404


def test_all_studies_are_listed_and_compared(page, own):
    html = page.json("/parts")["studies"]
    assert [name for name in ("large", "small", "killed") if f">{name}</a>" in html] == ["large", "small", "killed"]
    parts = page.json("/compare/parts?study=large&study=small")
    assert "budget.trials" in parts["numbers"]
    assert "<td>200</td><td>12</td>" in parts["numbers"]
    for figure in ("progress", "distribution"):
        assert len(page.json(f"/compare/figures/{figure}?study=large&study=small")["figure"]["data"]) == 2
    code, body = page.get("/compare?study=large")
    assert code == 404
    assert "takes 2 to 5 studies, got 1" in body
    (own / "broken").mkdir()
    (own / "broken" / "study.toml").write_text("budget = <b>")
    with served(own) as other:
        html = other.json("/parts")["studies"]
        assert "cannot be read" in html
        assert "<b>" not in html
        assert ">small</a>" in html


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/studies/nothing", "known there: killed, large, small"),
        ("/studies/larg/parts", "did you mean large"),
        ("/studies/nothing/changes", "known there: killed, large, small"),
        ("/studies/a b", "must be 1 to 100 letters"),
        ("/studies/large/trials/" + 5000 * "1", "large has no trial 111"),
        ("/studies/large/trials/x/parts", "large has no trial x"),
        ("/studies/large/table?page=" + 5000 * "1", "page must be a number from 1"),
        ("/elsewhere", "See the list of studies."),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(path, words, page):
    code, body = page.get(urllib.parse.quote(path, safe="/?="))
    assert code == 404
    assert words in body


def test_what_is_recorded_arrives_without_a_reload(own):
    folder = own / "small"
    with served(own) as page, page.changes("/studies/small/changes") as versions:
        first = next(versions)
        before = page.json("/studies/small/parts")["state"]
        began = time.monotonic()
        append(folder, job(1, 27, 30), epoch(1, 28, 300, 359, clean=340) | {"is_rung": False})
        second = next(versions)
        assert second != first
        assert time.monotonic() - began < 30  # five seconds on a machine that does nothing else
        history = Study.open(folder).history
        assert max(history.trials[1].epochs) == 28
        curve = page.json("/studies/small/trials/1/figures/curves")["figure"]["data"][0]
        assert curve["x"][-1] == 28 or 28 in curve["x"]
        assert page.json("/studies/small/parts")["state"] != before


def test_a_half_written_line_is_left_for_later(own):
    folder = own / "small"
    watched = WatchedStudy(str(own), "small")
    with watched.reading() as stored:
        trained = len(stored.history.trials[1].epochs)
    append(folder, job(1, 27, 30), epoch(1, 28, 300, 359, clean=340) | {"is_rung": False})
    whole = (folder / "record.jsonl").read_bytes()
    (folder / "record.jsonl").write_bytes(whole[:-20])
    watched._look()
    assert watched.trouble == ""
    with watched.reading() as stored:
        assert len(stored.history.trials[1].epochs) == trained
    (folder / "record.jsonl").write_bytes(whole)
    watched._look()
    with watched.reading() as stored:
        assert len(stored.history.trials[1].epochs) == trained + 1
        assert watched._follower.offset == len(whole)


def test_what_was_read_on_is_what_would_be_read_at_once(tmp_path):
    study = read_study(find_space("default"), [("budget.trials", 30)])
    folder = written(tmp_path / "results" / "grown", study, 30)
    lines = folder.record.read_bytes().splitlines(keepends=True)
    folder.record.write_bytes(b"".join(lines[:20]))
    watched = WatchedStudy(str(tmp_path / "results"), "grown")
    for end in range(20, len(lines) + 1, 37):
        folder.record.write_bytes(b"".join(lines[:end]))
        watched._look()
    folder.record.write_bytes(b"".join(lines))
    watched._look()
    whole = Study.open(folder.root).history
    with watched.reading() as stored:
        assert stored.history == whole
        assert stored.history.version == len(lines)


def test_what_is_recorded_while_the_study_is_opened_is_not_missed(own, monkeypatch):
    """The last line of a search may be written between the reading of the record and the look at its size."""
    folder, reopen = own / "small", watched_module.reopen

    def reopened_late(*arguments):
        stored = reopen(*arguments)
        append(folder, job(1, 27, 30), epoch(1, 28, 300, 359, clean=340) | {"is_rung": False})
        monkeypatch.undo()
        return stored

    monkeypatch.setattr(watched_module, "reopen", reopened_late)
    watched = WatchedStudy(str(own), "small")
    watched._look()
    with watched.reading() as stored:
        assert max(stored.history.trials[1].epochs) == 28


def test_a_record_that_was_replaced_is_read_again(own):
    watched = WatchedStudy(str(own), "small")
    study = read_study(find_space("default"), [("budget.trials", 12)])
    shutil.rmtree(own / "small")
    written(own / "small", study, 3)
    watched._look()
    with watched.reading() as stored:
        assert len(stored.history.trials) == 3
    (own / "small" / "record.jsonl").write_bytes(b"nonsense\n" * 3)
    watched._look()
    assert "damaged" in watched.trouble
    watched._look()
    assert "damaged" in watched.trouble  # as long as it is
    with watched.reading() as stored:
        assert len(stored.history.trials) == 3  # what was known stays


def requests_in(folder):
    return [json.loads(path.read_text()) for path in sorted((folder / "inbox").glob("*.json"))]


def test_requests_are_left_for_the_search_and_shown(own):
    folder = own / "small"
    append(folder, job(1, 27, 30))
    with served(own) as page, Held(folder):
        assert page.post("/studies/small/enqueue", {"values": {"hcpr.scale": "9.5", "hcpr.margin": " "}}) == (
            200,
            {"done": "The trial is queued: the search takes it with its next free worker."},
        )
        running = next(trial.number for trial in Study.open(folder).history.trials.values() if not trial.ended)
        assert page.post("/studies/small/kill", {"trial": running})[0] == 200
        assert page.post("/studies/small/stop", {})[0] == 200
        kinds = [(one["kind"], one.get("params"), one.get("trial")) for one in requests_in(folder)]
        assert kinds == [("enqueue", {"hcpr.scale": 9.5}, None), ("kill", None, running), ("stop", None, None)]
        shown = page.json("/studies/small/parts")["requests"]
        assert "a trial with hcpr.scale = 9.5: waiting for the search to take it" in shown
        assert f"the end of trial {running}" in shown


@pytest.mark.parametrize(
    ("what", "body", "words"),
    [
        ("enqueue", {"values": {"hcpr.scale": "1000000"}}, "must lie inside search.hcpr.scale"),
        ("enqueue", {"values": {"hcpr.scal": "8"}}, "hcpr.scale"),
        ("enqueue", {"values": [1]}, "must be a table"),
        ("kill", {"trial": 99}, "there is no trial 99"),
        ("kill", {"trial": "1"}, "must be the number of a trial"),
        ("stop", {}, "not being searched"),
        ("note", {"text": "x" * 10_001, "tags": ""}, "10000 characters"),
        ("note", {"text": "x", "tags": "", "trial": 99}, "has no trial 99"),
        ("note", {"text": 3, "tags": ""}, "a note has a text"),
    ],
)
def test_a_bad_request_is_refused_with_a_reason_and_leaves_nothing(own, what, body, words):
    with served(own) as page:
        code, told = page.post(f"/studies/small/{what}", body)
    assert code == 400
    assert words in told["error"]
    assert not (own / "small" / "inbox").exists()
    assert not (own / "small" / "notes.json").exists()


def test_a_trial_that_lacks_a_dimension_can_be_enqueued_again_as_it_is(recorded_studies, own):
    """The form has the values of the trial alone: the others do not exist with them."""
    study = Study.open(own / "small")
    lacking = next(trial for trial in study.history.trials.values() if len(trial.params) < len(study.spec.space))
    with served(own) as page:
        _, form = page.get(f"/studies/small?copy={lacking.number}")
        inputs = re.findall(r'<input name="([\w.@]+)" data-value value="([^"]+)"', form)
        chosen = re.findall(r'<select name="([\w.@]+)" data-value>.*?<option selected>([^<]+)<', form, re.DOTALL)
        values = {name: html.unescape(value) for name, value in inputs + chosen}
        assert values.keys() == lacking.params.keys()
        assert page.post("/studies/small/enqueue", {"values": values})[0] == 200
    (request,) = requests_in(own / "small")
    assert request["params"] == lacking.params


def test_a_request_changes_the_version_and_a_broken_one_does_no_harm(own):
    with served(own) as page, page.changes("/studies/small/changes") as versions:
        first = next(versions)
        assert page.post("/studies/small/enqueue", {"values": {"hcpr.scale": "9"}})[0] == 200
        assert next(versions) != first
        (own / "small" / "inbox" / "deep.json").write_text("[" * 100_000)
        next(versions)
        assert "something that is no request" in page.json("/studies/small/parts")["requests"]


def test_a_note_that_somebody_else_has_changed_is_not_overwritten(own):
    with served(own) as page:
        code, told = page.post("/studies/small/note", {"text": "one", "tags": "a", "was": "|"})
        assert (code, told["was"]) == (200, "one|a")
        Study.open(own / "small").note("another")
        code, told = page.post("/studies/small/note", {"text": "two", "tags": "", "was": "one|a"})
        assert code == 400
        assert "somebody has changed this note" in told["error"]
    assert Study.open(own / "small").notes.study.text == "another"


def test_buttons_are_there_only_where_they_can_do_something(own):
    folder = own / "small"
    with served(own) as page:
        assert "<button" not in page.json("/studies/small/parts")["stop"]
        append(folder, job(1, 27, 30))
        with Held(folder):
            time.sleep(LOOK_EVERY[False])
            assert "<button" in page.json("/studies/small/parts")["stop"]
            running = next(trial.number for trial in Study.open(folder).history.trials.values() if not trial.ended)
            assert "<button" in page.json(f"/studies/small/trials/{running}/parts")["end"]
            assert "<button" not in page.json("/studies/small/trials/0/parts")["end"]


def test_a_search_that_was_killed_is_not_listed_as_running(own):
    """Its lease stays, with a process that is gone."""
    folder = own / "small"
    with served(own) as page:
        with Held(folder):
            listed = page.json("/parts")["studies"]
            assert "<td>running</td>" in listed
            lease = (folder / "holder.json").read_text()
        (folder / "holder.json").write_text(json.dumps(json.loads(lease) | {"process": 2**22 - 1}))
        assert "<td>running</td>" not in page.json("/parts")["studies"]


def test_news_is_looked_for_often_enough():
    """Five seconds is what the documentation promises, ten for a bucket."""
    assert LOOK_EVERY[False] + SECONDS_BETWEEN_LOOKS < 4
    assert LOOK_EVERY[True] + SECONDS_BETWEEN_LOOKS < 8


def test_the_log_of_a_trial_has_every_epoch(page):
    log = page.json("/studies/large/trials/3/parts")["log"]
    assert "27 epochs, as its workers reported them" in log
    assert log.count("<tr>") == 28


def test_notes_and_tags_are_kept_with_the_study(own):
    study = Study.open(own / "small")
    study.note("a good one", ["keep", "keep ", "paper"], trial=3)
    with served(own) as page:
        assert page.post("/studies/small/note", {"text": "the first try", "tags": "tuesday, <b>"})[0] == 200
        assert study.notes.study.tags == ("tuesday", "<b>")
        assert study.notes.of(3).tags == ("keep", "paper")
        _, html = page.get("/studies/small/table?tag=paper")
        assert len(rows_of(html)) == 1
        assert "tuesday, &lt;b&gt;" in page.json("/parts")["studies"]
        assert "a good one" in page.get("/studies/small/trials/3")[1]
        assert page.post("/studies/small/note", {"text": "", "tags": "", "trial": 3})[0] == 200
        assert study.notes.trials == {}
        (own / "small" / "notes.json").write_text("[]")
        time.sleep(0.6)
        assert "notes.json is not a file of notes" in page.json("/studies/small/parts")["state"]
    with pytest.raises(InputError, match=r"notes\.json is not a file of notes"):
        study.note("again")


def test_a_port_in_use_is_passed_over_and_a_weak_token_refused(recorded_studies, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Server(str(recorded_studies), None, port=port).running() as server:
            assert port < server.port <= port + 50
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(InputError, match="at least 16 printable ASCII characters, got 5"):
        Server(str(recorded_studies), None, port=0)
    monkeypatch.setenv(TOKEN, "chosen-by-somebody")
    with Server(str(recorded_studies), "small", port=0).running() as server:
        assert server.url.endswith("/studies/small?token=chosen-by-somebody")


def test_a_page_that_listens_everywhere_has_a_url_for_this_machine(tmp_path):
    with Server(str(tmp_path / "empty"), None, host="0.0.0.0", port=0).running() as server:
        assert server.url.startswith(f"http://127.0.0.1:{server.port}/?token=")
        assert "No study is in" in Page(server).json("/parts")["studies"]


def test_what_the_page_may_load_is_its_own(page):
    import urllib.request

    with urllib.request.urlopen(page.address("/studies/small")) as response:
        policy = response.headers["Content-Security-Policy"]
        body = response.read().decode()
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers.get("Set-Cookie") is None
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://", body)
    assert page.token not in body


def test_the_command_serves_until_it_is_interrupted(recorded_studies):
    words = ["watch", "small", "--storage", str(recorded_studies), "--port", "0", "--until-stdin-closes"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hcpr_tune", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        first = process.stdout.readline()
        assert re.fullmatch(r"live page    http://127\.0\.0\.1:\d+/studies/small\?token=[\w-]{32}\n", first)
        process.stdin.close()  # as when `tune --watch` was killed
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_bad_input_is_told_before_anything_is_served(command, tmp_path):
    done = command("watch", "nothing")
    assert done.returncode == 2
    assert "there is no study in results/nothing" in done.stderr
    done = command("watch", "--port", "70000")
    assert done.returncode == 2
    assert "--port must be at most 65535" in done.stderr


def test_a_running_verdict_is_told(own):
    folder = own / "small"
    recipe = to_plain(Study.open(folder).spec.recipe)
    models = [
        {"event": "model", "time": 1.0, "model": f"m{seed}", "candidate": "published", "seed": seed, "recipe": recipe}
        for seed in (1, 2)
    ]
    end = {"event": "job_end", "time": 2.0, "model": "m1", "job": "train m1", "kind": "train", "status": "reached"}
    begin = {"event": "begin", "time": 0.5, "format": 1, "workers": 1, "versions": {}}
    (folder / "verdict").mkdir()
    events = [begin, *({**one, "weights": ""} for one in models), {**end, "reason": ""}]
    (folder / "verdict" / "record.jsonl").write_bytes(sealed_row(events))
    with served(own) as page:
        assert "A verdict is running" not in page.json("/studies/small/parts")["state"]  # nobody holds the study
        with Held(folder):
            time.sleep(LOOK_EVERY[False])
            words = page.json("/studies/small/parts")["state"]
            assert "A verdict is running: 1 of 2 models trained, 0 attacks on chunks done." in words


def test_a_study_in_a_bucket_is_followed_too(s3_server, own, tmp_path, monkeypatch):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(LOOK_EVERY, True, 0.2)
    monkeypatch.chdir(tmp_path)
    shutil.move(own, tmp_path / "elsewhere")
    local = tmp_path / "elsewhere" / "small"
    storage = f"s3://{s3_server.new_bucket()}/studies"
    bucket = Bucket(storage).child("small")
    bucket.write("study.toml", (local / "study.toml").read_bytes())
    bucket.write("record/000000.jsonl", (local / "record.jsonl").read_bytes())
    with Server(storage, "small", port=0).running() as server:
        page = Page(server)
        assert "12 of 12 trials ended" in page.json("/studies/small/parts")["state"]
        assert ">small</a>" in page.json("/parts")["studies"]
        with page.changes("/studies/small/changes") as versions:
            next(versions)
            before = (local / "record.jsonl").read_bytes()
            append(local, job(1, 27, 30), epoch(1, 28, 300, 359, clean=340) | {"is_rung": False})
            bucket.write("record/000001.jsonl", (local / "record.jsonl").read_bytes()[len(before) :])
            next(versions)
        curve = page.json("/studies/small/trials/1/figures/curves")
        assert curve["says"].startswith("28 epochs trained")
        assert page.post("/studies/small/note", {"text": "far away", "tags": ""})[0] == 200
        assert b"far away" in bucket.read("notes.json")
    s3_server.start()


class Held:
    """A process that holds the study, as a running search does."""

    def __init__(self, folder):
        from hcpr_tune.search.storage.object_store import FolderObjectStore

        self._lease = Lease(FolderObjectStore(folder), "small")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lease.close()
