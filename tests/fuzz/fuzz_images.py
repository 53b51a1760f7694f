"""Fuzz the decoding of photos: any bytes become pixels or a PhotoError, in bounded memory.

    python -m tests.fuzz.fuzz_images build/fuzz/images tests/data/odd_images -max_total_time=600

atheris (pip install atheris) finds new inputs by coverage of Python's code, from the files in the folders named; it
keeps those that reach further in the first. The decoders themselves are not instrumented.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["runtime"]):
    from runtime import images
    from runtime.headers import PhotoError

FOLDER = tempfile.TemporaryDirectory()
PHOTO = Path(FOLDER.name) / "photo"
# What takes more is a finding of its own, which libFuzzer's limits would show late.
MAX_PIXELS = 4_000_000


def one(content: bytes) -> None:
    PHOTO.write_bytes(content)
    try:
        image_HWC = images.decode(PHOTO, least=(64, 64), max_pixels=MAX_PIXELS)
    except PhotoError:
        return
    height, width, channels = image_HWC.shape
    assert channels == 3 and image_HWC.dtype == "uint8" and 0 < height * width <= MAX_PIXELS
    assert image_HWC.flags.c_contiguous


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], "-rss_limit_mb=1500", "-timeout=10", *sys.argv[1:]], one)
    atheris.Fuzz()
