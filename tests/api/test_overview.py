"""What `init` says of a folder: each number is counted anew here, and each warning has its limit on both sides."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcpr_tune.api.datasets.look import look
from hcpr_tune.api.datasets.overview import MOST_ROWS, class_table, overview, warnings
from hcpr_tune.api.datasets.starter import starter_space
from hcpr_tune.common.statistics import smallest_difference
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.data.dataset import load_data
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.views.verdicts import smallest_words
from tests.training.test_folders import task, write_images

SPACES = Path(__file__).parents[2] / "search_spaces"


def lines_of(folder: Path, beginning: str) -> list[str]:
    return [line.partition(beginning)[2].strip() for line in overview(look(folder)) if line.startswith(beginning)]


@pytest.mark.parametrize("parts", [(), ("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_the_table_counts_what_a_search_will_see(tmp_path, parts):
    for number, part in enumerate(parts or (".",)):
        write_images(tmp_path / part, classes=("cat", "dog"), count=23 - 4 * number)
        write_images(tmp_path / part, classes=("owl",), count=9)
    rows = [line.split() for line in class_table(look(tmp_path))]
    assert rows[0] == ["class", "images", "train", "validation", "test"]
    data, test = load_data(task(tmp_path)), open_test(task(tmp_path))
    for label, name in enumerate(("cat", "dog", "owl")):
        counts = [int((split.labels == label).sum()) for split in (data.train, data.validation, test)]
        assert rows[1 + label] == [name, str(sum(counts)), *map(str, counts)]
    sums = [len(data.train), len(data.validation), len(test)]
    assert rows[-1] == ["3", "classes", str(sum(sums)), *map(str, sums)]


def test_the_splits_are_told_by_their_origin(tmp_path):
    write_images(tmp_path / "a")
    assert lines_of(tmp_path / "a", "splits") == ["validation and test are drawn, 20 % of each class, always the same"]
    for part in ("Train", "Valid", "test"):
        write_images(tmp_path / "b" / part)
    (said,) = lines_of(tmp_path / "b", "splits")
    assert said == "Valid/ is the validation, as a whole; test/ is the test, of which only names and headers were read"


def test_a_name_of_any_script_keeps_the_columns_straight(tmp_path):
    from rich.cells import cell_len

    write_images(tmp_path, classes=("猫の写真", "b" * 100, "Größe"))
    table = class_table(look(tmp_path))
    assert len({cell_len(line) for line in table}) == 1
    assert any("…" in line for line in table)


def test_of_many_classes_the_smallest_and_the_largest_are_shown(tmp_path):
    for number in range(MOST_ROWS + 7):
        write_images(tmp_path, classes=(f"c{number:02d}",), count=5 + number % 11, size=(4, 4))
    table = class_table(look(tmp_path))
    assert len(table) == MOST_ROWS + 3
    shown = [int(line.split()[1]) for line in table[1:-1] if not line.startswith("...")]
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (5, 15)
    assert [line for line in table if line.startswith("...")] == ["... 7 more classes of 8 to 10 images"]


def test_what_is_resized_is_counted(tmp_path):
    write_images(tmp_path / "a", size=(16, 16))
    assert lines_of(tmp_path / "a", "sizes") == ["16x16 (30); none is resized"]
    write_images(tmp_path / "a", classes=("cat",), count=2, size=(16, 20))
    said = "16x16 (28), 16x20 (2); 2 of 30 resized to 16x16, bilinear, as networks take one size; 2 are no squares and"
    assert lines_of(tmp_path / "a", "sizes") == [f"{said} are stretched"]
    write_images(tmp_path / "b" / "train", size=(16, 16))
    write_images(tmp_path / "b" / "test", size=(20, 20))
    (said,) = lines_of(tmp_path / "b", "sizes")
    assert said == "16x16 (30); test images resized to 16x16, bilinear, as networks take one size"


def test_what_is_converted_is_counted(tmp_path):
    write_images(tmp_path, mode="L")
    assert lines_of(tmp_path, "colour") == ["gray, one channel"]
    assert lines_of(tmp_path, "converted") == []
    assert lines_of(tmp_path, "skipped") == ["nothing"]
    colours = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    image.quantize(16).save(tmp_path / "cat" / "palette.png")
    image.convert("CMYK").save(tmp_path / "cat" / "print.tif")
    turned = image.resize((10, 12)).getexif()
    turned[274] = 6
    image.resize((10, 12)).save(tmp_path / "cat" / "turned.jpg", exif=turned)
    said = lines_of(tmp_path, "converted")
    assert said[:3] == ["1 image: with a palette", "1 image: CMYK", "1 image: turned as their EXIF data say"]
    (said,) = lines_of(tmp_path, "sizes")
    assert said.startswith(
        "12x10 (33); 33 of 33 resized to 8x8, bilinear, as networks take one size; 33 are no squares"
    )


def test_the_smallest_difference_is_that_of_a_verdict_on_these_images(tmp_path):
    write_images(tmp_path, count=40)
    validation, scores = lines_of(tmp_path, "power"), lines_of(tmp_path, "scores")
    seeds = read_default().settings.verdict.seeds
    difference = smallest_difference(24, seeds)
    assert validation == [smallest_words("validation", 24, seeds, difference)]
    assert f"{100 * difference:.1f} points" in validation[0]
    assert scores == ["one robust accuracy on 24 images is known to ± 18.6 points (95 %)"]


def read_default():
    return read_study(SPACES / "default.toml")


def warned(folder: Path) -> list[str]:
    return list(warnings(look(folder)))


def test_few_validation_images_are_warned_about(tmp_path):
    write_images(tmp_path / "a" / "train", count=60)
    write_images(tmp_path / "a" / "val", classes=("cat", "dog"), count=20)
    write_images(tmp_path / "a" / "val", classes=("owl",), count=10)
    assert warned(tmp_path / "a") == []
    (tmp_path / "a" / "val" / "owl" / "000.png").unlink()
    in_all, per_class = warned(tmp_path / "a")
    assert in_all.startswith("49 validation images are few, 50 or more are wanted")
    assert in_all.endswith("; add images to val/")
    assert per_class.startswith("1 of 3 classes have fewer than 10 validation images (owl 9)")
    write_images(tmp_path / "b", count=40)
    assert [words.endswith("; add images, or raise task.validation_fraction") for words in warned(tmp_path / "b")] == [
        True, True
    ]  # fmt: skip


def test_uneven_classes_are_warned_about(tmp_path):
    write_images(tmp_path / "train", classes=("cat",), count=100, size=(4, 4))
    write_images(tmp_path / "train", classes=("owl",), count=5, size=(4, 4))
    for part in ("val", "test"):
        write_images(tmp_path / part, classes=("cat", "owl"), count=25, size=(4, 4))
    assert warned(tmp_path) == []
    (tmp_path / "train" / "owl" / "000.png").unlink()
    (said,) = warned(tmp_path)
    assert said.startswith("cat has 25 times as many training images as owl (100 and 4; up to 20 times is usual)")


def test_warnings_do_not_stop_the_space_and_a_class_that_cannot_be_split_does(tmp_path, command):
    write_images(tmp_path / "few", count=5)
    done = command("init", "few")
    assert done.returncode == 0
    assert "WARNING      3 validation images are few" in done.stdout
    assert done.stderr == "looking at 15 images in few ...\n"
    write_images(tmp_path / "few", classes=("yak",), count=2)
    done = command("init", "few", "--out", "other.toml")
    assert done.returncode == 2
    assert "error: FOLDER few: class 3 (yak) has 2 images, and training, validation, test need one" in done.stderr
    assert not (tmp_path / "other.toml").exists()


def test_the_space_is_like_the_shipped_ones(tmp_path, command):
    """Its schema is beside it, each table has a comment, and no dimension is drawn that has no meaning."""
    write_images(tmp_path / "f", count=20)
    assert command("init", "f").returncode == 0
    text = (tmp_path / "search_spaces" / "f.toml").read_text(encoding="utf-8")
    default = (SPACES / "default.toml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == default.splitlines()[0]
    schema = json.loads((tmp_path / "search_spaces" / "space.schema.json").read_text(encoding="utf-8"))
    assert schema == json.loads((SPACES / "space.schema.json").read_text(encoding="utf-8"))
    search, usual = (tomllib.loads(one)["search"] for one in (text, default))
    assert {name: one.get("when") for name, one in search.items() if name in usual} == {
        name: one.get("when") for name, one in usual.items()
    }
    assert max(map(len, text.splitlines())) <= 120


def test_names_that_are_no_words_of_toml_stay_in_their_comment(tmp_path):
    write_images(tmp_path, classes=("a\u2028b".replace("\u2028", "\u202e"), "{x}", '"""'))
    (tmp_path / "space.toml").write_text(starter_space(tmp_path), encoding="utf-8")
    assert len(read_study(tmp_path / "space.toml").space) == 10
