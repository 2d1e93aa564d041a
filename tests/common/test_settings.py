"""What is read from files and the command line: any encoding that editors save, one line where rewriting fails."""

from __future__ import annotations

import codecs
import math
import time
from pathlib import Path

import pytest
import tomli_w

from hcpr_tune.common.files import read_text
from hcpr_tune.common.settings import in_toml, parse_assignment, parse_assignments, parse_toml, read_toml, shorten, show
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.simulation.curves.csv_curves import read_curves
from hcpr_tune.training.recipe import load_recipe
from tests.conftest import SMALL_SPACE

CURVES = "run,epoch,score\na,1,0.1\na,2,0.2\nb,1,0.2\nb,2,0.3\n"
ENCODED = {
    "UTF-8 with a mark": codecs.BOM_UTF8 + b"%s",
    "UTF-16, low byte first": "utf-16-le",
    "UTF-16, high byte first": "utf-16-be",
    "UTF-32": "utf-32",
    "line ends of Windows": "crlf",
}


def encoded(text: str, how: str) -> bytes:
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    way = ENCODED[how]
    if isinstance(way, bytes):
        return way % text.encode()
    if way == "crlf":
        return text.replace("\n", "\r\n").encode()
    return marks.get(way, b"") + text.encode(way)


@pytest.mark.parametrize("how", ENCODED)
def test_a_text_is_read_however_an_editor_saved_it(how, tmp_path):
    (tmp_path / "s.toml").write_bytes(encoded(SMALL_SPACE.replace("few seconds", "paar Sekunden, ü"), how))
    (tmp_path / "plain.toml").write_text(SMALL_SPACE.replace("few seconds", "paar Sekunden, ü"), encoding="utf-8")
    assert read_study(tmp_path / "s.toml") == read_study(tmp_path / "plain.toml")
    (tmp_path / "r.toml").write_bytes(encoded("epochs = 3\n", how))
    assert load_recipe(tmp_path / "r.toml").epochs == 3
    (tmp_path / "c.csv").write_bytes(encoded(CURVES, how))
    assert read_curves(tmp_path / "c.csv").epochs == (1, 2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            "é".encode("latin-1"),
            "cannot be read: it is not UTF-8 text (unexpected end of data at byte 0); save it as UTF-8",
        ),
        ("a = 1".encode("utf-16-le"), "cannot be read: it is not text, it has null bytes; save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "it is not UTF-8 text (truncated data at byte 2)"),
    ],
)
def test_what_is_no_text_is_refused(data, words, tmp_path):
    (tmp_path / "f").write_bytes(data)
    for read in (read_text, read_toml, read_curves):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "f")
        assert words in str(caught.value)


def test_a_path_that_cannot_be_is_refused():
    for path in (Path("a\0b"), Path("no/such"), Path("x" * 300), Path(__file__).parent):
        with pytest.raises(InputError, match="cannot be read"):
            read_text(path)


UNWRITABLE = {
    "digits": ("9" * 5000, "has a number with thousands of digits"),
    "brackets": ("[" * 1200 + "]" * 1200, "nested too deeply"),
    "deep tables": ("{a=" * 40 + "1" + "}" * 40, "lies within 16 tables"),
    "overflow": ("1e400", "one that a float can hold, got 1e400"),
    "underflow": ("-0.00001e-400", "one that a float can hold, got -0.00001e-400"),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_could_not_be_written_again_is_one_line(case):
    value, words = UNWRITABLE[case]
    began = time.process_time()
    for refuse in (lambda: parse_toml(f"a = {value}", "f.toml"), lambda: parse_assignment(f"epochs={value}")):
        with pytest.raises(InputError, match=words) as caught:
            refuse()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", [".".join(["a"] * 2000) + " = 1", '"' + ".".join(["a"] * 2000) + '" = 1'])
def test_a_name_of_thousands_of_parts_is_one_line(text):
    with pytest.raises(InputError, match="lies within 16 tables or lists") as caught:
        parse_toml(text, "f.toml")
    assert len(str(caught.value)) < 600


def test_several_lines_behind_set_are_no_value_with_something_lost():
    assert parse_assignment("budget.trials=1\nseed=2") == ("budget.trials", "1\nseed=2")


@pytest.mark.parametrize(
    "texts",
    [
        ["a.b=1", "a.b=2"],
        ["a.b=1", "a={b=2}"],
        ["hcpr.scale=8", "recipe.hcpr.scale=9"],
        ["search.hcpr.scale.low=5", "hcpr.scale=9"],
        ["search.optimiser.lr@mart.low=5", "recipe.optimiser.lr=9"],
    ],
)
def test_what_would_undo_what_was_given_before_is_refused(texts):
    with pytest.raises(InputError, match="after it would undo that"):
        parse_assignments(texts, below="recipe.")


def test_a_part_may_be_given_after_its_table():
    assert parse_assignments(["search.a={low=1}", "search.a.high=2", "ab=1", "b=1"], below="recipe.")[1] == (
        "search.a.high",
        2,
    )


def test_messages_repeat_a_long_value_in_part():
    assert show("x" * 5000).endswith('xxx" (5002 characters)')
    assert len(show(list(range(20_000)))) < 200
    assert show(10**5000) == "a whole number of about 5001 digits"
    assert show([1.5, "a"]) == '[1.5, "a"]'
    assert shorten("a" * 120) == "a" * 120


def test_a_value_in_toml_is_whole_and_reads_the_same():
    value = "x" * 500 + '\\"\r\n\t\x7f\x01é'
    for whole in (value, [value, 1.5e300, True], {"a.b": {value.strip(): [1]}, "": -1}):
        assert parse_toml(f"a = {in_toml(whole)}", "f") == {"a": whole}
    assert parse_toml(tomli_w.dumps({"a": -0.0}), "f")["a"] == 0
    assert math.isnan(parse_toml("a = nan", "f")["a"])
