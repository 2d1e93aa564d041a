"""Images of every kind that Pillow writes, each with its expected pixels, computed here and not by Pillow."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Kind:
    """How a file is made: `make(generator, (height, width))` gives its bytes and pixels; None: it must be refused."""

    name: str
    suffix: str
    make: Callable[[np.random.Generator, tuple[int, int]], tuple[bytes, np.ndarray | None]]
    tolerance: int = 0
    words: str = ""
    """What a refusal says."""


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours (..., 1 or 3) of which `alpha` says how much is seen, on white paper."""
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def samples(drawn: np.random.Generator, size: tuple[int, int], channels: int) -> np.ndarray:
    return drawn.integers(0, 256, (*size, channels), dtype=np.uint8)


def plain(mode: str, form: str, to_pixels: Callable[[np.ndarray], np.ndarray | None], **options: object):
    """Files of a mode with 8 bits a sample."""

    def make(drawn, size):
        channels = {"L": 1, "LA": 2, "RGB": 3, "YCbCr": 3, "LAB": 3}.get(mode, 4)
        values = samples(drawn, size, channels)
        image = Image.frombytes(mode, size[::-1], values.tobytes())
        return encoded(image, form, **options), to_pixels(values.astype(float))

    return make


def cmyk(v):
    return (255 - v[..., :3]) * (255 - v[..., 3:]) / 255


def ycbcr(v):
    y, cb, cr = v[..., 0], v[..., 1] - 128, v[..., 2] - 128
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1), 0, 255)


def bits(form):
    def make(drawn, size):
        values = drawn.integers(0, 2, size).astype(bool)
        return encoded(Image.fromarray(values), form), values[..., None] * 255

    return make


def deep(form, dtype="<u2", high=65536, **options):
    def make(drawn, size):
        values = drawn.integers(0, high, size)
        mode = np.int32 if dtype == "i" else dtype
        return encoded(Image.fromarray(values.astype(mode)), form, **options), values[..., None] / 65535 * 255

    return make


def floats(form, one=1.0, seen=True):
    """Values from 0 to 1, and `one` among them."""

    def make(drawn, size):
        values = drawn.uniform(0, 1, size).astype(np.float32)
        values.flat[0] = one
        return encoded(Image.fromarray(values), form), values[..., None].astype(float) * 255 if seen else None

    return make


def palette(form, transparency: str = ""):
    """Indices into 16 colours, of which one may be seen through, wholly or in part."""

    def make(drawn, size):
        colours, indices = samples(drawn, (16, 3), 1)[..., 0], drawn.integers(0, 16, size, dtype=np.uint8)
        image = Image.frombytes("P", size[::-1], indices.tobytes())
        image.putpalette(colours.tobytes())
        alpha = np.full(16, 255)
        options: dict[str, object] = {}
        if transparency == "index":
            alpha[3], options = 0, {"transparency": 3}
        elif transparency == "table":
            alpha = drawn.integers(0, 256, 16)
            options = {"transparency": bytes(alpha.tolist())}
        return encoded(image, form, **options), on_white(colours[indices].astype(float), alpha[indices])

    return make


def palette_alpha(drawn, size):
    colours, both = samples(drawn, (256, 3), 1)[..., 0], samples(drawn, size, 2)
    image = Image.frombytes("PA", size[::-1], both.tobytes())
    image.putpalette(colours.tobytes())
    return encoded(image, "TIFF"), on_white(colours[both[..., 0]].astype(float), both[..., 1])


def keyed(mode):
    """PNG files that name one gray value, or colour, as transparent."""

    def make(drawn, size):
        if mode == "I;16":
            values = drawn.integers(0, 4, size) * 16000 + 7
            image, key, one = Image.fromarray(values.astype("<u2")), 16007, 16007
            return encoded(image, "PNG", transparency=key), np.where(values == one, 65535, values)[..., None] / 257
        values = drawn.integers(0, 3, (*size, 3 if mode == "RGB" else 1)) * 100
        image = Image.fromarray(values.astype(np.uint8) if mode == "RGB" else values[..., 0].astype(np.uint8))
        key = (100, 100, 100) if mode == "RGB" else 100
        seen = (values != 100).any(-1, keepdims=True)
        return encoded(image, "PNG", transparency=key), np.where(seen, values, 255)

    return make


def shape_in_alpha(drawn, size):
    """Black everywhere; what is drawn is in the alpha channel alone."""
    alpha = samples(drawn, size, 1)[..., 0]
    image = Image.fromarray(np.dstack([np.zeros((*size, 3), np.uint8), alpha]))
    return encoded(image, "PNG"), on_white(np.zeros((*size, 3)), alpha)


def shape_in_white(drawn, size):
    """White everywhere: on white nothing is left of it."""
    image = Image.fromarray(np.dstack([np.full((*size, 3), 255, np.uint8), samples(drawn, size, 1)]))
    return encoded(image, "PNG"), None


def lossy(form, **options):
    """A ramp, which survives compression nearly."""

    def make(drawn, size):
        ramp = np.add.outer(np.arange(size[0]), np.arange(size[1])) * 4 + int(drawn.integers(0, 60))
        colours = np.repeat(ramp[..., None].clip(0, 255), 3, -1)
        return encoded(Image.fromarray(colours.astype(np.uint8)), form, quality=95, **options), colours

    return make


def frames(form):
    """Two frames or pages; the first one counts."""

    def make(drawn, size):
        first, second = samples(drawn, size, 3), samples(drawn, size, 3)
        images = [Image.fromarray(first // 86 * 86), Image.fromarray(second // 86 * 86)]
        return encoded(images[0], form, save_all=True, append_images=images[1:]), first // 86 * 86

    return make


TURNS = {
    1: lambda v: v,
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.transpose(1, 0, 2),
    6: lambda v: v.transpose(1, 0, 2)[:, ::-1],
    7: lambda v: v[::-1, ::-1].transpose(1, 0, 2),
    8: lambda v: v.transpose(1, 0, 2)[::-1],
}
"""From stored to displayed pixels, by EXIF orientation (the standard's table: where row 0 and column 0 are)."""


def turned(form, orientation):
    """Stored so that it is seen, turned by EXIF, as (height, width) = size."""

    def make(drawn, size):
        stored = size[::-1] if orientation >= 5 else size
        values = samples(drawn, stored, 3)
        exif = Image.Exif()
        exif[0x0112] = orientation
        more = {"lossless": True} if form == "WEBP" else {}
        return encoded(Image.fromarray(values), form, exif=exif, **more), TURNS[orientation](values)

    return make


def damaged(what):
    def make(drawn, size):
        whole = encoded(Image.fromarray(samples(drawn, size, 3)), "PNG")
        return {
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "text": b"not an image",
            # Pillow's reader of it starts Ghostscript.
            "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        }[what], None

    return make


def bomb(width, height):
    """A PNG of a few kilobytes whose header asks for so many pixels."""

    def make(drawn, size):
        def chunk(name, data):
            body = name + data
            return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

        header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
        data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + data, None

    return make


def same(v):
    return v


def never(v):
    return None


GOOD = (
    *(
        Kind(f"1 {form}", suffix, bits(form))
        for form, suffix in (("PNG", "png"), ("TIFF", "tif"), ("BMP", "bmp"), ("PPM", "pbm"))
    ),
    *(
        Kind(f"{mode} {form}", suffix, plain(mode, form, same))
        for mode, form, suffix in (
            ("L", "PNG", "png"), ("L", "BMP", "bmp"), ("L", "PPM", "pgm"), ("L", "TIFF", "tiff"), ("RGB", "PNG", "PNG"),
            ("RGB", "BMP", "bmp"), ("RGB", "DIB", "dib"), ("RGB", "PPM", "ppm"), ("RGB", "TIFF", "tif"),
        )
    ),
    *(
        Kind(f"LA {form}", suffix, plain("LA", form, lambda v: on_white(v[..., :1], v[..., 1])))
        for form, suffix in (("PNG", "png"), ("TIFF", "tif"))
    ),
    *(
        Kind(f"RGBA {form}", suffix, plain("RGBA", form, lambda v: on_white(v[..., :3], v[..., 3])))
        for form, suffix in (("PNG", "png"), ("TIFF", "tif"))
    ),
    Kind("RGBX TIFF", "tif", plain("RGBX", "TIFF", lambda v: v[..., :3])),
    Kind("CMYK TIFF", "tif", plain("CMYK", "TIFF", cmyk), tolerance=1),
    Kind("YCbCr TIFF", "tif", plain("YCbCr", "TIFF", ycbcr), tolerance=2),
    Kind("RGB WEBP", "webp", plain("RGB", "WEBP", same, lossless=True)),
    *(
        Kind(f"P {form} {kind}", suffix, palette(form, kind))
        for form, suffix, kind in (
            ("PNG", "png", ""), ("PNG", "png", "index"), ("PNG", "png", "table"),
            ("GIF", "gif", ""), ("GIF", "gif", "index"), ("BMP", "bmp", ""), ("TIFF", "tif", ""),
        )
    ),
    Kind("PA TIFF", "tif", palette_alpha),
    Kind("I;16 PNG", "png", deep("PNG")),
    Kind("I;16 PNG, dark", "png", deep("PNG", high=4096)),
    Kind("I;16 TIFF", "tif", deep("TIFF")),
    Kind("I;16B TIFF", "tif", deep("TIFF", ">u2")),
    Kind("I;16 TIFF, 0 is white", "tif", lambda drawn, size: _negative(*deep("TIFF", tiffinfo={262: 0})(drawn, size))),
    Kind("I PPM", "pgm", deep("PPM", "i")),
    Kind("F TIFF", "tif", floats("TIFF")),
    Kind("F PPM", "ppm", floats("PPM")),
    *(Kind(f"key {mode}", "png", keyed(mode)) for mode in ("L", "RGB", "I;16")),
    Kind("shape in alpha", "png", shape_in_alpha),
    *(
        Kind(f"lossy {form} {suffix}", suffix, lossy(form), tolerance=9)
        for form, suffix in (("JPEG", "jpg"), ("JPEG", "jfif"), ("JPEG", "JPE"), ("WEBP", "webp"))
    ),
    *(
        Kind(f"frames {form}", suffix, frames(form))
        for form, suffix in (("GIF", "gif"), ("TIFF", "tif"), ("PNG", "png"))
    ),
    *(
        Kind(f"turned {form} {turn}", suffix, turned(form, turn))
        for form, suffix in (("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp"))
        for turn in TURNS
    ),
)  # fmt: skip

BAD = (
    Kind("LAB TIFF", "tif", plain("LAB", "TIFF", never), words="mode LAB cannot be converted"),
    Kind(
        "I TIFF", "tif", lambda drawn, size: (deep("TIFF", "i")(drawn, size)[0], None),
        words="mode I does not define which value is white",
    ),
    Kind("F above 1", "tif", floats("TIFF", 200.0, seen=False), words="floats outside 0 to 1"),
    Kind("F below 0", "tif", floats("TIFF", -0.5, seen=False), words="floats outside 0 to 1"),
    Kind("F without a number", "tif", floats("TIFF", np.nan, seen=False), words="floats outside 0 to 1"),
    Kind("shape in white", "png", shape_in_white, words="nothing of it is visible on white"),
    *(
        Kind(f"damaged: {what}", "png", damaged(what), words=words)
        for what, words in (
            ("empty", "empty file"), ("cut", "damaged"), ("text", "none of JPEG"), ("PostScript", "none of JPEG"),
        )
    ),
    *(
        Kind(f"bomb {width}x{height}", "png", bomb(width, height), words="67,108,864 are allowed")
        for width, height in ((9000, 9000), (12000, 12000), (60000, 60000))
    ),
)  # fmt: skip


def _negative(data: bytes, pixels: np.ndarray) -> tuple[bytes, np.ndarray]:
    return data, 255 - pixels
