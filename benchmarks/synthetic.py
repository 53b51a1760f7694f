"""Command: a data folder of the challenge's shape and size, its labels at random and its photos tiny.

python -m benchmarks.synthetic /tmp/challenge
"""

# N photos, L attributes, H height, W width, C channels

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from runtime.challenge import COLUMNS, DUMMY, MOST_ATTRIBUTES
from runtime.errors import DONE, UserError, exit_code
from runtime.files import replace_file
from runtime.listing import photo_of
from runtime.terminal import note, positive, progress
from train import taxonomy

if TYPE_CHECKING:
    import pandas as pd

PHOTOS = 70_213
TEST_PHOTOS = 30_205
SIDE = 32
# A photo is 4 x 4 patches of JPEG's own block: the category's five first, then one an attribute.
PATCH = 8
GRID = SIDE // PATCH
CATEGORY_PATCHES = 5
NOISE = 12
# A class that is in one row alone cannot be both trained on and validated. Below some 300 photos there is no room.
LEAST_LABELS = 2
CHUNK = 4096


class Attribute(msgspec.Struct):
    """One of the shipped taxonomy, with what is known of its labels."""

    name: str
    missing: float
    classes: dict[str, int]


class Category(msgspec.Struct):
    """One of the shipped taxonomy, with the number of its rows in the challenge's train.csv."""

    name: str
    rows: int
    attributes: tuple[Attribute, ...]


class _Page(msgspec.Struct):
    categories: tuple[Category, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Photos in the making."""

    kinds_N: np.ndarray
    """int64: the category of each."""
    shown_NL: np.ndarray
    """int64: the class of each attribute that the photo shows; 0 beyond the category's attributes."""
    typed_NL: np.ndarray
    """bool: whether a label says so."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.synthetic",
        description="Write a data folder of the challenge's own shape: its rows, classes and missing labels, as many. "
        "Each photo is a mosaic that shows its labels, so that a small network learns them.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet, or empty")
    parser.add_argument("--photos", type=positive, default=PHOTOS, metavar="N", help="default: %(default)s")
    parser.add_argument("--test-photos", type=positive, default=TEST_PHOTOS, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: _write(args), extra="dev")


def categories() -> tuple[Category, ...]:
    """The challenge's five categories, with its counts."""
    return msgspec.json.decode(taxonomy.SHIPPED.read_bytes(), type=_Page).categories


def write(folder: Path, *, photos: int, test_photos: int, seed: int = 0, quiet: bool = True) -> None:
    """Fill an empty folder as the challenge's own is filled; the same arguments give the same bytes."""
    import pandas as pd

    known = categories()
    rng = np.random.default_rng(seed)
    for split, count in (("train", photos), ("test", test_photos)):
        rows = draw(known, count, rng)
        images = folder / f"{split}_images"
        images.mkdir(parents=True)
        with progress(f"{split} photos", count, quiet=quiet) as advance:
            for number, content in enumerate(_jpegs(rows, rng)):
                (images / photo_of(str(number))).write_bytes(content)
                advance(1)
        frame = table(known, rows)
        if split == "train":
            replace_file(folder / "train.csv", _csv(frame))
        else:
            replace_file(folder / "test.csv", _csv(frame[["id", "Category"]]))
            replace_file(folder / "sample_submission.csv", _csv(_sample(known, rows)))
    pd.DataFrame(
        {
            "Category": [category.name for category in known],
            "No_of_attribute": [len(category.attributes) for category in known],
            "Attribute_list": [[attribute.name for attribute in category.attributes] for category in known],
        }
    ).to_parquet(folder / "category_attributes.parquet", index=False)


def draw(known: Sequence[Category], count: int, rng: np.random.Generator) -> Rows:
    """Rows in the order of their categories: as many of each class, and as many without a label, as the taxonomy has
    them, or the same shares of another number. Which rows those are is chance, for each attribute on its own."""
    sizes = _shares([category.rows for category in known], count)
    kinds_N = np.repeat(np.arange(len(known)), sizes)
    shown_NL = np.zeros((count, MOST_ATTRIBUTES), np.int64)
    typed_NL = np.zeros((count, MOST_ATTRIBUTES), bool)
    for category, size, start in zip(known, sizes, np.cumsum(sizes) - sizes, strict=True):
        own = slice(start, start + size)
        for index, attribute in enumerate(category.attributes):
            counts_K = np.array(list(attribute.classes.values()))
            labels_K = np.maximum(np.round(counts_K * size / category.rows).astype(int), LEAST_LABELS)
            # Rounding up may find no room where few labels are missing: the commonest class has some to spare.
            labels_K[labels_K.argmax()] -= min(max(labels_K.sum() - size, 0), labels_K.max())
            labels = np.repeat(np.arange(len(counts_K)), labels_K)[:size]
            # What a photo without a label shows, somebody could have typed.
            hidden = rng.choice(len(counts_K), size - len(labels), p=counts_K / counts_K.sum())
            order = rng.permutation(size)
            shown_NL[own, index] = np.concatenate([labels, hidden])[order]
            typed_NL[own, index] = (np.arange(size) < len(labels))[order]
    return Rows(kinds_N=kinds_N, shown_NL=shown_NL, typed_NL=typed_NL)


def table(known: Sequence[Category], rows: Rows) -> pd.DataFrame:
    """All columns of train.csv: an empty cell where nobody typed a label."""
    import pandas as pd

    cells_NL = np.full(rows.shown_NL.shape, "", object)
    for kind, category in enumerate(known):
        own = rows.kinds_N == kind
        for index, attribute in enumerate(category.attributes):
            names = np.array(list(attribute.classes), object)[rows.shown_NL[own, index]]
            cells_NL[own, index] = np.where(rows.typed_NL[own, index], names, "")
    names = np.array([category.name for category in known], object)
    lengths = np.array([len(category.attributes) for category in known])
    head = {"id": np.arange(len(rows.kinds_N)), "Category": names[rows.kinds_N], "len": lengths[rows.kinds_N]}
    return pd.DataFrame(head | dict(zip(COLUMNS[len(head) :], cells_NL.T, strict=True)))


def _write(args: argparse.Namespace) -> int:
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"{args.out} is there already\nchoose another folder, or remove it with: rm -r {args.out}")
    try:
        write(args.out, photos=args.photos, test_photos=args.test_photos, seed=args.seed, quiet=args.quiet)
    except OSError as err:
        raise UserError(f"cannot write {err.filename or args.out}: {err.strerror}") from err
    note(f"data folder: {args.out}", quiet=args.quiet)
    return DONE


def _shares(sizes: Sequence[int], count: int) -> np.ndarray:
    """`count` divided as the sizes are, int64, exactly: the largest remainders are rounded up."""
    exact = np.array(sizes) * count / sum(sizes)
    found = np.floor(exact).astype(np.int64)
    found[np.argsort(found - exact, kind="stable")[: count - found.sum()]] += 1
    return found


def _jpegs(rows: Rows, rng: np.random.Generator) -> Iterator[bytes]:
    """The photos' files, each other bytes than the last."""
    import cv2

    # The classes' colours are far apart; all attributes share the palette, and each has its own place.
    hues = np.arange(16, dtype=np.uint8) * 11
    hsv_KC = np.stack([hues, np.full(16, 200, np.uint8), np.tile(np.array([255, 150], np.uint8), 8)], 1)
    palette_KC = cv2.cvtColor(hsv_KC[None], cv2.COLOR_HSV2BGR)[0].astype(np.int16)
    for start in range(0, len(rows.kinds_N), CHUNK):
        kinds_N = rows.kinds_N[start : start + CHUNK]
        codes_NP = np.concatenate(
            [np.repeat(kinds_N[:, None], CATEGORY_PATCHES, 1), rows.shown_NL[start : start + CHUNK]], 1
        )
        codes_NP = np.pad(codes_NP, ((0, 0), (0, GRID**2 - codes_NP.shape[1])))
        patches_NHWC = palette_KC[codes_NP].reshape(-1, GRID, GRID, 3)
        mosaics_NHWC = patches_NHWC.repeat(PATCH, 1).repeat(PATCH, 2)
        noise_NHWC = rng.integers(-NOISE, NOISE + 1, mosaics_NHWC.shape, np.int16)
        for image_HWC in np.clip(mosaics_NHWC + noise_NHWC, 0, 255).astype(np.uint8):
            done, encoded = cv2.imencode(".jpg", image_HWC, [cv2.IMWRITE_JPEG_QUALITY, 90])
            assert done
            yield encoded.tobytes()


def _sample(known: Sequence[Category], rows: Rows) -> pd.DataFrame:
    """The commonest class of each attribute for every photo, a dummy in the columns that a category does not use."""
    frame = table(known, rows)
    for category in known:
        commonest = [max(attribute.classes, key=attribute.classes.__getitem__) for attribute in category.attributes]
        dummies = [DUMMY] * (MOST_ATTRIBUTES - len(commonest))
        frame.loc[frame["Category"] == category.name, list(COLUMNS[3:])] = [*commonest, *dummies]
    return frame


def _csv(frame: pd.DataFrame) -> bytes:
    return str(frame.to_csv(index=False, lineterminator="\n")).encode()


if __name__ == "__main__":
    raise SystemExit(main())
