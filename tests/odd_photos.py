"""Photos as suppliers send them, and worse: in every format that is read, cut short, renamed, bits flipped."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
COUNT = 200
KINDS = ("cut", "renamed", "flipped")


class Odd(NamedTuple):
    """One such file, by its content."""

    format: str
    kind: str
    """One of KINDS."""
    content: bytes
    suffix: str
    """Of the name that it is to have."""


def made(seed: int = 0) -> Iterator[Odd]:
    """The files, the same for the same seed."""
    rng = np.random.default_rng(seed)
    formats = list(FORMATS)
    for index in range(COUNT):
        name = formats[index % len(formats)]
        content = written(name, PHOTOS[index % len(PHOTOS)])
        kind = KINDS[index // len(formats) % len(KINDS)]
        suffix = f".{name.split()[0]}"
        if kind == "cut":
            content = content[: cut(content, rng)]
        elif kind == "renamed":
            suffix = f".{formats[(index + 1 + rng.integers(len(formats) - 1)) % len(formats)].split()[0]}"
        else:
            content = flipped(content, rng)
        yield Odd(name, kind, content, suffix)


def cut(content: bytes, rng: np.random.Generator) -> int:
    """How much of a file is left: anything from its first bytes to all but its last."""
    return int(rng.choice([len(content) - 1, rng.integers(12, len(content))]))


def flipped(content: bytes, rng: np.random.Generator, *, most: int = 8) -> bytes:
    """The content with one to `most` of its bits the other way round."""
    changed = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, most + 1)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def written(name: str, path: Path) -> bytes:
    """The photo in a format of FORMATS."""
    return FORMATS[name](path)


def _pillow(kind: str, mode: str = "RGB", **options: object) -> Callable[[Path], bytes]:
    def write(path: Path) -> bytes:
        image = pytest.importorskip("PIL.Image", reason="photos are made by Pillow")
        buffer = io.BytesIO()
        with image.open(path) as photo:
            photo.convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return write


def _opencv(suffix: str) -> Callable[[Path], bytes]:
    def write(path: Path) -> bytes:
        done, content = cv2.imencode(suffix, cv2.imread(str(path)))
        assert done
        return content.tobytes()

    return write


FORMATS: dict[str, Callable[[Path], bytes]] = {
    "jpg": Path.read_bytes,
    "jpg progressive": _pillow("JPEG", progressive=True),
    "jpg CMYK": _pillow("JPEG", "CMYK"),
    "png": _pillow("PNG"),
    "png palette": _pillow("PNG", "P"),
    "gif": _pillow("GIF", "P"),
    "webp": _pillow("WEBP"),
    "webp lossless": _pillow("WEBP", lossless=True),
    "bmp": _pillow("BMP"),
    "tif": _pillow("TIFF"),
    "tif lzw": _pillow("TIFF", compression="tiff_lzw"),
    "avif": _opencv(".avif"),
    "jp2": _opencv(".jp2"),
    "ppm": _opencv(".ppm"),
}
