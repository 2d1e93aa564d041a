"""One image file, from its bytes to 8-bit gray or colour: every mode that Pillow opens is converted rightly or refused by name.

What an image means is decided here, once: 65535 of 16 bits and 1.0 of a float are white; what is transparent lies on white; a picture is turned
as its EXIF orientation says; of several frames or pages the first one counts. Colour profiles are not applied.
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
"""All that a file may be, whatever its name says. Pillow goes by content and knows formats that are programs: PostScript is run."""

MOST_PIXELS = 2**26
"""Of one image, before it is decoded: a file of a few kilobytes may ask for any amount of memory."""

FEW_LEVELS = 4096
"""Images of 16 bits that stay below this brightness probably hold 12 bits or fewer."""

EIGHT_BITS = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("LA", "La"), "LA"),
    **dict.fromkeys(("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"), "RGB"),
    **dict.fromkeys(("PA", "RGBA", "RGBa"), "RGBA"),
}
"""What Pillow converts rightly by itself, and to what."""
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
SCALED = {"L;2": 85, "L;4": 17}
"""Samples of few bits that Pillow spreads over 0 to 255, and not what the file names as transparent."""
GRAY = ("1", "L", "LA", "La", "I", "F", *DEEP)
SCALED_TO_16_BITS = ("PNG", "PPM")
"""Formats whose mode I is 16 bits deep; elsewhere it has 32 bits, and nobody knows which number is white."""

T = TypeVar("T")


class Unreadable(Exception):
    """Why an image is not read, in a few words."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded. `size` is height and width, turned as the image will be."""

    gray: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class Stored:
    """What Pillow knows of a file and does not apply to its pixels: the form of the samples, and whether 0 is white."""

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
    """What is said of images of which something was decided: see-through parts, further frames, 16 bits of which only few levels are used."""

    transparent: bool = False
    frames: bool = False
    dark: bool = False


@dataclass(frozen=True)
class Picture:
    """`pixels` are uint8, (H, W) of gray or (H, W, 3) of colour."""

    pixels: np.ndarray
    traits: Traits

    @property
    def header(self) -> Header:
        return Header(self.pixels.ndim == 2, (self.pixels.shape[0], self.pixels.shape[1]))


def read_picture(path: Path) -> Picture:
    """The whole file decoded. Raises `Unreadable`."""
    return _reading(path, _picture)


def read_header(path: Path) -> Header:
    """Kind and size, without decoding a pixel. Raises `Unreadable`."""
    return _reading(path, _header)


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow warns of much that is decided here; what it warns of because of its size is an error. Not for use by several threads at once."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reading(path: Path, take: Callable[[Image], T]) -> T:
    """What `take` makes of the opened image; whatever goes wrong with a file, on the disk or inside it, is `Unreadable`."""
    from PIL import Image, UnidentifiedImageError

    try:
        seen = path.stat()
        # A pipe or a device would be waited for.
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
    except Exception as error:  # Pillow's readers raise nearly everything on damaged files
        raise Unreadable(f"damaged: {type(error).__name__}") from None


def _too_large(size: str) -> str:
    return f"{size} pixels; {MOST_PIXELS:,} are allowed"


def _header(image: Image) -> Header:
    height, width = image.height, image.width
    # Pillow gives the turned size of a TIFF, and decodes a PNG to find out where its EXIF comes last.
    if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info) and _orientation(image) >= 5:
        height, width = width, height
    return Header(image.mode in GRAY, (height, width))


def _orientation(image: Image) -> int:
    from PIL.ExifTags import Base

    try:
        found = image.getexif().get(Base.Orientation, 1)
    except Exception:  # EXIF that nobody understands says nothing
        return 1
    return found if found in range(1, 9) else 1


def _picture(image: Image) -> Picture:
    from PIL import ImageOps

    # Asked before the pixels are there: afterwards it is gone.
    stored = Stored.of(image)
    image.load()
    if image.format != "TIFF" and _orientation(image) != 1:
        turned = ImageOps.exif_transpose(image)
        turned.format = image.format
    else:
        turned = image
    colours, alpha = _eight_bits(turned, stored)
    traits = Traits(frames=bool(getattr(image, "is_animated", False)))
    if turned.mode in DEEP or turned.mode == "I":
        traits = replace(traits, dark=0 < int(np.asarray(turned).max()) < FEW_LEVELS)
    if alpha is None or alpha.min() == 255:
        return Picture(colours, traits)
    return Picture(_on_white(colours, alpha), replace(traits, transparent=True))


def _eight_bits(image: Image, stored: Stored) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours as uint8, and what covers what lies below, 255 where fully; None where all does."""
    key = image.info.get("transparency")
    if image.mode in DEEP or (image.mode == "I" and image.format in SCALED_TO_16_BITS):
        values = np.asarray(image).astype(np.int64)
        # 65535 is 257 times 255: each of the 256 values is the nearest one.
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
        why = "says of no number that it is white" if image.mode == "I" else "cannot be converted"
        raise Unreadable(f"mode {image.mode} {why}; save it as 8-bit gray or RGB")
    if image.mode == "P" and key is not None:
        target = "RGBA"
    pixels = np.asarray(image.convert(target))
    if target == "LA":
        return pixels[..., 0], pixels[..., 1]
    if target == "RGBA":
        return pixels[..., :3], pixels[..., 3]
    if key is not None and "16" in stored.samples:
        raise Unreadable("16-bit colours of which one is transparent; save it as RGBA")
    if isinstance(key, int):
        key *= SCALED.get(stored.samples, 1)
    return pixels, _keyed(pixels if target == "RGB" else pixels[..., None], key)


def _keyed(values: np.ndarray, key: object) -> np.ndarray | None:
    """Nothing is seen of the one value, or colour, that a file names as transparent."""
    if not isinstance(key, int | tuple):
        return None
    return np.where((values == np.asarray(key)).all(-1), 0, 255).astype(np.uint8)


def _on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours on white. Raises `Unreadable` where a picture then cannot be seen any more."""
    cover = alpha.astype(np.int64) if colours.ndim == 2 else alpha.astype(np.int64)[..., None]
    laid = ((colours * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)

    def flat(values: np.ndarray) -> bool:
        return bool((values == values[:1, :1]).all())

    if flat(laid) and not (flat(alpha) and flat(colours)):
        raise Unreadable("its transparent parts lie on white, on which nothing of it is seen; save it without them")
    return laid
