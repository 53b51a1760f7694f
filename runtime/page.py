"""One self-contained page: a template with the run's data in it, photos small among them, nothing from elsewhere."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path

from runtime import images
from runtime.errors import UserError
from runtime.files import probe, refuse_pipe, replacing
from runtime.headers import PhotoError

HOLE = "/*DATA*/"
QUALITY = 70
"""Of a photo's JPEG: some 3 kB at 96 px."""


def check_writable(path: Path, option: str = "--report") -> None:
    """UserError unless a file can be written there: better known before the photos are read than after."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        refuse_pipe(path)
        probe(Path(os.path.realpath(path)).parent)
    except OSError as err:
        raise _unwritable(path, err, option) from None


def write(path: Path, template: Path, head: dict[str, object], rows: Iterable[object]) -> None:
    """Write the page, row by row; on an error nothing changes at `path`.

    Args:
        head: what the page's script has beside `rows`.
        rows: each as JSON takes it.
    """
    before, _, after = template.read_text(encoding="utf-8").partition(HOLE)
    try:
        # A link's own place is not taken, but the file's that it leads to.
        with (
            replacing(Path(os.path.realpath(path))) as beside,
            beside.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(before + _in_script(json.dumps(head, ensure_ascii=False)[:-1]) + ', "rows": [\n')
            for index, row in enumerate(rows):
                text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
                file.write((",\n" if index else "") + _in_script(text))
            file.write("]}" + after)
    except OSError as err:
        raise _unwritable(path, err) from err


def picture(path: Path, pixels: int, *, max_pixels: int = images.MAX_PIXELS) -> str:
    """The photo, its longer side of so many pixels at most, as a JPEG in base64; empty where it cannot be read."""
    import cv2

    try:
        image_HWC = images.decode(path, least=(pixels // 2, pixels // 2), max_pixels=max_pixels)
    except PhotoError:
        return ""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, pixels / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small_HWC = cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", small_HWC[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(content.tobytes()).decode("ascii") if done else ""


def _unwritable(path: Path, err: OSError, option: str = "--report") -> UserError:
    return UserError(f"cannot write {path}: {err.strerror}\nchoose another file with: {option} FILE")


def _in_script(text: str) -> str:
    """JSON that ends no script early: a file may be called anything."""
    return text.replace("<", "\\u003c")
