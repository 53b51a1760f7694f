"""The example data of this folder, made again from the labelled photos it was taken from.

    python examples/make_examples.py --source DIR               clothing/, photos/ and photos.csv
    python examples/make_examples.py --source DIR --full OUT    every photo in clothing/'s layout, unchanged

The photos come from github.com/alexeygrigorev/clothing-dataset @ 7ed86a9c and clothing-dataset-small @
11961516, both CC0 1.0. DIR holds images/, LICENSE.CC0-1.0 and two tables:

    labels.csv      image, category (17 kinds), kids, sender_id, split (train, calib, test; by sender)
    attributes.csv  image, category, colour, pattern, neck, sleeve_length, shoe_type, closure

attributes.csv was labelled by eye from thumbnails in one machine-assisted pass for this project, blank where
unsure; a second look at 60 photos agreed on 185 of 187 values. It was not independently checked.

The same source and the same OpenCV give the same bytes; another JPEG encoder may not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: for a checkout that is not installed

from runtime.errors import DONE, UserError, exit_code

HERE = Path(__file__).resolve().parent
ATTRIBUTES = {
    "Dress": ("colour", "pattern", "sleeve_length"),
    "Garment": ("kind", "kids"),
    "Shoes": ("colour", "shoe_type", "closure"),
    "T-Shirt": ("colour", "pattern", "neck"),
}
SPLITS = {"train": "train", "calib": "val", "test": "test"}  # labels.csv's word: train.csv's
KIDS = {"true": "kids", "false": "adult"}
LICENCE = "LICENSE.CC0-1.0"
Put = Callable[[Path, Path], None]  # (source, target)

MIN_PHOTOS = 8  # a class with fewer can be neither learnt nor measured
LONGER_SIDE = 288  # px: leaves a 256 px crop room to move
QUALITY = 75  # half as many Garment photos again as at 82, in the same bytes
GARMENTS_PER_KIND = 37  # the most that keeps clothing/ within MAX_BYTES
MAX_BYTES = 11_500_000
PHOTO_WIDTH = 512  # px
PHOTO_PAIRS, PHOTO_SINGLES = ("Dress", "Shoes", "T-Shirt"), 10  # kinds with two photos; number of kinds with one

README = f"""# Clothing: a small data set in the challenge's layout

{{rows}} rows, one photo each, {{pixels}}. CC0 1.0 ({LICENCE}), from
github.com/alexeygrigorev/clothing-dataset @ 7ed86a9c and clothing-dataset-small @ 11961516. Made by
`examples/make_examples.py`, as were the test photos of `examples/photos/` (same sources, same licence, at most
{PHOTO_WIDTH} px wide).

`train.csv` has id, Category, len (number of its attributes), attr_1 …, split and group (the sender; never in two
splits); an empty cell is a missing label. `category_attributes.csv` names the attributes: Category, No_of_attribute,
Attribute_list (JSON, in attr_ order). `train_images/` has a JPEG for each id, in six digits.

Garment's labels are the publisher's own, mistakes included. Those of Dress, Shoes and T-Shirt were made by eye from
thumbnails in one machine-assisted pass, blank where unsure; a second look at 60 photos agreed on 185 of 187 values;
they were not independently checked. Every T-Shirt neck but `round` became `other`; then classes of fewer than
{MIN_PHOTOS} photos became missing.

| Category | attribute | class | {{splits}} |
|---|---|---|{{rule}}
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of train.csv: a photo and its labels in attr_ order, "" where one is missing."""

    category: str
    image: str
    labels: tuple[str, ...]
    split: str
    sender: str


def read_source(source: Path) -> tuple[list[Row], list[Row]]:
    """A Garment row for every photo of labels.csv, and attributes.csv's rows outside the test split."""
    absent = [name for name in ("labels.csv", "attributes.csv", "images", LICENCE) if not (source / name).exists()]
    if absent:
        raise UserError(f"{source} has no {', no '.join(absent)}; name the folder of labelled photos: --source DIR")
    try:
        garments = {
            c["image"]: Row(
                category="Garment",
                image=c["image"],
                labels=(c["category"], KIDS[c["kids"]]),
                split=SPLITS[c["split"]],
                sender=c["sender_id"],
            )
            for c in _table(source / "labels.csv")
        }
        others = [
            replace(
                garments[c["image"]],
                category=c["category"],
                labels=tuple(_folded(name, c[name]) for name in ATTRIBUTES[c["category"]]),
            )
            for c in _table(source / "attributes.csv")
        ]
    except KeyError as err:
        raise UserError(f"{source}: labels.csv or attributes.csv lacks or does not know {err}; mend it") from err
    split_of = {row.sender: row.split for row in garments.values()}
    divided = sorted({row.sender for row in garments.values() if split_of[row.sender] != row.split})
    if divided:
        raise UserError(f"{source / 'labels.csv'}: sender {', '.join(divided)} in two splits; keep each in one")
    return [garments[image] for image in sorted(garments)], [row for row in others if row.split != "test"]


def garment_selection(garments: Sequence[Row], per_kind: int) -> list[Row]:
    """Up to `per_kind` photos of each kind, 3:1 train:val, kids' first up to a third, from many senders."""
    train = round(per_kind * 3 / 4)
    chosen = []
    for kind in sorted({row.labels[0] for row in garments}):
        for split, count in (("train", train), ("val", per_kind - train)):
            pool = _senders_in_turn([row for row in garments if (row.labels[0], row.split) == (kind, split)])
            kids = [row for row in pool if row.labels[1] == "kids"]
            adults = [row for row in pool if row.labels[1] == "adult"]
            first = kids[: count // 3]
            chosen += [*first, *adults[: count - len(first)], *kids[len(first) :]][:count]
    return chosen


def without_rare_classes(rows: Sequence[Row]) -> list[Row]:
    """The rows in their final order, classes of fewer than MIN_PHOTOS missing; a row with no label left is gone."""
    # Test photos are not counted: what a model can name must not depend on the photos that judge it.
    seen = Counter((r.category, i, v) for r in rows if r.split != "test" for i, v in enumerate(r.labels))
    kept = [
        replace(r, labels=tuple(v if seen[r.category, i, v] >= MIN_PHOTOS else "" for i, v in enumerate(r.labels)))
        for r in rows
    ]
    return sorted((r for r in kept if any(r.labels)), key=lambda r: (r.category, r.image))


def held_out_photos(garments: Sequence[Row]) -> list[Row]:
    """Test photos by a rule that no model has a say in: the first of each of the commonest kinds, by file name.

    A kind of PHOTO_PAIRS gives two, the first of an adult's and the first of a child's where it has both.
    """
    test = [row for row in garments if row.split == "test"]
    chosen = []
    for kind in PHOTO_PAIRS:
        mine = [row for row in test if row.labels[0] == kind]
        firsts = {row.labels: row for row in reversed(mine)}
        chosen += list({row.image: row for row in (*firsts.values(), *mine)}.values())[:2]
    common = Counter(row.labels[0] for row in test if row.labels[0] not in PHOTO_PAIRS)
    singles = sorted(common, key=lambda kind: (-common[kind], kind))[:PHOTO_SINGLES]
    chosen += {row.labels[0]: row for row in reversed(test) if row.labels[0] in singles}.values()
    return sorted(chosen, key=lambda row: (row.labels[0], row.image))


def write_layout(folder: Path, source: Path, rows: Sequence[Row], put: Put, pixels: str) -> None:
    """Fill `folder` with the challenge's layout, a README.md and the licence; `put` stores one photo."""
    attrs = [f"attr_{i + 1}" for i in range(max(map(len, ATTRIBUTES.values())))]
    table: list[list[object]] = [["id", "Category", "len", *attrs, "split", "group"]]
    (folder / "train_images").mkdir()
    for number, row in enumerate(rows):
        blanks = [""] * (len(attrs) - len(row.labels))
        table.append([number, row.category, len(row.labels), *row.labels, *blanks, row.split, row.sender])
        put(source / row.image, folder / "train_images" / f"{number:06d}.jpg")
    _write_table(folder / "train.csv", table)
    lists = [[category, len(names), json.dumps(names)] for category, names in ATTRIBUTES.items()]
    _write_table(folder / "category_attributes.csv", [["Category", "No_of_attribute", "Attribute_list"], *lists])
    shutil.copyfile(source / LICENCE, folder / LICENCE)

    counts = Counter((r.category, i, v, r.split) for r in rows for i, v in enumerate(r.labels))
    splits = [split for split in SPLITS.values() if any(row.split == split for row in rows)]
    text = README.format(rows=len(rows), pixels=pixels, splits=" | ".join(splits), rule="---|" * len(splits))
    for category, i, value in sorted({key[:3] for key in counts}):
        numbers = " | ".join(str(counts[category, i, value, split]) for split in splits)
        text += f"| {category} | {ATTRIBUTES[category][i]} | {value or '(missing)'} | {numbers} |\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def put_within(source: Path, target: Path, *, width: int, height: int = sys.maxsize, quality: int) -> None:
    """Write the photo upright within width x height px; one that fits already keeps its bytes."""
    import cv2

    image_HWC = cv2.imread(str(source), cv2.IMREAD_COLOR)  # turns the photo as its EXIF says
    if image_HWC is None:
        raise UserError(f"{source} is missing or no image; restore it, or take its rows out of the tables")
    scale = min(width / image_HWC.shape[1], height / image_HWC.shape[0])
    if scale >= 1:
        shutil.copyfile(source, target)
        return
    small_HWC = cv2.resize(image_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), small_HWC, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])


def put_unchanged(source: Path, target: Path) -> None:
    """The same bytes under another name: a hard link, or a copy where the file system gives none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when the block ends well."""
    known = {"train.csv", "category_attributes.csv", "train_images", "README.md", LICENCE}
    if folder.exists() and any(path.name not in known and path.suffix != ".jpg" for path in folder.iterdir()):
        raise UserError(f"{folder} holds more than this command writes; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        new = Path(beside) / "new"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(Path(beside) / "old")
        new.rename(folder)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _folded(name: str, value: str) -> str:
    # The one merged class: v, wide, henley and other necks would each fall under MIN_PHOTOS and leave `round`
    # alone, an attribute that nothing can learn. Together they can be told from it.
    return "other" if name == "neck" and value not in ("", "round") else value


def _senders_in_turn(rows: Sequence[Row]) -> list[Row]:
    # One photo of every sender, then the second of every sender, and so on.
    return sorted(rows, key=lambda row: sum(o.sender == row.sender and o.image < row.image for o in rows))


def _make(source: Path, out: Path, full: Path | None) -> int:
    garments, rows = read_source(source)
    if full:
        with replaced(full) as folder:
            write_layout(folder, source, without_rare_classes([*rows, *garments]), put_unchanged, "bytes unchanged")
        return DONE
    used = {row.image for row in rows}
    chosen = garment_selection([row for row in garments if row.image not in used], GARMENTS_PER_KIND)
    pixels = f"resized: longer side at most {LONGER_SIDE} px, JPEG quality {QUALITY}"
    shrink = partial(put_within, width=LONGER_SIDE, height=LONGER_SIDE, quality=QUALITY)
    with replaced(out / "clothing") as folder:
        write_layout(folder, source, without_rare_classes([*rows, *chosen]), shrink, pixels)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if size > MAX_BYTES:
            raise UserError(f"clothing/ would take {size} bytes of {MAX_BYTES}; lower GARMENTS_PER_KIND in {__file__}")
    table = [("file", "kind", "kids")]
    with replaced(out / "photos") as folder:
        for row in held_out_photos(garments):
            kind, kids = row.labels
            name = f"{re.sub('[^a-z0-9]+', '-', kind.lower())}-{Path(row.image).name[:8]}.jpg"
            put_within(source / row.image, folder / name, width=PHOTO_WIDTH, quality=90)
            table.append((name, kind, kids))
    _write_table(out / "photos.csv.new", table)
    (out / "photos.csv.new").replace(out / "photos.csv")
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Write the example data, or with --full the whole set; 0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(description="Make the example data again from the labelled photos.")
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of labels.csv, attributes.csv, images/ and the licence",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out",
        type=Path,
        default=HERE,
        metavar="DIR",
        help="gets clothing/, photos/ and photos.csv (default: this script's folder)",
    )
    where.add_argument("--full", type=Path, metavar="OUT", help="write every photo, bytes unchanged, to OUT instead")
    args = parser.parse_args(argv)
    return exit_code(lambda: _make(args.source, args.out, args.full))


if __name__ == "__main__":
    raise SystemExit(main())
