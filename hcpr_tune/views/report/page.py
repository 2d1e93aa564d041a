"""Self-contained HTML pages from sections, each with a template of its own: the report, and the page of a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hcpr_tune.views.report.figures.shown import Shown
from hcpr_tune.views.templates import html_environment


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading and an anchor."""

    name: str
    title: str
    template: str
    """File name in `templates`, without its ending."""
    shown: Mapping[str, Any]
    """What the template shows, as `shown`; without HTML."""


class Cell(NamedTuple):
    """A cell of a sortable table."""

    text: object
    key: object = None
    """What it is sorted by; None: its text."""
    long: bool = False
    """Whether the text may be wrapped."""


class Row(NamedTuple):
    """A row of a sortable table."""

    cells: Sequence[Cell]
    kind: str = ""
    """CSS class."""
    title: str = ""


class Table(NamedTuple):
    """A table below a figure."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    label: str
    heading: str = ""
    note: str = ""


def page_html(template: str, header: Mapping[str, Any], sections: Sequence[Section], drawn: Mapping[str, Shown]) -> str:
    """The whole page by a template that extends `base`. `drawn`: the figures by the name of their section."""
    environment = html_environment()
    return environment.get_template(f"{template}.html.jinja2").render(
        header=header,
        sections=[
            {**vars(section), "template": environment.get_template(f"{section.template}.html.jinja2")}
            for section in sections
        ],
        figures=figures_json({name: shown for name, shown in drawn.items() if shown.figure is not None}),
        plotly=Markup(get_plotlyjs()),
    )


def figures_json(drawn: Mapping[str, Shown]) -> Markup:
    """The figures as JSON, escaped so that it cannot close its script element."""
    plain = {}
    for name, shown in drawn.items():
        assert shown.figure is not None
        one = json.loads(shown.figure.to_json())
        one["layout"].pop("template", None)  # the page sets its own light and dark colours
        plain[name] = one
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def figure_section(name: str, title: str, lead: str, drawn: Shown, table: Table | None = None) -> Section:
    """A figure with its caption and `lead`, the line above it; then a table, if it has rows."""
    figure = {"drawn": drawn.figure is not None, "says": drawn.says, "least_width": drawn.least_width}
    return Section(name, title, "figure", {**figure, "lead": lead, "table": table})
