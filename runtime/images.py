"""The one pixel path: photos decoded, turned upright and resized, for training and serving alike."""

# H height, W width, C channels (RGB)

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import headers
from runtime.headers import Header, PhotoError

if TYPE_CHECKING:
    import numpy as np

    from runtime.bundle import Preprocess

LARGEST_FILE_BYTES = 1 << 28
MAX_PIXELS = 50_000_000
"""More is refused unless more is allowed: phones have 12 to 50 million, and each takes three bytes."""
# A reduced JPEG is averages of blocks, whose edges are not those of the pixels wanted: with so many of them to a side
# of each, the two differ by 0.5 of 255 on average (tests/test_runtime_images.py holds the bound).
REDUCED_MARGIN = 4
# A side that shrinks by no more than this is resized by bilinear samples alone, as one that grows is.
PLAIN = 1.25
# Of a picture with transparency, laid on white at a time.
STRIP_ROWS = 64


def load(path: Path, spec: Preprocess, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The photo as the graph of `spec` takes it: decoded, upright, fitted; PhotoError if it cannot be read."""
    return fit(decode(path, least=(spec.height, spec.width), max_pixels=max_pixels), spec)


def decode(path: Path, *, least: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The photo as uint8 RGB [H, W, 3], 0-255, upright, transparency laid on white; PhotoError if it cannot be read.

    Args:
        least: the height and width that it will be fitted to: a JPEG that is far larger comes at a half, a quarter or
            an eighth of its size, which its format gives for less.
        max_pixels: what the header may say, before anything is decoded.
    """
    content = _content(path)
    header = headers.read(content)
    if header.width * header.height > max_pixels:
        raise PhotoError(
            f"{header.width} x {header.height} px: more than the {max_pixels / 1e6:g} million pixels allowed"
        )
    return _upright(_decoded(content, header, least), header.orientation)


def has_header(path: Path) -> bool:
    """Whether the file begins and ends as a photo does; what lies between is not decoded."""
    try:
        headers.read(_content(path))
    except PhotoError:
        return False
    return True


def is_readable(path: Path, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether `decode` reads the photo."""
    try:
        decode(path, max_pixels=max_pixels)
    except PhotoError:
        return False
    return True


def _content(path: Path) -> bytes:
    try:
        # A pipe would never end, and a file of this size is not a photo.
        seen = path.stat()
        if stat.S_ISDIR(seen.st_mode):
            raise PhotoError("a folder that may not be searched" if not os.access(path, os.R_OK) else "a folder")
        if not stat.S_ISREG(seen.st_mode):
            raise PhotoError("not a regular file")
        if seen.st_size > LARGEST_FILE_BYTES:
            raise PhotoError(f"larger than {LARGEST_FILE_BYTES >> 20} MiB")
        if not seen.st_size:  # the kernel's own files too, some of which never end
            raise PhotoError("the file is empty")
        return path.read_bytes()
    except OSError as err:
        raise PhotoError(f"cannot be opened: {err.strerror or err}") from None
    except ValueError as err:  # a name that no file can have
        raise PhotoError(f"cannot be opened: {err}") from None
    except MemoryError:
        raise PhotoError("there is not memory enough to read it") from None


def _decoded(content: bytes, header: Header, least: tuple[int, int] | None) -> np.ndarray:
    """The pixels as stored, uint8 RGB."""
    import cv2
    import numpy as np

    cv2.utils.logging.setLogLevel(0)  # its remarks would run through a progress bar; what counts is in the row
    if header.format == "JPEG":
        # Its three colours are all there is: CMYK and YCCK are turned into them.
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[_reduction(header, least)]
    else:
        flags = cv2.IMREAD_UNCHANGED
    try:
        pixels_HWC = cv2.imdecode(np.frombuffer(header.picture or content, np.uint8), flags)
    except cv2.error as err:
        raise PhotoError(f"cannot be decoded: {err.err}") from None
    if pixels_HWC is None:
        raise PhotoError(f"damaged: no decoder reads this {header.format} file")
    if header.format == "JPEG":
        return pixels_HWC
    if pixels_HWC.dtype == np.uint16:
        deepest = (1 << (header.bits if 8 < header.bits < 16 else 16)) - 1
        pixels_HWC = cv2.convertScaleAbs(pixels_HWC, alpha=255 / deepest)
    elif pixels_HWC.dtype != np.uint8:
        raise PhotoError(f"its pixels are {pixels_HWC.dtype} numbers, which is not read: save it as JPEG")
    channels = 1 if pixels_HWC.ndim == 2 else pixels_HWC.shape[2]
    if channels == 4:
        return _on_white(pixels_HWC, premultiplied=header.premultiplied)
    return cv2.cvtColor(pixels_HWC, cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_BGR2RGB)


# OpenCV's flags for a size over 1, 2, 4 and 8; their names ask for grey, which the flag for colours beside them undoes.
_REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}


def _reduction(header: Header, least: tuple[int, int] | None) -> int:
    """By how much the sides may be divided: what is left must be so many times larger than what is wanted."""
    if least is None:
        return 1
    height, width = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
    room = min(height / least[0], width / least[1]) / REDUCED_MARGIN
    return max(reduction for reduction in _REDUCED if reduction == 1 or reduction <= room)


def _on_white(pixels_HWC: np.ndarray, *, premultiplied: bool) -> np.ndarray:
    """BGRA to RGB over white, in the same memory: the first bytes of a row are read before they are written."""
    import numpy as np

    height, width = pixels_HWC.shape[:2]
    laid_HWC = np.ascontiguousarray(pixels_HWC).reshape(-1)[: height * width * 3].reshape(height, width, 3)
    for start in range(0, height, STRIP_ROWS):
        # Wide enough for colours above their own alpha, which no right file has.
        strip_HWC = pixels_HWC[start : start + STRIP_ROWS].astype(np.uint32)
        alpha_HW1, colours_HWC = strip_HWC[..., 3:], strip_HWC[..., 2::-1]
        weighted_HWC = colours_HWC * 255 if premultiplied else colours_HWC * alpha_HW1
        mixed_HWC = (weighted_HWC + 255 * (255 - alpha_HW1) + 127) // 255
        laid_HWC[start : start + STRIP_ROWS] = np.minimum(mixed_HWC, 255)
    return laid_HWC


# EXIF's orientations from 5 on are mirrored at the diagonal; then some are at an axis, by OpenCV's number for it.
_MIRRORED = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}


def _upright(image_HWC: np.ndarray, orientation: int) -> np.ndarray:
    import cv2

    turned_HWC = cv2.transpose(image_HWC) if orientation >= 5 else image_HWC
    axis = _MIRRORED.get(orientation)
    return turned_HWC if axis is None else cv2.flip(turned_HWC, axis)


def fit(image_HWC: np.ndarray, spec: Preprocess) -> np.ndarray:
    """Resize a uint8 RGB image to spec.height x spec.width by the spec's own rule, contiguous HWC uint8, 0-255.

    squash: the whole photo, its sides scaled apart. crop: the middle of it, its sides scaled alike. letterbox: the
    whole photo, its sides scaled alike, in the middle of white.
    """
    import numpy as np

    height, width = image_HWC.shape[:2]
    if (height, width) == (spec.height, spec.width):
        return np.ascontiguousarray(image_HWC)
    if spec.resize == "crop":
        scale = max(spec.height / height, spec.width / width)
        tall, wide = (min(side, max(1, round(of / scale))) for side, of in ((height, spec.height), (width, spec.width)))
        top, left = (height - tall) // 2, (width - wide) // 2
        return _resized(image_HWC[top : top + tall, left : left + wide], spec.height, spec.width)
    if spec.resize == "letterbox":
        scale = min(spec.height / height, spec.width / width)
        tall, wide = (max(1, round(side * scale)) for side in (height, width))
        top, left = (spec.height - tall) // 2, (spec.width - wide) // 2
        boxed_HWC = np.full((spec.height, spec.width, 3), 255, np.uint8)
        boxed_HWC[top : top + tall, left : left + wide] = _resized(image_HWC, tall, wide)
        return boxed_HWC
    return _resized(image_HWC, spec.height, spec.width)


def _resized(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, to twice the size along a side that shrinks, and of that the means.

    It shrinks by about two a step: as near to Pillow's filter, which weighs every pixel, as OpenCV's INTER_AREA is, in
    less than half of its time. Half of an odd side is a little less, and there weights drift: of a side that becomes 96
    to 512 px long one pixel in thirty may be left out, and some count several times; of smaller ones, more.
    """
    import cv2
    import numpy as np

    tall, wide = _sampled(image_HWC.shape[0], height), _sampled(image_HWC.shape[1], width)
    for rows, columns in ((tall, wide), (height, width)):
        while image_HWC.shape[:2] != (rows, columns):
            down, across = _nearer(image_HWC.shape[0], rows), _nearer(image_HWC.shape[1], columns)
            image_HWC = cv2.resize(image_HWC, (across, down), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image_HWC)


def _sampled(side: int, wanted: int) -> int:
    """How many samples along a side; where it hardly shrinks, one a pixel leaves nothing out."""
    return 2 * wanted if side > PLAIN * wanted else wanted


def _nearer(side: int, wanted: int) -> int:
    """A step towards it, that halves the side at most."""
    return side // 2 if side >= 2 * wanted else wanted
