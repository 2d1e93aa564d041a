"""Templates escape every value, an unknown name is an error, and another page can be made of their parts."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from hcpr_tune.views.report.page import Cell, Row, Section, page_html
from hcpr_tune.views.templates import html_environment, markdown_environment

EVIL = '<script>alert(1)</script> | "x"\n# y'


def section(**shown):
    return Section("trials", "All <trials>", "trials", shown)


def test_every_value_is_escaped_in_html():
    row = Row([Cell(EVIL, EVIL)], 'a" onclick="b', EVIL)
    header = {"name": EVIL, "description": EVIL, "task": EVIL, "trials": EVIL, "written": EVIL, "banner": EVIL}
    page = page_html("report", header, [section(titles=[EVIL], rows=[row], total=2)], {})
    assert "<script>alert" not in page
    assert 'onclick="b' not in page
    assert "All &lt;trials&gt;" in page
    assert "The best 1 of 2" in page


def test_every_value_is_escaped_in_markdown_and_stays_on_its_line():
    environment = markdown_environment("hcpr_tune.verdict")
    text = environment.from_string("{{ one }}\n{{ one | cell }}\n").render(one=EVIL)
    plain = '&lt;script&gt;alert(1)&lt;/script&gt; | "x" # y'
    assert text.splitlines() == [plain, plain.replace("|", "\\|")]


def test_a_value_that_was_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="total"):
        page_html("report", dict.fromkeys(("name", "description", "task", "trials", "written", "banner"), ""),
                  [section(titles=[], rows=[Row([])])], {})  # fmt: skip
    with pytest.raises(UndefinedError):
        markdown_environment("hcpr_tune.verdict").from_string("{{ nothing }}").render()


def test_another_page_can_keep_the_style_and_the_sections_and_bring_its_own_scripts():
    environment = html_environment()
    live = environment.from_string(
        '{% extends "report.html.jinja2" %}{% block scripts %}<script src="live.js"></script>{% endblock %}'
    )
    header = dict.fromkeys(("name", "description", "task", "trials", "written", "banner"), "")
    trials = {"name": "trials", "title": "All trials", "template": "trials.html.jinja2"}
    shown = {"titles": ["trial"], "rows": [Row([Cell(7)])], "total": 1}
    page = live.render(header=header, sections=[trials | {"shown": shown}])
    assert '<script src="live.js"></script>' in page
    assert "plotly" not in page.lower()
    assert "<td>7</td>" in page
    part = environment.get_template("trials.html.jinja2").render(section=trials, shown=shown)
    assert part.strip() in page
