"""Files that break image readers: each is read right or refused with a reason, in little time and memory."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime import images
from runtime.headers import PhotoError
from tests import odd_photos

Image = pytest.importorskip("PIL.Image", reason="what Pillow makes of the files is asked of it")
ImageOps = pytest.importorskip("PIL.ImageOps")

FOLDER = Path(__file__).resolve().parent / "data" / "odd_images"
with (FOLDER / "manifest.csv").open(newline="") as file:
    MANIFEST = {row["file"]: row["pillow_13_0_0_result"] for row in csv.DictReader(file)}
# Pillow reads these; OpenCV has no decoder for them, and no supplier's camera makes them.
REFUSED_BY_NAME = {
    "pillow__hopper.ico": "an icon",
    "pillow__hopper.psd": "PSD",
    "pillow__10ct_32bit_128.tiff": "floating-point numbers",
}


def is_refused(verdict: str) -> bool:
    return any(word in verdict for word in ("OPENFAIL", "LOADFAIL", "not loaded"))


@pytest.mark.parametrize("name", [name for name, verdict in MANIFEST.items() if is_refused(verdict)])
def test_what_pillow_refuses_is_refused(name: str) -> None:
    with pytest.raises(PhotoError, match=r"^[^\n]+$"):
        images.decode(FOLDER / name)


@pytest.mark.parametrize(("name", "reason"), REFUSED_BY_NAME.items())
def test_what_no_decoder_here_reads_is_refused_by_its_name(name: str, reason: str) -> None:
    with pytest.raises(PhotoError, match=rf"{reason}.*which is not read: save it as JPEG$"):
        images.decode(FOLDER / name)


READ = [name for name, verdict in MANIFEST.items() if not is_refused(verdict) and name not in REFUSED_BY_NAME]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", READ)
def test_all_else_is_read_as_pillow_reads_it(name: str) -> None:
    found_HWC = images.decode(FOLDER / name)
    expected_HWC = on_white(FOLDER / name)
    assert found_HWC.shape == expected_HWC.shape
    # CMYK: two roundings of a product. 16 bits: Pillow cuts the lower half off, where we round.
    assert np.abs(found_HWC.astype(int) - expected_HWC).mean() < 1


def on_white(path: Path) -> np.ndarray:
    """The photo by Pillow, upright, its transparency laid on white."""
    with Image.open(path) as photo:
        upright = ImageOps.exif_transpose(photo)
        if upright.mode.startswith("I;16"):
            # Pillow would clip to 255.
            (bits,) = photo.tag_v2[258] if photo.format == "TIFF" else (16,)
            grey_HW = np.asarray(upright).astype(float) * 255 / ((1 << bits) - 1)
            return np.repeat(grey_HW.round()[..., None], 3, 2)
        upright = upright.convert("RGBA")
    white = Image.new("RGBA", upright.size, (255,) * 4)
    white.alpha_composite(upright)
    return np.asarray(white.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, odd_photos.Odd]:
    folder = tmp_path_factory.mktemp("odd")
    files = {folder / f"{index:03d}{odd.suffix}": odd for index, odd in enumerate(odd_photos.made())}
    for path, odd in files.items():
        path.write_bytes(odd.content)
    return files


# Decodes each file named on stdin, and says what came of it, how long it took and what it needed of memory.
SCRIPT = """
import json, resource, sys, time

import cv2, numpy

from runtime import images
from runtime.headers import PhotoError


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


from pathlib import Path
for line in sys.stdin:
    path, before, started = json.loads(line), peak_mb(), time.perf_counter()
    try:
        height, width, _ = images.decode(Path(path)).shape
        said = f"{width} x {height}"
    except PhotoError as err:
        said = f"refused: {err}"
    print(json.dumps([path, said, time.perf_counter() - started, peak_mb() - before]))
"""


def test_no_file_crashes_or_takes_long_or_much_memory(odd_files: dict[Path, odd_photos.Odd]) -> None:
    named = [*odd_files, *(FOLDER / name for name in MANIFEST)]
    lines = "".join(json.dumps(str(path)) + "\n" for path in named)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=lines, capture_output=True, text=True, check=True, cwd=odd_photos.ROOT
    )
    found = {Path(path): (said, seconds, mb) for path, said, seconds, mb in map(json.loads, done.stdout.splitlines())}
    assert found.keys() == set(named)
    assert max(seconds for _, seconds, _ in found.values()) < 2
    assert max(mb for _, _, mb in found.values()) < 250
    for path, odd in odd_files.items():
        said, *_ = found[path]
        if odd.kind == "cut":
            assert said.startswith("refused: "), (odd.format, said)
        elif odd.kind == "renamed":
            assert not said.startswith("refused: "), (odd.format, odd.suffix, said)
    # Of those with a bit flipped some are read and some are not, or the check is of nothing.
    flipped = [found[path][0].startswith("refused: ") for path, odd in odd_files.items() if odd.kind == "flipped"]
    assert 0 < sum(flipped) < len(flipped)


@pytest.mark.parametrize("name", odd_photos.FORMATS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    content = odd_photos.written(name, odd_photos.PHOTOS[0])
    for length in (len(content) - 1, len(content) // 2, 40, 13):
        (tmp_path / "photo").write_bytes(content[:length])
        with pytest.raises(PhotoError, match=r"cut short|damaged|not an image"):
            images.decode(tmp_path / "photo")
