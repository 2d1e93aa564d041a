"""Every kind of image file gives the pixels that it means, or is refused by name; none is run."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hcpr_tune
from hcpr_tune.training.data import pixels
from hcpr_tune.training.data.pixels import Traits, Unreadable, quiet, read_header, read_picture
from tests.training.image_files import BAD, GOOD, encoded

SIZE = (6, 9)


def written(tmp_path, kind, seed=0):
    """The file of a kind, and what it means."""
    data, means = kind.make(np.random.default_rng(seed), SIZE)
    path = tmp_path / f"image.{kind.suffix}"
    path.write_bytes(data)
    return path, means


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.name)
def test_pixels_are_what_the_samples_mean(kind, tmp_path):
    for seed in range(3):
        path, means = written(tmp_path, kind, seed)
        with quiet():
            picture, header = read_picture(path), read_header(path)
        assert picture.header == header
        assert header.size == SIZE
        found = picture.pixels[..., None] if header.gray else picture.pixels
        np.testing.assert_allclose(
            found.astype(float), np.broadcast_to(means, found.shape), rtol=0, atol=0.5 + kind.tolerance
        )


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.name)
def test_what_cannot_be_read_rightly_is_refused_by_name(kind, tmp_path):
    path, _ = written(tmp_path, kind)
    with pytest.raises(Unreadable, match=kind.words), quiet():
        read_picture(path)


def traits(tmp_path, name):
    path, _ = written(tmp_path, next(kind for kind in GOOD if kind.name == name))
    return read_picture(path).traits


def test_what_was_decided_about_an_image_is_told(tmp_path):
    palette, deep = "with a palette", "gray of 16 bits (65535 is white)"
    assert traits(tmp_path, "RGBA PNG") == traits(tmp_path, "key L") == Traits(transparent=True)
    assert traits(tmp_path, "P GIF index") == Traits(transparent=True, converted=palette)
    assert traits(tmp_path, "frames GIF") == Traits(frames=True, converted=palette)
    assert traits(tmp_path, "frames TIFF") == Traits(frames=True)
    assert traits(tmp_path, "I;16 PNG, dark") == Traits(dark=True, converted=deep)
    assert traits(tmp_path, "I;16 PNG") == Traits(converted=deep)
    assert traits(tmp_path, "CMYK TIFF") == Traits(converted="CMYK")
    assert traits(tmp_path, "RGB PNG") == traits(tmp_path, "RGBX TIFF") == traits(tmp_path, "L PNG") == Traits()
    for form in ("PNG", "TIFF", "WEBP"):
        assert traits(tmp_path, f"turned {form} 1") == Traits()
        assert traits(tmp_path, f"turned {form} 6") == Traits(turned=True)


def test_alpha_that_hides_nothing_is_no_trait(tmp_path):
    Image.new("RGBA", (9, 6), (10, 20, 30, 255)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.traits == Traits()
    assert picture.pixels[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(("bits", "key"), [(2, 1), (4, 5)])
def test_a_transparent_gray_of_few_bits_is_found(tmp_path, bits, key):
    """Pillow spreads such samples over 0 to 255, and leaves the transparent one as it is stored."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = bytes([0, (key << 4) | 2]) if bits == 4 else bytes([0, (key << 6) | (2 << 4)])
    header = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", key)) + chunk(b"IDAT", zlib.compress(row))
    (tmp_path / "few.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b""))
    assert read_picture(tmp_path / "few.png").pixels.tolist() == [[255, 2 * 255 // (2**bits - 1)]]


def test_a_header_is_read_without_the_pixels(tmp_path):
    data = encoded(Image.new("L", (300, 200), 7), "PNG")
    (tmp_path / "cut.png").write_bytes(data[:60])
    assert read_header(tmp_path / "cut.png").size == (200, 300)
    with pytest.raises(Unreadable, match="damaged"):
        read_picture(tmp_path / "cut.png")


def test_an_image_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    """By default Pillow knows PostScript by its first bytes, and hands it to Ghostscript."""
    from PIL import EpsImagePlugin

    def run(*arguments, **options):
        raise AssertionError("PostScript was run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    kind = next(kind for kind in BAD if kind.name == "damaged: PostScript")
    path, _ = written(tmp_path, kind)
    with Image.open(path) as image:
        assert image.format == "EPS"
    with pytest.raises(Unreadable, match="none of JPEG, PNG"):
        read_picture(path)
    assert "EPS" not in pixels.FORMATS


def test_images_are_opened_with_a_closed_list_of_formats_everywhere():
    calls = [
        (path.name, node)
        for path in Path(hcpr_tune.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
    ]
    assert {name for name, _ in calls} == {"pixels.py", "drawing.py"}
    assert all("formats" in {word.arg for word in node.keywords} for _, node in calls)
