"""What looking costs. Each command prints JSON.

python benchmarks/views.py cost      # the views' share of a default search's time
python benchmarks/views.py report    # the report of 500 trials: seconds to write, bytes, seconds to open in Chromium
python benchmarks/views.py live      # the live page of 10,000 trials: seconds to open and to draw, memory of Chromium
python benchmarks/views.py events    # bytes of TensorBoard's event files, a trial
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import Plain, machine, spread
from made_up import made_up

from hcpr_tune.search.record.results import StoredStudy

ROOT = Path(__file__).parent.parent
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
TUNE = [sys.executable, str(ROOT / "launch" / "tune.py")]


def cost(options: argparse.Namespace) -> Plain:
    """Seconds of each view by a replay of a real search's record, in those that the search took."""
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*TUNE, "--name", "seen"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            runs.append(replayed(Path(folder) / "results" / "seen"))
    names = runs[0].keys()
    return {name: spread([run[name] for run in runs]) for name in names}


def replayed(root: Path) -> Plain:
    """Each view's share of the search's seconds. What workers draw and export counts among checkpoints at rungs."""
    from rich.console import Console

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.lines import unsealed
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study_file import read_study
    from hcpr_tune.views.report.report_file import ReportFile
    from hcpr_tune.views.tensorboard.writer import TensorBoardView
    from hcpr_tune.views.terminal.live_view import LiveView

    study = read_study(root / "study.toml")
    events = [unsealed(line) for line in (root / "record.jsonl").read_bytes().splitlines()]
    seconds = events[-1]["time"] - events[0]["time"]
    copy = StudyFolder(root.parent / "copy")
    shutil.copytree(root, copy.root)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    views: dict[str, Callable[[History], Any]] = {
        "terminal": lambda history: LiveView(study, console),
        "tensorboard": lambda history: TensorBoardView(StoredStudy(copy, study, history)),
        "report": lambda history: ReportFile(copy, study, "hcpr_tune"),
    }
    shares = {}
    for name, make in views.items():
        history = History(study.recipe.epochs, study.goal)
        spent = 0.0
        view = make(history)
        for event in events:
            news = history.apply(event)
            began = time.perf_counter()
            if news:
                view.on_event(event, history)
            spent += time.perf_counter() - began
        view.close()
        shares[name] = spent / seconds
    epochs = [event for event in events if event["event"] == "epoch"]
    usual = statistics.median(event["seconds_checkpoint"] for event in epochs if not event["is_rung"])
    drawn = sum(event["seconds_checkpoint"] - usual for event in epochs if event["is_rung"])
    shares["pictures_and_weights_of_rungs"] = drawn / (seconds * events[0]["workers"])
    return {"seconds_of_the_search": seconds, **shares, "all": sum(shares.values())}


def report(options: argparse.Namespace) -> Plain:
    """The report of a made-up study, written and opened."""
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study_file import find_space, read_study

    trials = options.trials
    study = read_study(find_space("default"), [("budget.trials", trials)])
    history = History(study.recipe.epochs, study.goal)
    for event in made_up(study, trials):
        history.apply(event)
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import time; began = time.perf_counter(); import hcpr_tune; study = hcpr_tune.load('{0}'); study.report();"
            " print(time.perf_counter() - began)"
        )
        root = Path(folder) / "made_up"
        stored(root, study, trials)
        written = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code.format(root)], check=True, capture_output=True, text=True
                ).stdout
            )
            for _ in range(options.repeats)
        ]
        page = StudyFolder(root).root / "report.html"
        return {
            "trials": trials,
            "seconds_to_write": spread(written),
            "bytes": page.stat().st_size,
            **opening(page, options.repeats),
        }


def stored(root: Path, study: Any, trials: int) -> None:
    """The made-up study in a folder."""
    from hcpr_tune.search.record.lines import sealed_row
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.storage.studies import create

    folder = StudyFolder(root)
    create(folder, study)
    folder.record.write_bytes(sealed_row(made_up(study, trials)))


def live(options: argparse.Namespace) -> Plain:
    """The live page of a made-up study: seconds to read it, to show its text and first page of trials, and to draw all
    figures one after the other; megabytes (Pss) of the tab's processes and of all of Chromium's when all were drawn.
    """
    from hcpr_tune.search.spec.study_file import find_space, read_study
    from hcpr_tune.web.server import Server

    trials = options.trials
    study = read_study(find_space("default"), [("budget.trials", trials)])
    with tempfile.TemporaryDirectory() as folder:
        stored(Path(folder) / "made_up", study, trials)
        began = time.perf_counter()
        server = Server(folder, "made_up", port=0)
        read = time.perf_counter() - began
        with server.running():
            shown, drawn, tab, everything = zip(
                *(opening_live(server.url) for _ in range(options.repeats)), strict=True
            )
    return {
        "trials": trials,
        "seconds_to_read_the_record": read,
        "seconds_to_open": spread(list(shown)),
        "seconds_to_all_figures": spread(list(drawn)),
        "megabytes_of_the_tab": spread(list(tab)),
        "megabytes_of_all_of_chromium": spread(list(everything)),
    }


def opening_live(url: str) -> tuple[float, float, float, float]:
    """Seconds to the text and the table, seconds to all figures; megabytes of the tab's processes and of all."""
    from playwright.sync_api import sync_playwright

    path = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        session = browser.new_browser_cdp_session()
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        began = time.perf_counter()
        tab.goto(url, wait_until="commit")
        tab.wait_for_selector("#trials-table tbody td")
        shown = time.perf_counter() - began
        figures = tab.locator("figure.live")
        for place in range(figures.count()):
            figures.nth(place).scroll_into_view_if_needed()
            tab.wait_for_function(
                "place => document.querySelectorAll('figure.live')[place].dataset.drawn", arg=place, timeout=120_000
            )
        drawn = time.perf_counter() - began
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        sizes = [(process["type"], proportional_set_size(int(process["id"])) / 1e6) for process in processes]
        browser.close()
    return shown, drawn, sum(size for kind, size in sizes if kind == "renderer"), sum(size for _, size in sizes)


def proportional_set_size(process: int) -> int:
    """Bytes of a process; what it shares with others is divided among them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def opening(page: Path, repeats: int) -> Plain:
    """Seconds until a fresh Chromium shows the answer, and until all pictures are drawn."""
    from playwright.sync_api import sync_playwright

    path = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    text, drawn = [], []
    with sync_playwright() as driver:
        for _ in range(repeats):
            browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            began = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_selector("#answer .lead")
            text.append(time.perf_counter() - began)
            tab.wait_for_selector("body[data-drawn]")
            drawn.append(time.perf_counter() - began)
            browser.close()
    return {"seconds_to_the_answer": spread(text), "seconds_to_all_pictures": spread(drawn)}


def events(options: argparse.Namespace) -> Plain:
    """Bytes of the event files of a default search's trials."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*TUNE, "--name", "seen", "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        trials = (Path(folder) / "results" / "seen" / "trials").glob("trial_*")
        sizes = [sum(path.stat().st_size for path in trial.glob("events*")) for trial in trials]
    return {"bytes_a_trial": spread([float(size) for size in sizes]), "mean": statistics.fmean(sizes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = {"cost": cost, "report": report, "live": live, "events": events}
    parser.add_argument("command", choices=known)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=500, help="of `report` and `live`")
    options = parser.parse_args()
    print(json.dumps({"machine": machine(), options.command: known[options.command](options)}, indent=1))


if __name__ == "__main__":
    main()
