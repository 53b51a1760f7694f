"""A run as one page to look through: each photo small beside its attributes, to be filtered, with no other file."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from runtime import images
from runtime.errors import UserError
from runtime.files import probe, refuse_pipe, replacing
from runtime.headers import PhotoError

TEMPLATE = Path(__file__).resolve().parent / "report.html"
HOLE = "/*DATA*/"
# Of a photo's longer side: some 3 kB each, so that 5,000 photos make a page of 15 MB.
PIXELS, QUALITY = 96, 70
# Decoded at a time.
CHUNK = 64
CONFIDENCE = "_confidence"


def check_writable(path: Path) -> None:
    """UserError unless a page can be written there: better known before the photos are read than after."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        refuse_pipe(path)
        probe(Path(os.path.realpath(path)).parent)
    except OSError as err:
        raise _unwritable(path, err) from None


def write(
    path: Path,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    max_pixels: int = images.MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the page, row by row; on an error nothing changes at `path`.

    Args:
        columns: of the table, as `runtime.table.columns` gives them.
        rows: their texts.
    """
    before, _, after = TEMPLATE.read_text(encoding="utf-8").partition(HOLE)
    attributes = [name for name in columns[6:] if f"{name}{CONFIDENCE}" in columns]
    try:
        # A link's own place is not taken, but the file's that it leads to.
        with (
            replacing(Path(os.path.realpath(path))) as beside,
            beside.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            head = json.dumps({"title": title, "attributes": attributes}, ensure_ascii=False)
            file.write(before + _in_script(head[:-1]) + ', "rows": [\n')
            for index, row in enumerate(_rows(columns, attributes, rows, max_pixels)):
                text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
                file.write((",\n" if index else "") + _in_script(text))
                advance()
            file.write("]}" + after)
    except OSError as err:
        raise _unwritable(path, err) from err


def _unwritable(path: Path, err: OSError) -> UserError:
    return UserError(f"cannot write {path}: {err.strerror}\nchoose another file with: --report FILE")


def _rows(
    columns: Sequence[str], attributes: Sequence[str], rows: Iterable[Sequence[str]], max_pixels: int
) -> Iterator[list[object]]:
    """Each row as the page's script takes it."""
    remaining = iter(rows)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while chunk := [dict(zip(columns, row, strict=True)) for row in islice(remaining, CHUNK)]:
            for row, picture in zip(chunk, pool.map(partial(_picture, max_pixels=max_pixels), chunk), strict=True):
                answers = [
                    (index, row[name] or None, float(row[f"{name}{CONFIDENCE}"]))
                    for index, name in enumerate(attributes)
                    if row[f"{name}{CONFIDENCE}"]
                ]
                sure = float(row["category_confidence"]) if row["category_confidence"] else None
                yield [row["image"], row["category"], sure, row["status"], row["error"], picture, answers]


def _picture(row: dict[str, str], *, max_pixels: int) -> str:
    """The photo, small, as a JPEG in base64; empty where it was not read."""
    import cv2

    if row["status"] == "error":
        return ""
    try:
        image_HWC = images.decode(Path(row["image"]), least=(PIXELS // 2, PIXELS // 2), max_pixels=max_pixels)
    except PhotoError:  # gone since
        return ""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, PIXELS / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small_HWC = cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", small_HWC[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(content.tobytes()).decode("ascii") if done else ""


def _in_script(text: str) -> str:
    """JSON that ends no script early: a file may be called anything."""
    return text.replace("<", "\\u003c")
