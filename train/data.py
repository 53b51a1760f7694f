"""The challenge's own layout, read and checked: train.csv, category_attributes, train_images/."""

# N rows, L attributes

from __future__ import annotations

import ast
import csv
import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.bundle import Attribute, Category, Routes, slug_of
from runtime.errors import UserError, with_example
from runtime.listing import not_utf8, photo_of
from train import splits, taxonomy
from train.config import MISSING
from train.table import ITS_OWN, SPLITS, Table, products_of, table_for

if TYPE_CHECKING:
    import pandas as pd

IMAGES = "train_images"
VAL_SHARE = 0.15
# Above this share of absent or unreadable photos something is wrong with the folder, not with the photos.
MAX_LOST = 0.01
LABELLED = "put them there, or take their rows out of train.csv"
LAYOUT = "see how it is laid out in examples/clothing"
# A label is a word or a few; a column of other text has as many of them as it has cells.
LONGEST_LABEL = 200
FREE_TEXT, FREE_TEXT_CLASSES = 0.8, 20
MENDED = "mend them, or take their rows out of train.csv"
LONGEST_NAME = 255


def read(
    folder: Path,
    *,
    names: Sequence[str] = (),
    known: Sequence[Category] = (),
    seed: int = 0,
    trained: Mapping[str, Sequence[str]] | None = None,
) -> list[Table]:
    """A table for each category of `folder`, or for those of `names` alone.

    Args:
        known: categories whose classes are settled already, by a checkpoint or a bundle: the data must fit them.
        seed: of the split, where train.csv has no `split` column and nothing was trained on it yet.
        trained: the ids of each split that a checkpoint was trained with; a row that it never saw counts as test.
    """
    rows = _read_csv(folder / "train.csv")
    attributes = _attribute_names(folder)
    _require_columns(folder / "train.csv", rows, ["id", "Category"])
    if rows.empty:
        raise UserError(f"{folder / 'train.csv'} has no rows")
    if undeclared := sorted(set(rows["Category"]) - attributes.keys()):
        named = ", ".join(map(repr, undeclared[:5]))
        raise UserError(
            f"{folder / 'train.csv'} has rows of {named}, which category_attributes does not list\n"
            "add a line for each there, or give those rows another category"
        )
    slugs = taxonomy.by_slug(folder, attributes)
    if unknown := [name for name in names if slug_of(name) not in slugs]:
        its_own = f"\n{ITS_OWN}" if known else ""
        raise UserError(f"no category {unknown[0]!r} in {folder}; have: {', '.join(attributes)}{its_own}")
    wanted = list(dict.fromkeys(slugs[slug_of(name)] for name in names)) or [
        name for name in attributes if name in set(rows["Category"])
    ]
    settled = {category.name: category for category in known}
    drawn = "split" not in rows and trained is None
    homes = _splits(folder / "train.csv", rows, attributes, seed, trained)
    files = _files(folder / IMAGES)
    tables = []
    for name in wanted:
        mine = np.array(rows["Category"] == name)
        made = _table(folder, name, rows[mine], homes[mine], files, attributes, settled.get(name))
        tables.append(replace(made, drawn=drawn))
    return tables


def read_for(
    folder: Path,
    categories: Sequence[Category],
    *,
    seed: int = 0,
    trained: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """The one table of `folder` for a model that is there already: of one category, joint, or a router.

    Args:
        categories: the model's, whose classes, order and offsets the table takes.
        seed: of the split, where train.csv has no `split` column and `trained` is empty.
        trained: as `read` takes it; a checkpoint's own `splits`.
    """
    tables = read(folder, names=products_of(categories), known=categories, seed=seed, trained=trained or None)
    return table_for(categories, tables)


def _table(
    folder: Path,
    name: str,
    rows: pd.DataFrame,
    splits_N: np.ndarray,
    files: frozenset[str],
    attributes: dict[str, list[str]],
    settled: Category | None,
) -> Table:
    source = folder / "train.csv"
    if rows.empty:
        raise UserError(f"{source} has no row of category {name!r}")
    columns = [f"attr_{index}" for index in range(1, len(attributes[name]) + 1)]
    _require_columns(source, rows, columns)
    category = settled or _category(name, attributes[name], rows[columns])
    if [attribute.name for attribute in category.attributes] != attributes[name]:
        raise UserError(
            f"{folder} was labelled with another taxonomy: {name!r} has attributes {', '.join(attributes[name])}, "
            f"expected {', '.join(attribute.name for attribute in category.attributes)}\n{ITS_OWN}"
        )
    if (rows["id"] == "").any():
        raise UserError(f"{source} has a row of {name!r} without an id\ngive every row the id of its photo")
    photos = rows["id"].map(photo_of)
    if repeated := sorted(rows["id"][photos.duplicated()])[:3]:
        raise UserError(f"{source} has rows of {name!r} with the same id: {', '.join(repeated)}")
    names = photos.tolist()
    if strays := [text for text in names if "/" in text or "\0" in text or len(text) > LONGEST_NAME]:
        raise UserError(f"{source} has an id that is no file name: {strays[0][:80]!r}")
    images = folder / IMAGES
    paths = [images / text for text in names]
    there = np.array([text in files for text in names])
    absent = tuple(path for path, found in zip(paths, there, strict=True) if not found)
    _refuse_losses(absent, len(paths), "photos are not there", LABELLED)
    labels_NL = np.stack(
        [
            _indices(source, attribute, rows["id"], rows[column])
            for attribute, column in zip(category.attributes, columns, strict=True)
        ],
        1,
    )
    found = tuple(path for path, present in zip(paths, there, strict=True) if present)
    homes = splits_N[there]
    table = Table(
        categories=(category,),
        routes=_routes(name, category, attributes),
        ids=tuple(rows["id"][there]),
        paths=found,
        labels_NL=labels_NL[there],
        kinds_N=np.zeros(len(found), np.int64),
        groups=_groups(rows)[there],
        splits=homes,
        targets=tuple(path for path, home in zip(found, homes, strict=True) if home == "val"),
        absent=absent,
        absent_splits=tuple(splits_N[~there]),
    )
    for split in ("train", "val"):
        if not len(table.rows(split)):
            raise UserError(
                f"{source} has no labelled row of {name!r} in split {split!r}\n"
                "give it a column `split` that has both, more photos of other groups, or name the others: --category"
            )
    unlabelled = (table.labels_NL[table.rows("train")] == MISSING).all(0)
    for attribute, lacking in zip(category.attributes, unlabelled, strict=True):
        if lacking:
            raise UserError(
                f"{source} has no label of {attribute.name!r} of {name!r} in split 'train': there is nothing to learn\n"
                "take the attribute out of category_attributes and train.csv, or move rows to that split"
            )
    return table


def _files(folder: Path) -> frozenset[str]:
    """The names of the files in a folder: one listing, where a look-up for each photo is slow on a network's disk."""
    try:
        with os.scandir(folder) as entries:
            # Of a link only the path can be asked: one that leads in a circle is an error to the entry.
            return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False) or Path(e).is_file())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as err:
        raise UserError(f"cannot list {folder}: {err.strerror}") from None


def refuse_unreadable(unreadable: Sequence[Path], total: int) -> None:
    """UserError when more than MAX_LOST of the photos could not be read."""
    _refuse_losses(unreadable, total, "photos are unreadable", MENDED)


def seed_of(provenance: Mapping[str, str]) -> int:
    """The seed of the training that a model comes of, by which a split was drawn that train.csv does not give."""
    seed = provenance.get("seed", "0")
    if not seed.isdecimal() or len(seed) > 10:
        raise UserError(f"the seed of the model's training is {seed[:20]!r}, no number: train it again")
    return int(seed)


def refuse_lost_targets(lost: Sequence[Path], total: int, how: str) -> None:
    """UserError when more than MAX_LOST of the photos of the target domain are lost."""
    _refuse_losses(lost, total, f"target photos are {how}", "take them out of what was named with: --target-photos")


def _refuse_losses(lost: Sequence[Path], total: int, what: str, remedy: str) -> None:
    if len(lost) > MAX_LOST * total:
        first = "\n".join(f"  {path}" for path in lost[:3])
        raise UserError(f"{len(lost)} of {total} {what}, more than {MAX_LOST:.0%}; the first:\n{first}\n{remedy}")


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise with_example(f"{what}: {path}", "--data examples/clothing", "examples/clothing")
    _refuse_repeated(path)
    try:
        # Text throughout: an id keeps its zeros, a class named `None` or `1` stays what was typed.
        with warnings.catch_warnings():
            # A first line of more cells than the header shifts every line as wide by one, and is but warned of.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except pd.errors.ParserWarning:
        raise UserError(
            f"{path} has lines of more cells than its header\nput cells that hold a comma in double quotes"
        ) from None
    except ValueError as err:
        raise UserError(f"{path} is not a CSV table: {str(err).strip()}\n{LAYOUT}") from None
    return table.apply(lambda column: column.str.strip())


def _refuse_repeated(path: Path) -> None:
    """UserError where the header names a column twice, of which pandas would rename one, and for what is no text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = [cell.strip() for cell in next(csv.reader(file), [])]
            while file.read(1 << 20):  # all of it is to be UTF-8
                pass
    except UnicodeDecodeError as err:
        raise not_utf8(path, err) from None
    except (OSError, csv.Error) as err:
        raise UserError(f"{path} is not a CSV table: {err}\n{LAYOUT}") from None
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise UserError(f"{path} has column {repeated[0]!r} twice\nleave one of the two out, or give it another name")


def _attribute_names(folder: Path) -> dict[str, list[str]]:
    import pandas as pd

    parquet = folder / "category_attributes.parquet"
    path = parquet if parquet.is_file() else folder / "category_attributes.csv"
    try:
        table = pd.read_parquet(path) if path == parquet else _read_csv(path)
    except (OSError, ValueError) as err:
        raise UserError(f"{path} is not a Parquet table: {err}") from None
    _require_columns(path, table, ["Category", "Attribute_list"])
    found: dict[str, list[str]] = {}
    for category, names in zip(table["Category"].map(str).str.strip(), table["Attribute_list"], strict=True):
        if category in found:
            raise UserError(f"{path} lists category {category!r} twice")
        found[category] = _checked_names(path, category, _as_list(path, names))
    return found


def _checked_names(path: Path, category: str, names: Sequence[object]) -> list[str]:
    texts = [name.strip() for name in names if isinstance(name, str)]
    if not names or len(texts) < len(names) or not all(text and text.isprintable() for text in texts):
        raise UserError(f"{path}: attributes of {category!r} must be names, at least one, got {list(names)}")
    if len(set(texts)) < len(texts):
        raise UserError(f"{path}: an attribute of {category!r} is listed twice: {', '.join(texts)}")
    taxonomy.refuse_reserved(path, category, texts)
    return texts


def _as_list(path: Path, names: object) -> list[object]:
    if isinstance(names, (list, tuple, np.ndarray)):
        return list(names)
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(str(names))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(parsed, list):
            return parsed
    raise UserError(f'{path}: Attribute_list must be a list such as ["colour", "neck"], got {str(names)[:80]!r}')


def _require_columns(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    if absent := [column for column in columns if column not in table.columns]:
        raise UserError(
            f"{path} lacks column {', '.join(absent)}; it has: {', '.join(map(str, table.columns))}\n{LAYOUT}"
        )


def _category(name: str, attributes: Sequence[str], labels: pd.DataFrame) -> Category:
    def attribute(title: str, column: pd.Series[str]) -> Attribute:
        classes = tuple(sorted(set(column.unique()) - {""}))
        if len(classes) < 2:
            have = f"one class ({classes[0]!r})" if classes else "no label"
            raise UserError(
                f"attribute {title!r} of {name!r} has {have}: there is nothing to learn\n"
                "take it out of category_attributes and train.csv"
            )
        if strays := [label for label in classes if len(label) > LONGEST_LABEL or not label.isprintable()]:
            raise UserError(f"attribute {title!r} of {name!r} has a label that is no name: {strays[0][:80]!r}")
        if len(classes) > max(FREE_TEXT_CLASSES, FREE_TEXT * (column != "").sum()):
            raise UserError(
                f"attribute {title!r} of {name!r} has {len(classes)} classes in {(column != '').sum()} labels, as free "
                "text has: there is nothing to learn\ntake it out of category_attributes and train.csv"
            )
        return Attribute(name=title, classes=classes, output=title)

    return Category(
        name=name,
        attributes=tuple(attribute(title, labels[column]) for title, column in zip(attributes, labels, strict=True)),
    )


def _indices(source: Path, attribute: Attribute, ids: pd.Series[str], column: pd.Series[str]) -> np.ndarray:
    import pandas as pd

    # -1, which is MISSING, for whatever is no class.
    indices: np.ndarray = pd.Index(attribute.classes, dtype=column.dtype).get_indexer(pd.Index(column))
    unknown = (indices == MISSING) & (column != "")
    if unknown.any():
        raise UserError(
            f"{source}: {column[unknown].iloc[0]!r} (id {ids[unknown].iloc[0]}) is not a class of {attribute.name!r}; "
            f"its classes are: {', '.join(attribute.classes)}\n{ITS_OWN}"
        )
    return indices.astype(np.int64)


def _splits(
    source: Path,
    rows: pd.DataFrame,
    attributes: dict[str, list[str]],
    seed: int,
    trained: Mapping[str, Sequence[str]] | None,
) -> np.ndarray:
    """The split of every row: as given, else as a checkpoint was trained, else drawn for the whole file at once.

    So the split of a row depends neither on which categories are trained nor on whether they are trained together.
    """
    if "split" in rows:
        if unknown := sorted(set(rows["split"]) - set(SPLITS)):
            raise UserError(f"{source}: split must be one of {', '.join(SPLITS)}, got {unknown[0]!r}")
        if "group" in rows:
            homes = rows[rows["group"] != ""].groupby("group")["split"].nunique()
            if (homes > 1).any():
                raise UserError(f"{source}: group {homes.idxmax()!r} is in more than one split")
        return np.array(rows["split"], object)
    if trained is not None:
        home = {text: split for split, ids in trained.items() for text in ids}
        return np.array([home.get(text, "test") for text in rows["id"]], object)
    chosen = splits.stratified(_codes(rows, attributes), _groups(rows), share=VAL_SHARE, seed=seed)
    return np.where(chosen, "val", "train").astype(object)


def _groups(rows: pd.DataFrame) -> np.ndarray:
    """The group of every row; one that names none is a group of its own."""
    if "group" not in rows:
        return np.array(rows["id"], object)
    return np.array(rows["group"].where(rows["group"] != "", "id " + rows["id"]), object)


def _codes(rows: pd.DataFrame, attributes: dict[str, list[str]]) -> np.ndarray:
    """int64 [N, 1 + L]: the category of each row, then every attribute of every category; MISSING where there is none.

    Numbered as they come: what the numbers stand for does not matter to a split.
    """
    import pandas as pd

    columns = [pd.factorize(rows["Category"])[0]]
    for name, listed in attributes.items():
        mine = rows["Category"] == name
        for index in range(1, len(listed) + 1):
            if f"attr_{index}" in rows:
                texts = rows[f"attr_{index}"]
                columns.append(pd.factorize(texts.where(mine & (texts != ""), None))[0])
    return np.stack(columns, 1).astype(np.int64)


def _routes(name: str, category: Category, attributes: dict[str, list[str]]) -> Routes | None:
    """A category is a router when classes of one of its attributes are the names of other categories."""
    for attribute in category.attributes:
        to = {label: label for label in attribute.classes if label in attributes and label != name}
        if to:
            return Routes(attribute=attribute.name, to=to)
    return None
