"""The pictures of the docs, made by a real search: python benchmarks/pictures.py docs

Runs the default search, shows it half-way on a terminal of 110 columns, asks a real TensorBoard, Ray's dashboard, the
report and the live page for their pages, plans the search again from what it recorded, and writes terminal.png,
tensorboard*.png, ray.png, report.png, watch*.png and plan.png; prints the view, the answer and the plan as text, for
the README and docs/plan.md. Needs Chromium and the development extra.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TUNE = [sys.executable, str(ROOT / "launch" / "tune.py")]
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out.absolute()
    from playwright.sync_api import sync_playwright

    chromium = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        with searching(Path(folder)) as dashboard:
            ray_page(browser, dashboard, out / "ray.png")
        root = Path(folder) / "results" / "shown"
        terminal(browser, root, Path(folder), out / "terminal.png")
        report(browser, root, out / "report.png")
        live_page(browser, root, out)
        plan(browser, root, out / "plan.png")
        tensorboard(browser, root, out)
        browser.close()


def environment() -> dict[str, str]:
    """This package, and the program on PATH: commands are shown as they are where it is installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


@contextmanager
def searching(folder: Path) -> Iterator[str]:
    """A default search in the background; yields the dashboard's address once trials train, waits for the end."""
    process = subprocess.Popen(
        [*TUNE, "--name", "shown"], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        if found := re.match(r"dashboard +(http://\S+)", line):
            address = found[1]
        if line.startswith("trial="):
            break
    try:
        yield address
    finally:
        rest, _ = process.communicate()
        print("".join(line for line in rest.splitlines(keepends=True) if not line.startswith("trial=")))


def ray_page(browser: Any, address: str, path: Path) -> None:
    """Ray's page of the workers, behind its token."""
    token = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "get-auth-token"], check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    page = browser.new_page(
        viewport={"width": 1300, "height": 760}, extra_http_headers={"Authorization": f"Bearer {token}"}
    )
    page.goto(f"{address}/#/actors")
    time.sleep(8)
    page.screenshot(path=path)
    page.close()


def terminal(browser: Any, root: Path, folder: Path, path: Path) -> None:
    """The live view as it was when two thirds of the record were there."""
    from rich.console import Console

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.lines import unsealed
    from hcpr_tune.search.spec.study_file import read_study
    from hcpr_tune.views.terminal.live_view import view_of

    study = read_study(root / "study.toml")
    history = History(study.recipe.epochs, study.goal)
    lines = (root / "record.jsonl").read_bytes().splitlines()
    for line in lines[: 2 * len(lines) // 3]:
        history.apply(unsealed(line))
    console = Console(record=True, width=110, height=30, file=io.StringIO(), force_terminal=True)
    console.print(replace(view_of(study, history), bounded=True, quits="stop"))
    picture = folder / "terminal.html"
    print(console.export_text(clear=False))
    svg = console.export_svg(title="python launch/tune.py --space default")
    picture.write_text(
        f"<meta charset=utf-8><body style='margin:0'>{re.sub(r'@font-face {.*?}', '', svg, flags=re.S)}",
        encoding="utf-8",
    )
    page = browser.new_page(viewport={"width": 1100, "height": 500})
    page.goto(picture.as_uri())
    page.locator("svg").first.screenshot(path=path)
    page.close()


def report(browser: Any, root: Path, path: Path) -> None:
    """The top of the report."""
    top_of(browser, root / "report.html", path, 1000, 1500)


def live_page(browser: Any, root: Path, out: Path) -> None:
    """The live page of the study, from the answer to the timeline, and that of its best trial."""
    import hcpr_tune
    from hcpr_tune.web.server import Server

    best = hcpr_tune.load(root).best["trial"]
    with Server(str(root.parent), root.name, port=0).running() as server:
        for name, path in (("watch", f"studies/{root.name}"), ("watch-trial", f"studies/{root.name}/trials/{best}")):
            page = browser.new_page(viewport={"width": 1000, "height": 1700})
            page.goto(server.url.replace(f"studies/{root.name}", path))
            figures = page.locator("figure.live")
            for place in range(min(4, figures.count())):
                figures.nth(place).scroll_into_view_if_needed()
                page.wait_for_function("at => document.querySelectorAll('figure.live')[at].dataset.drawn", arg=place)
            top = page.locator("#history" if name == "watch" else "h1").bounding_box()
            page.evaluate("top => scrollTo(0, scrollY + top - 20)", top["y"])
            page.wait_for_timeout(500)
            page.screenshot(path=out / f"{name}.png")
            page.close()


def plan(browser: Any, root: Path, path: Path) -> None:
    """The top of the page of a plan from this search; nothing is trained for it."""
    vary = ["--vary", "early_stopping.calibration=1,6", "workers=2,8"]
    arguments = [
        "--from",
        "results/shown",
        "--workers",
        "2",
        "--repeats",
        "10",
        "--seconds",
        "600",
        *vary,
        "--out",
        "plan.html",
    ]
    folder = root.parent.parent
    subprocess.run([sys.executable, "-m", "hcpr_tune", "plan", *arguments], check=True, cwd=folder, env=environment())
    top_of(browser, folder / "plan.html", path, 1200, 1480)


def top_of(browser: Any, file: Path, path: Path, width: int, height: int) -> None:
    """The top of a self-contained page."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=300_000)
    page.screenshot(path=path)
    page.close()


def tensorboard(browser: Any, root: Path, out: Path) -> None:
    """TensorBoard's curves, its table of values, and its pictures."""
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        "results/shown",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, cwd=root.parent.parent, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
        page = browser.new_page(viewport={"width": 1300, "height": 760})
        for name, tab in (
            ("tensorboard", "timeseries"),
            ("tensorboard-hparams", "hparams"),
            ("tensorboard-images", "images"),
        ):
            page.goto(f"{address}#{tab}")
            page.reload()
            time.sleep(10)
            page.screenshot(path=out / f"{name}.png")
        page.close()
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main()
