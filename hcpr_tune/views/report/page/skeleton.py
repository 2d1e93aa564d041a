"""Build one self-contained HTML file from sections and figures, for the report and for a plan's page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from hcpr_tune.views.report.figures.shown import Shown


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an anchor."""

    name: str
    title: str
    body: str
    """HTML."""

    def html(self) -> str:
        name = self.name
        return (
            f'<section id="{name}" aria-labelledby="{name}-title">'
            f'<h2 id="{name}-title">{escape(self.title)}</h2>{self.body}</section>'
        )


def whole_page(title: str, header: str, sections: Sequence[Section], drawn: Mapping[str, Shown]) -> str:
    """The whole page. `header` is HTML; `drawn`: the figures by the name of their section."""
    parts = {
        "TITLE": escape(title),
        "STYLE": _part("report.css"),
        "HEADER": header,
        "NAV": "".join(f'<a href="#{one.name}">{escape(one.title)}</a>' for one in sections),
        "MAIN": "".join(one.html() for one in sections),
        "FIGURES": figures_json({name: shown for name, shown in drawn.items() if shown.figure is not None}),
        "PLOTLY": get_plotlyjs(),
        "SCRIPT": _part("report.js"),
    }
    # In one pass, so that placeholders inside a part are not replaced.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: parts[place[1]], _part("report.html"))


def _part(name: str) -> str:
    return files("hcpr_tune.views.report.page").joinpath(name).read_text(encoding="utf-8")


def figures_json(drawn: Mapping[str, Shown]) -> str:
    """The figures as JSON, escaped so that it cannot close its script element."""
    plain = {}
    for name, shown in drawn.items():
        assert shown.figure is not None
        one = json.loads(shown.figure.to_json())
        one["layout"].pop("template", None)  # the page sets its own light and dark colours
        plain[name] = one
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure_section(name: str, title: str, lead: str, drawn: Shown, more: str = "") -> Section:
    """A figure with its caption, which is also its alternative text, and `more` HTML. `lead`: the line above it."""
    says = escape(drawn.says)
    if drawn.figure is None:
        return Section(name, title, f"<p>{says}</p>{more}")
    picture = (
        f'<div class="plot" id="plot-{name}" role="img" aria-label="{says}"'
        f' style="min-width: {drawn.least_width}px"></div>'
    )
    figure = f"<figure>{wide(picture, title)}<figcaption>{says}</figcaption></figure>"
    return Section(name, title, f'<p class="dim">{escape(lead)}</p>{figure}{more}')


def wide(body: str, label: str, kind: str = "wide") -> str:
    """A container that scrolls sideways on narrow pages, also by keyboard."""
    return f'<div class="{kind}" tabindex="0" role="group" aria-label="{escape(label)}">{body}</div>'


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table of texts; the first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(one)}</td>" for one in row[1:])}</tr>'
        for row in rows
    )
    return wide(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", label)


def sortable(titles: Sequence[str], rows: str, label: str) -> str:
    """A table that can be sorted by any column; `rows` are HTML."""
    head = "".join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in titles)
    inner = (
        '<table class="sortable"><caption class="dim">Click a heading to sort.</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
    return wide(inner, label, "wide tall")


def cell(text: Any, value: Any = None, raw: bool = False) -> str:
    """A cell that sorts by `value`, or by its text without one. `raw` text is HTML."""
    sort = "" if value is None else f' data-value="{escape(str(value))}"'
    return f"<td{sort}>{text if raw else escape(str(text))}</td>"


def commands(lines: Sequence[tuple[str, str]]) -> str:
    """A list of (what it does, command)."""
    items = "".join(f"<dt>{escape(what)}</dt><dd><code>{escape(command)}</code></dd>" for what, command in lines)
    return f'<dl class="commands">{items}</dl>'


def facts(named: Mapping[str, str]) -> str:
    """A list of names and values, without empty ones."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in named.items() if value)
    return f'<dl class="facts">{items}</dl>'
