"""Labelled images before splitting, made from what a data set's reader returns, which is checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcpr_tune.common.text import first_line, one_line
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.parts import named, writable
from hcpr_tune.training.data.registry import DatasetSpec
from hcpr_tune.training.plugins import reporting

RETURNS = "(images, labels), (images, labels, class_names) or a torch data set with a length"
LAYOUTS = "uint8 of shape (N, H, W) or (N, H, W, C) with C = 1 or 3; as a tensor (N, C, H, W)"


@dataclass(frozen=True)
class Pool:
    """Labelled images before splitting.

    `decode` returns uint8 images (N, C, H, W) by position; `white` is the stored value of 1.0. Images from position
    `own_validation` on are the data's own validation part; None: it is drawn from the training part. `notes`: what was
    skipped, and how unusual images are handled.
    """

    decode: Callable[[Sequence[int] | np.ndarray], np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    white: int
    own_validation: int | None = None
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    """Height and width of the files, for images that come from files."""


def of_array(images: np.ndarray, labels: np.ndarray, names: Sequence[str], white: int = 255) -> Pool:
    """A pool of images in memory, (N, C, H, W) uint8."""
    channels, height, width = images.shape[1:]
    return Pool(
        lambda chosen: images[np.asarray(chosen)],
        labels.astype(np.int64),
        tuple(names),
        (channels, height, width),
        white,
    )


def pool_of(returned: Any, spec: DatasetSpec, where: str) -> Pool:
    """The pool of one part, from what the reader of `spec` returned: one of `RETURNS`, images as in `LAYOUTS`.

    The images of a torch data set are read when they are needed. `where` begins the messages. Raises `InputError` for
    other types, shapes, labels and class names, also while images are read.
    """
    if isinstance(returned, tuple):
        if len(returned) not in (2, 3):
            raise InputError(f"{where} must return {RETURNS}, got a tuple of {len(returned)}; return one of these")
        images = _channels_first(returned[0], where)
        labels = _labels(returned[1], len(images), where)
        names = _class_names(returned[2] if len(returned) == 3 else None, labels, spec, where)
        pool = of_array(images, labels, names, spec.white)
    else:
        pool = _of_items(returned, spec, where)
    if spec.shape is not None and pool.shape != spec.shape:
        raise InputError(
            f"{where} must have images of (channels, height, width) = {spec.shape}, got {pool.shape}; "
            "give all parts, and its DatasetSpec, the same shape"
        )
    return pool


def check_every_class(pool: Pool, where: str) -> None:
    """Raise `InputError` unless each class of a training part has an image."""
    counts = np.bincount(pool.labels, minlength=len(pool.class_names))
    empty = [pool.class_names[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        raise InputError(
            f"{where} has no training image of {len(empty)} of its {len(pool.class_names)} classes: {named(empty)}; "
            "number the labels from 0 without gaps"
        )


def _channels_first(images: Any, where: str) -> np.ndarray:
    """Images of an array or a tensor as contiguous uint8, (N, C, H, W)."""
    array = _array(images, where)
    shape, is_tensor = array.shape, hasattr(images, "detach")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and not is_tensor:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3) or not array[:1].size:
        raise InputError(
            f"{where} must have images of {LAYOUTS}, got {array.dtype} {shape}; "
            "convert them, and leave ToTensor and normalisation out"
        )
    return np.ascontiguousarray(array)


def _labels(labels: Any, images: int, where: str) -> np.ndarray:
    array = _array(labels, where)
    if array.dtype.kind not in "iu" or array.shape != (images,):
        raise InputError(
            f"{where} must have one whole number per image as its label, {images} in all, "
            f"got {array.dtype} {array.shape}; give a list or an array (N,)"
        )
    return array.astype(np.int64)


def _array(values: Any, where: str) -> np.ndarray:
    try:
        array: np.ndarray = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except Exception as error:  # ragged lists, types that NumPy does not have
        raise InputError(
            f"{where} has images or labels that are no array: {first_line(error)}; give all of them one shape and type"
        ) from None
    return array


def _class_names(names: Any, labels: np.ndarray, spec: DatasetSpec, where: str) -> tuple[str, ...]:
    """The class names, checked together with the labels; the numbers from 0 on if there are none."""
    count = spec.classes or int(labels.max()) + 1
    found = tuple(map(str, range(count))) if names is None else tuple(names) if isinstance(names, Iterable) else ()
    if not found or not all(isinstance(name, str) and writable(name) for name in found) or len(set(found)) < len(found):
        raise InputError(
            f"{where} must have different texts without control characters as class names, "
            f"got {one_line(repr(names), 200)}; change them"
        )
    if len(found) < 2 or (spec.classes and len(found) != spec.classes):
        wanted = f"{spec.classes}, as its DatasetSpec and its training part have" if spec.classes else "at least 2"
        raise InputError(f"{where}: the number of classes must be {wanted}, got {len(found)}; change its class names")
    if labels.min() < 0 or labels.max() >= len(found):
        raise InputError(
            f"{where} must have labels from 0 to {len(found) - 1}, one per class name, "
            f"got {labels.min()} to {labels.max()}; change the labels or name all classes"
        )
    return found


def _of_items(items: Any, spec: DatasetSpec, where: str) -> Pool:
    """The pool of a map-style torch data set: items (image, label), the image a PIL image, an array or a tensor."""
    if not (hasattr(items, "__getitem__") and hasattr(items, "__len__")) or isinstance(items, list | dict | str):
        raise InputError(f"{where} must return {RETURNS}, got {one_line(type(items).__name__)}; return one of these")
    with reporting(f"{where}: reading it"):
        count = len(items)
    if not count:
        raise InputError(f"{where} has no images; check where it looks for them")

    def pixels(position: int) -> np.ndarray:
        image, _ = _item(items, position, where)
        mode = getattr(image, "mode", "L")
        if mode not in ("L", "RGB"):
            raise InputError(f"{where}: image {position} has mode {one_line(str(mode))}; convert it to L or RGB")
        batch: np.ndarray = _channels_first(image[None] if hasattr(image, "shape") else np.asarray(image)[None], where)
        found: np.ndarray = batch[0]
        return found

    first = pixels(0)
    if not np.array_equal(first, pixels(0)):
        raise InputError(
            f"{where}: its first image is another one each time it is read; leave random transforms out, "
            "recipe.augmentation has crops and flips"
        )

    def decode(chosen: Sequence[int] | np.ndarray) -> np.ndarray:
        found = np.empty((len(chosen), *first.shape), np.uint8)
        for place, position in enumerate(np.asarray(chosen).tolist()):
            image = pixels(position)
            if image.shape != first.shape:
                raise InputError(
                    f"{where}: image {position} is (channels, height, width) = {image.shape}, and image 0 "
                    f"{first.shape}; make them the same"
                )
            found[place] = image
        return found

    labels = _labels(_labels_of(items, count, where), count, where)
    with reporting(f"{where}: reading its classes"):
        names = getattr(items, "classes", None)
    channels, height, width = first.shape
    return Pool(decode, labels, _class_names(names, labels, spec, where), (channels, height, width), spec.white)


def _item(items: Any, position: int, where: str) -> tuple[Any, Any]:
    with reporting(f"{where}: reading image {position}"):
        item = items[position]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(
            f"{where}: image {position} must come as a pair (image, label), got {one_line(type(item).__name__)}; "
            "return such a pair"
        )
    return item[0], item[1]


def _labels_of(items: Any, count: int, where: str) -> Any:
    """The labels: torchvision's data sets list them as `targets` or `labels`; else from the items, one by one."""
    with reporting(f"{where}: reading its labels"):
        if getattr(items, "target_transform", None) is None:
            for name in ("targets", "labels"):
                listed = getattr(items, name, None)
                if listed is not None and len(listed) == count:
                    return listed
    return [_item(items, position, where)[1] for position in range(count)]
