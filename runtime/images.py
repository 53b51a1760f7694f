"""The one pixel path: photos found, decoded, turned upright and resized, for training and serving alike."""

# H height, W width, C channels (RGB)

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import UserError, with_example

if TYPE_CHECKING:
    import numpy as np

    from runtime.bundle import Preprocess

# What a folder is searched for. Some cannot be decoded: their row says so, where leaving them out would say nothing.
PHOTO_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".gif",
        ".jp2",
        ".ppm",
        ".heic",
        ".heif",
        ".psd",
        ".svg",
    ]
)
LARGEST_FILE_BYTES = 1 << 30
EXAMPLE = ("python -m runtime.predict examples/photos/", "examples/photos")


class PhotoError(Exception):
    """A photo that cannot be read; the message is the reason, fit for a row of the table."""


def find(inputs: Iterable[Path], *, names: Container[str] | None = None) -> list[Path]:
    """Every photo of the inputs, sorted, each once: folders are searched throughout, files taken as they are.

    Args:
        names: the files wanted, whatever their suffix, from folders and among the files given; None takes every photo.
    """
    found: set[Path] = set()
    for path in inputs:
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as err:
            raise UserError(f"cannot look up {path}: {err.strerror}") from None
        if is_folder:
            inside = {
                Path(folder, name)
                for folder, _, files in os.walk(path)
                for name in files
                if (Path(name).suffix.lower() in PHOTO_SUFFIXES if names is None else name in names)
            }
            if not inside and names is None:
                raise with_example(f"no photos in {path}: looked for {' '.join(sorted(PHOTO_SUFFIXES))}", *EXAMPLE)
            found |= inside
        elif is_there:
            if names is None or path.name in names:
                found.add(path)
        else:
            raise with_example(f"no such file or folder: {path}", *EXAMPLE)
    return sorted(found)


def decode(path: Path) -> np.ndarray:
    """The photo as uint8 RGB [H, W, 3], 0-255, upright by its EXIF orientation; PhotoError if it cannot be read."""
    import cv2
    import numpy as np

    try:
        # A pipe would never end, and a file of this size is not a photo.
        if not stat.S_ISREG(path.stat().st_mode):
            raise PhotoError("not a regular file")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise PhotoError(f"larger than {LARGEST_FILE_BYTES >> 20} MiB")
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as err:
        raise PhotoError(f"cannot be opened: {err.strerror or err}") from None
    if content.size == 0:
        raise PhotoError("the file is empty")
    try:
        image_HWC = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
    except cv2.error as err:
        raise PhotoError(f"cannot be decoded: {err.err}") from None
    if image_HWC is None:
        raise PhotoError("not an image, or a damaged one: no decoder reads it")
    return image_HWC


def fit(image_HWC: np.ndarray, spec: Preprocess) -> np.ndarray:
    """Resize a uint8 RGB image to spec.height x spec.width, squashed, contiguous HWC uint8, 0-255."""
    import cv2
    import numpy as np

    height, width = image_HWC.shape[:2]
    if (height, width) == (spec.height, spec.width):
        return np.ascontiguousarray(image_HWC)
    # Area averages every source pixel, so shrinking does not alias; it only blurs when enlarging.
    shrinks = height >= spec.height and width >= spec.width
    return cv2.resize(
        image_HWC,
        (spec.width, spec.height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
