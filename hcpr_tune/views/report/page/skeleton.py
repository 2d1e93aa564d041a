"""One HTML file out of sections and pictures. It needs no network; the report and the page of a plan are made so."""

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
    """A part of the page with a heading, which can be linked to."""

    name: str
    title: str
    body: str
    """HTML."""

    def html(self) -> str:
        name = self.name
        return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{escape(self.title)}</h2>{self.body}</section>'


def whole_page(title: str, header: str, sections: Sequence[Section], drawn: Mapping[str, Shown]) -> str:
    """The whole page: `header` is HTML, `drawn` the pictures by the name of their section."""
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
    # In one pass: what a part holds is not a place for another one.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: parts[place[1]], _part("report.html"))


def _part(name: str) -> str:
    return files("hcpr_tune.views.report.page").joinpath(name).read_text(encoding="utf-8")


def figures_json(drawn: Mapping[str, Shown]) -> str:
    """The figures as JSON that nothing in it can end the script element of."""
    plain = {}
    for name, shown in drawn.items():
        assert shown.figure is not None
        one = json.loads(shown.figure.to_json())
        one["layout"].pop("template", None)  # the page has colours of its own, by day and by night
        plain[name] = one
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure_section(name: str, title: str, lease: str, drawn: Shown, more: str = "") -> Section:
    """A picture with what it says under it, which is its alternative text too, and what else belongs there, as HTML. `lead`: why one looks at it."""
    says = escape(drawn.says)
    if drawn.figure is None:
        return Section(name, title, f"<p>{says}</p>{more}")
    picture = f'<div class="plot" id="plot-{name}" role="img" aria-label="{says}" style="min-width: {drawn.least_width}px"></div>'
    figure = f"<figure>{wide(picture, title)}<figcaption>{says}</figcaption></figure>"
    return Section(name, title, f'<p class="dim">{escape(lease)}</p>{figure}{more}')


def wide(body: str, label: str, kind: str = "wide") -> str:
    """What scrolls sideways where the page is narrow, by keyboard too."""
    return f'<div class="{kind}" tabindex="0" role="group" aria-label="{escape(label)}">{body}</div>'


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table of texts; each row begins with its heading."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(one)}</td>" for one in row[1:])}</tr>'
        for row in rows
    )
    return wide(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", label)


def sortable(titles: Sequence[str], rows: str, label: str) -> str:
    """A table that sorts by any of its columns; `rows` are HTML."""
    head = "".join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in titles)
    inner = f'<table class="sortable"><caption class="dim">Click a heading to sort.</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return wide(inner, label, "wide tall")


def cell(text: Any, value: Any = None, raw: bool = False) -> str:
    """A cell that is sorted by `value`, by its text where there is none. `raw` text is HTML."""
    sort = "" if value is None else f' data-value="{escape(str(value))}"'
    return f"<td{sort}>{text if raw else escape(str(text))}</td>"


def commands(lines: Sequence[tuple[str, str]]) -> str:
    """(what it does, command) one under the other."""
    items = "".join(f"<dt>{escape(what)}</dt><dd><code>{escape(command)}</code></dd>" for what, command in lines)
    return f'<dl class="commands">{items}</dl>'


def facts(named: Mapping[str, str]) -> str:
    """Names and values beside each other, those that are empty left out."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in named.items() if value)
    return f'<dl class="facts">{items}</dl>'
