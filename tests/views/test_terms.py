"""The glossary has the terms that pages explain, in the same words."""

from __future__ import annotations

import re

import pytest

from hcpr_tune.views.terms import TERMS, terms
from tests.conftest import ROOT

ROWS = dict(re.findall(r"^\| ([^|]+?) \| (.+?) \|$", (ROOT / "docs" / "glossary.md").read_text(), flags=re.M))


@pytest.mark.parametrize("term", TERMS)
def test_a_term_has_the_same_meaning_on_pages_and_in_the_glossary(term):
    assert ROWS[term] == TERMS[term]


def test_terms_come_in_the_order_in_which_they_are_asked_for():
    assert [name for name, _ in terms(("rung", "pace"))] == ["rung", "pace"]
    with pytest.raises(KeyError):
        terms(("no such term",))
