"""Tables of several categories: one backbone for all, or the category as the label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.bundle import Routes
from runtime.errors import UserError
from tests.train_parts import write_csv
from train import calibrate, data
from train.config import MISSING
from train.table import Table, joint, products_of, router, table_for

ATTRIBUTES = {"Cap": '["colour", "shade"]', "Boot": '["colour", "sole"]'}
ROWS = (
    {"id": "0", "Category": "Cap", "attr_1": "red", "attr_2": "dark", "split": "train"},
    {"id": "1", "Category": "Cap", "attr_1": "blue", "attr_2": "light", "split": "train"},
    {"id": "2", "Category": "Cap", "attr_1": "", "attr_2": "light", "split": "val"},
    {"id": "3", "Category": "Boot", "attr_1": "black", "attr_2": "flat", "split": "train"},
    {"id": "4", "Category": "Boot", "attr_1": "white", "attr_2": "", "split": "train"},
    {"id": "5", "Category": "Boot", "attr_1": "black", "attr_2": "high", "split": "val"},
    {"id": "6", "Category": "Boot", "attr_1": "black", "attr_2": "high", "split": "train"},
)


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., list[Table]]:
    def read(rows: tuple[dict[str, str], ...] = ROWS, attributes: dict[str, str] = ATTRIBUTES) -> list[Table]:
        (tmp_path / "train_images").mkdir()
        for row in rows:
            (tmp_path / "train_images" / f"{int(row['id']):06d}.jpg").touch()
        write_csv(tmp_path / "train.csv", list(rows))
        listed = [
            {"Category": name, "No_of_attribute": "2", "Attribute_list": text} for name, text in attributes.items()
        ]
        write_csv(tmp_path / "category_attributes.csv", listed)
        return data.read(tmp_path)

    return read


def test_a_joint_table_gives_each_row_the_labels_of_its_own_category_and_the_category_itself(
    tables: Callable[..., list[Table]],
) -> None:
    merged = joint(tables())
    assert merged.name == "Joint"
    assert [category.name for category in merged.categories] == ["Router", "Cap", "Boot"]
    outputs = ["Router/Category", "Cap/colour", "Cap/shade", "Boot/colour", "Boot/sole"]
    assert [attribute.output for attribute in merged.attributes] == outputs
    assert merged.routes == Routes(attribute="Category", to={"Cap": "Cap", "Boot": "Boot"})
    assert merged.ids == tuple("0123456")
    assert merged.labels_NL.tolist() == [
        [0, 1, 0, MISSING, MISSING],
        [0, 0, 1, MISSING, MISSING],
        [0, MISSING, 1, MISSING, MISSING],
        [1, MISSING, MISSING, 0, 0],
        [1, MISSING, MISSING, 1, MISSING],
        [1, MISSING, MISSING, 0, 1],
        [1, MISSING, MISSING, 0, 1],
    ]
    assert [path.name for path in merged.targets] == ["000002.jpg", "000005.jpg"]


def test_a_row_is_complete_when_it_has_every_label_of_its_own_category(tables: Callable[..., list[Table]]) -> None:
    cap, boot = tables()
    merged = joint([cap, boot])
    assert merged.rows("train", complete=True).tolist() == [0, 1, 3, 6]
    assert boot.rows("train", complete=True).tolist() == [0, 3]
    assert boot.rows("train").tolist() == [0, 1, 3]


def test_a_category_that_routes_already_is_the_router_of_the_joint_table(tables: Callable[..., list[Table]]) -> None:
    rows = (
        *ROWS,
        {"id": "7", "Category": "Thing", "attr_1": "Boot", "attr_2": "old", "split": "train"},
        {"id": "8", "Category": "Thing", "attr_1": "Cap", "attr_2": "new", "split": "train"},
        {"id": "9", "Category": "Thing", "attr_1": "Cap", "attr_2": "new", "split": "val"},
    )
    merged = joint(tables(rows, {**ATTRIBUTES, "Thing": '["kind", "age"]'}))
    assert [category.name for category in merged.categories] == ["Thing", "Cap", "Boot"]
    assert merged.routes == Routes(attribute="kind", to={"Boot": "Boot", "Cap": "Cap"})
    assert merged.ids[:3] == ("7", "8", "9")
    assert (merged.labels_NL[3:, :2] == MISSING).all()
    assert merged.kinds_N.tolist() == [0] * 3 + [1] * 3 + [2] * 4


def test_a_router_learns_the_category_of_every_row(tables: Callable[..., list[Table]]) -> None:
    made = router(tables())
    assert made.name == "Router"
    assert [(a.name, a.classes, a.output) for a in made.attributes] == [("Category", ("Cap", "Boot"), "Category")]
    assert made.labels_NL[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert made.routes == Routes(attribute="Category", to={"Cap": "Cap", "Boot": "Boot"})
    assert np.array_equal(made.splits, ["train", "train", "val", "train", "train", "val", "train"])


def test_one_category_alone_is_neither_joined_nor_routed(tables: Callable[..., list[Table]]) -> None:
    (cap, _) = tables()
    with pytest.raises(UserError, match=r"needs two categories or more\ntrain this one alone: leave out --joint"):
        joint([cap])
    with pytest.raises(UserError, match=r"there is one: 'Cap'\nleave out --router"):
        router([cap])


def test_a_category_that_routes_already_is_not_told_apart_from_those_it_leads_to(
    tables: Callable[..., list[Table]],
) -> None:
    rows = (
        *ROWS,
        {"id": "7", "Category": "Any Thing", "attr_1": "Boot", "attr_2": "old", "split": "train"},
        {"id": "8", "Category": "Any Thing", "attr_1": "Cap", "attr_2": "new", "split": "train"},
        {"id": "9", "Category": "Any Thing", "attr_1": "Cap", "attr_2": "new", "split": "val"},
    )
    said = r"'Any Thing' tells the categories apart already\ntrain it with: --category any-thing, or name the others"
    with pytest.raises(UserError, match=said):
        router(tables(rows, {**ATTRIBUTES, "Any Thing": '["kind", "age"]'}))


def test_a_category_called_router_is_the_router_when_it_is_one_and_refused_when_it_is_none(
    tables: Callable[..., list[Table]],
) -> None:
    rows = (
        *ROWS,
        {"id": "7", "Category": "Router", "attr_1": "Boot", "attr_2": "old", "split": "train"},
        {"id": "8", "Category": "Router", "attr_1": "Cap", "attr_2": "new", "split": "train"},
        {"id": "9", "Category": "Router", "attr_1": "Cap", "attr_2": "new", "split": "val"},
    )
    named = tables(rows, {**ATTRIBUTES, "Router": '["kind", "age"]'})
    merged = joint(named)
    assert merged.ids == (*"789", *"0123456")
    assert merged.labels_NL[:3, :2].tolist() == named[-1].labels_NL.tolist()
    assert (merged.labels_NL[3:, :2] == MISSING).all()
    with pytest.raises(UserError, match="'Router' is what a router made of categories is called: rename that category"):
        router([replace(table, routes=None) for table in named])


def test_a_category_that_is_called_as_the_joint_models_own_router_is_refused(
    tables: Callable[..., list[Table]],
) -> None:
    rows = tuple(row | {"Category": "Router" if row["Category"] == "Cap" else "Boot"} for row in ROWS)
    made = tables(rows, {"Router": ATTRIBUTES["Cap"], "Boot": ATTRIBUTES["Boot"]})
    with pytest.raises(UserError, match="has a 'Router' of its own: call the category of that name something else"):
        joint(made)


def test_a_model_of_one_category_gets_its_table_with_its_own_offsets(tables: Callable[..., list[Table]]) -> None:
    (cap, _) = tables()
    categories = calibrate.with_offsets(cap.categories, {"shade": (0.0, 0.5)})
    assert products_of(categories) == ["Cap"]
    made = table_for(categories, [cap])
    assert made.categories == categories
    assert made.labels_NL is cap.labels_NL


def test_a_joint_model_gets_the_joint_table_with_its_own_offsets(tables: Callable[..., list[Table]]) -> None:
    found = tables()
    categories = calibrate.with_offsets(joint(found).categories, {"Router/Category": (0.0, 0.5)})
    assert products_of(categories) == ["Cap", "Boot"]
    made = table_for(categories, found)
    assert made.categories == categories
    assert made.labels_NL.tolist() == joint(found).labels_NL.tolist()


def test_a_router_alone_gets_the_router_of_the_categories_that_it_tells_apart(
    tables: Callable[..., list[Table]],
) -> None:
    found = tables()
    categories = router(found).categories
    assert products_of(categories) == ["Cap", "Boot"]
    made = table_for(categories, found)
    assert (made.categories, made.labels_NL[:, 0].tolist()) == (categories, [0, 0, 0, 1, 1, 1, 1])


def test_a_category_named_router_that_has_attributes_of_its_own_is_a_category(
    tables: Callable[..., list[Table]],
) -> None:
    rows = tuple(row | {"Category": "Router"} for row in ROWS[:3])
    (found,) = tables(rows, {"Router": '["colour", "shade"]'})
    assert products_of(found.categories) == ["Router"]
    assert table_for(found.categories, [found]).labels_NL is found.labels_NL


def test_tables_of_another_taxonomy_are_refused_with_the_first_difference(tables: Callable[..., list[Table]]) -> None:
    cap, boot = tables()
    with pytest.raises(
        UserError, match=r"another taxonomy: Router Category \(Boot, Cap\), where the model has .*Cap, Bo"
    ):
        table_for(joint([cap, boot]).categories, [boot, cap])
    with pytest.raises(UserError, match=r"Boot colour \(black, white\), where the model has Cap colour \(blue, red\)"):
        table_for(cap.categories, [boot])


def test_the_ids_of_each_split_are_kept(tables: Callable[..., list[Table]]) -> None:
    (cap, _) = tables()
    assert cap.split_ids() == {"train": ("0", "1"), "val": ("2",), "test": ()}


@pytest.mark.parametrize("merge", [joint, router])
def test_a_photo_in_two_splits_is_refused(
    tables: Callable[..., list[Table]], merge: Callable[[list[Table]], Table]
) -> None:
    both = {"id": "5", "Category": "Cap", "attr_1": "red", "attr_2": "dark", "split": "train"}
    with pytest.raises(UserError, match=r"^000005\.jpg is in split 'train' of one category and in 'val' of another: "):
        merge(tables((*ROWS, both)))


def test_two_attributes_that_a_joint_model_would_call_alike_are_refused(tables: Callable[..., list[Table]]) -> None:
    attributes = {"Cap": '["colour/a", "shade"]', "Cap/colour": '["a", "b"]'}
    rows = tuple(row | {"Category": "Cap/colour"} if row["Category"] == "Boot" else row for row in ROWS)
    with pytest.raises(UserError, match=r"two attributes of a joint model would both be called 'Cap/colour/a'\nrename"):
        joint(tables(rows, attributes))
