"""Decoding of one image file to 8-bit gray or colour: every mode that Pillow opens is converted correctly or rejected.

The rules: 65535 in 16-bit images and 1.0 in floats are white; transparent parts are shown on white; the EXIF
orientation is applied; only the first of several frames or pages is used. Colour profiles are not applied.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "PPM", "TIFF")
"""Accepted formats, whatever the file is called. Pillow goes by content and would even run PostScript."""

MOST_PIXELS = 2**26
"""Checked before an image is decoded: a file of a few kilobytes may require any amount of memory."""

FEW_LEVELS = 4096
"""16-bit images that stay below this brightness probably hold 12 bits or fewer."""

EIGHT_BITS = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("LA", "La"), "LA"),
    **dict.fromkeys(("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"), "RGB"),
    **dict.fromkeys(("PA", "RGBA", "RGBa"), "RGBA"),
}
"""Modes that Pillow itself converts correctly, and the target mode."""
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
SCALED = {"L;2": 85, "L;4": 17}
"""Factors for low-bit samples: Pillow scales them to 0..255, but not the file's transparent value."""
GRAY = ("1", "L", "LA", "La", "I", "F", *DEEP)
SCALED_TO_16_BITS = ("PNG", "PPM")
"""Formats whose mode I is 16 bits deep; elsewhere it has 32 bits, and white is undefined."""

T = TypeVar("T")


class Unreadable(Exception):
    """An image cannot be read; the message says why in a few words."""


@dataclass(frozen=True)
class Header:
    """What is known of a file before it is decoded. `size` is height and width, after EXIF rotation."""

    gray: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class Stored:
    """What Pillow knows of a file but does not apply to its pixels: the sample format, and whether 0 is white."""

    samples: str
    inverted: bool

    @classmethod
    def of(cls, image: Image) -> Stored:
        from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

        tiles = getattr(image, "tile", [])
        args = tiles[0].args if tiles else ""
        tags = getattr(image, "tag_v2", {})
        return cls(args if isinstance(args, str) else str(args[0]), tags.get(PHOTOMETRIC_INTERPRETATION) == 0)


@dataclass(frozen=True)
class Traits:
    """Properties to report to the user: transparent parts, several frames, 16-bit images that use few levels, an EXIF
    orientation, and from what the pixels were converted, empty for 8-bit gray and RGB."""

    transparent: bool = False
    frames: bool = False
    dark: bool = False
    turned: bool = False
    converted: str = ""


@dataclass(frozen=True)
class Picture:
    """`pixels` are uint8, (H, W) for gray or (H, W, 3) for colour."""

    pixels: np.ndarray
    traits: Traits

    @property
    def header(self) -> Header:
        return Header(self.pixels.ndim == 2, (self.pixels.shape[0], self.pixels.shape[1]))


def read_picture(path: Path) -> Picture:
    """Decode the whole file. Raises `Unreadable`."""
    return _reading(path, _picture)


def read_header(path: Path) -> Header:
    """Read kind and size without decoding pixels. Raises `Unreadable`."""
    return _reading(path, _header)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings, but turn those about huge images into errors. Not thread-safe."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reading(path: Path, take: Callable[[Image], T]) -> T:
    """The result of `take` on the opened image. Raises `Unreadable` for any problem with the file or its content."""
    from PIL import Image, UnidentifiedImageError

    try:
        seen = path.stat()
        # Opening a pipe or a device could block.
        if not stat.S_ISREG(seen.st_mode):
            raise Unreadable("not a regular file")
        if seen.st_size == 0:
            raise Unreadable("empty file")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Unreadable(_too_large(f"{image.width}x{image.height}"))
            return take(image)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"none of {', '.join(FORMATS)}, or damaged") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(_too_large("more")) from None
    except OSError as error:
        raise Unreadable(error.strerror or f"damaged: {error}") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise Unreadable(f"damaged: {type(error).__name__}") from None


def _too_large(size: str) -> str:
    return f"{size} pixels; {MOST_PIXELS:,} are allowed"


def _header(image: Image) -> Header:
    height, width = image.height, image.width
    # Pillow already rotates the size of a TIFF, and would decode a PNG to look for EXIF at its end.
    if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info) and _orientation(image) >= 5:
        height, width = width, height
    return Header(image.mode in GRAY, (height, width))


def _orientation(image: Image) -> int:
    from PIL.ExifTags import Base

    try:
        found = image.getexif().get(Base.Orientation, 1)
    except Exception:  # ignore malformed EXIF
        return 1
    return found if found in range(1, 9) else 1


def _picture(image: Image) -> Picture:
    from PIL import ImageOps

    # Read before loading, which discards it.
    stored = Stored.of(image)
    turns_itself = image.format == "TIFF" and _orientation(image) != 1
    image.load()
    if image.format != "TIFF" and _orientation(image) != 1:
        turned = ImageOps.exif_transpose(image)
        turned.format = image.format
    else:
        turned = image
    colours, alpha = _eight_bits(turned, stored)
    traits = Traits(
        frames=bool(getattr(image, "is_animated", False)),
        turned=turns_itself or turned is not image,
        converted=_conversion(image.mode, stored),
    )
    if turned.mode in DEEP or turned.mode == "I":
        traits = replace(traits, dark=0 < int(np.asarray(turned).max()) < FEW_LEVELS)
    if alpha is None or alpha.min() == 255:
        return Picture(colours, traits)
    return Picture(_on_white(colours, alpha), replace(traits, transparent=True))


def _conversion(mode: str, stored: Stored) -> str:
    """From what pixels of a mode are converted, in words; empty for 8-bit gray and RGB."""
    if mode in DEEP or mode == "I":
        return "gray of 16 bits (65535 is white)"
    if mode in ("RGB", "RGBA", "RGBX") and "16" in stored.samples:
        return "colour of 16 bits (the upper 8 are used)"
    words = {"1": "of 1 bit", "F": "floats (1 is white)", "P": "with a palette", "PA": "with a palette"}
    return words.get(mode, "" if mode in ("L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX") else mode)


def _eight_bits(image: Image, stored: Stored) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours as uint8, and the alpha channel (255: opaque); None if there is none."""
    key = image.info.get("transparency")
    if image.mode in DEEP or (image.mode == "I" and image.format in SCALED_TO_16_BITS):
        values = np.asarray(image).astype(np.int64)
        # 65535 is 257 * 255, so this rounds to the nearest of the 256 values.
        gray = ((values + 128) // 257).astype(np.uint8)
        return 255 - gray if stored.inverted else gray, _keyed(values[..., None], key)
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise Unreadable("floats outside 0 to 1; save it with 8 or 16 bits")
        gray = np.rint(values * 255).astype(np.uint8)
        return 255 - gray if stored.inverted else gray, None
    target = EIGHT_BITS.get(image.mode)
    if target is None:
        why = "does not define which value is white" if image.mode == "I" else "cannot be converted"
        raise Unreadable(f"mode {image.mode} {why}; save it as 8-bit gray or RGB")
    if image.mode == "P" and key is not None:
        target = "RGBA"
    pixels = np.asarray(image.convert(target))
    if target == "LA":
        return pixels[..., 0], pixels[..., 1]
    if target == "RGBA":
        return pixels[..., :3], pixels[..., 3]
    if key is not None and "16" in stored.samples:
        raise Unreadable("16-bit colours with a transparent one; save it as RGBA")
    if isinstance(key, int):
        key *= SCALED.get(stored.samples, 1)
    return pixels, _keyed(pixels if target == "RGB" else pixels[..., None], key)


def _keyed(values: np.ndarray, key: object) -> np.ndarray | None:
    """An alpha channel from the one value or colour that the file declares transparent."""
    if not isinstance(key, int | tuple):
        return None
    return np.where((values == np.asarray(key)).all(-1), 0, 255).astype(np.uint8)


def _on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours on white. Raises `Unreadable` if that makes the picture invisible."""
    cover = alpha.astype(np.int64) if colours.ndim == 2 else alpha.astype(np.int64)[..., None]
    laid = ((colours * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)

    def flat(values: np.ndarray) -> bool:
        return bool((values == values[:1, :1]).all())

    if flat(laid) and not (flat(alpha) and flat(colours)):
        raise Unreadable(
            "nothing of it is visible on white, where transparent parts are shown; save it without transparency"
        )
    return laid
