"""An audit as one page to decide on: each finding with its photo, to accept, reject or skip by a key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from runtime import images, page
from runtime.findings import Finding

TEMPLATE = Path(__file__).resolve().parent / "review.html"
PIXELS, FEW, SMALL = 320, 2_000, 160
"""Of a photo's longer side, and where there are more than a few photos: 20 kB and 6 kB each."""
MOST = 10_000
"""Findings in a page, which then has some 60 MB: a browser opens it in seconds."""
CHUNK = 64


def write(
    path: Path,
    title: str,
    findings: Sequence[Finding],
    *,
    listing: str,
    precision: float,
    max_pixels: int = images.MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the page of the first findings, MOST at most; on an error nothing changes at `path`.

    Args:
        listing: the SHA-256 of its file, by which the page knows its own decisions again.
    """
    head = {"title": title, "listing": listing, "precision": precision}
    page.write(path, TEMPLATE, head, _rows(findings[:MOST], max_pixels, advance))


def _rows(findings: Sequence[Finding], max_pixels: int, advance: Callable[[], None]) -> Iterator[list[object]]:
    """Each finding as the page's script takes it; a photo's picture stands in its first one, by whose place others
    know it."""
    first: dict[str, int] = {}
    for place, one in enumerate(findings):
        first.setdefault(one.image, place)
    pixels = PIXELS if len(first) <= FEW else SMALL
    picture = partial(page.picture, pixels=pixels, max_pixels=max_pixels)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(findings), CHUNK):
            chunk = findings[start : start + CHUNK]
            new = [one.image for place, one in enumerate(chunk, start) if first[one.image] == place]
            pictures = dict(zip(new, pool.map(picture, map(Path, new)), strict=True))
            for place, one in enumerate(chunk, start):
                yield [
                    one.line,
                    one.column,
                    one.image,
                    one.category,
                    one.attribute,
                    one.verdict,
                    one.declared,
                    one.predicted,
                    one.confidence,
                    one.declared_confidence,
                    round(one.worth, 4),
                    one.note,
                    pictures[one.image] if first[one.image] == place else first[one.image],
                ]
                advance()
