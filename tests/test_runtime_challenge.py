"""The submission is the challenge's own file: its columns, every id, the labels in their order, and no blank cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import challenge, output
from runtime.bundle import Attribute, Category
from runtime.errors import UserError
from runtime.fleet import Row
from runtime.predictor import Answer

HEADER = "id,Category,len,attr_1,attr_2,attr_3,attr_4,attr_5,attr_6,attr_7,attr_8,attr_9,attr_10"


def category(name: str, *attributes: str) -> Category:
    return Category(
        name=name, attributes=tuple(Attribute(name=each, classes=("a", "b"), output=each) for each in attributes)
    )


def written(path: Path, rows: list[Row], *categories: Category) -> str:
    with output.opened(path, challenge.sheet({each.name: each for each in categories}), []) as out:
        for row in rows:
            out.write(row)
    return path.read_bytes().decode()


def test_a_row_holds_its_labels_in_the_category_s_order_and_the_dummy_in_every_other_column(tmp_path: Path) -> None:
    answers = {"neck": Answer("round, or so", 0.5), "colour": Answer("red", 1.0)}
    row = Row(image=Path("000012.jpg"), id="0012", category="Men Tshirts", answers=answers)
    text = written(tmp_path / "new" / "out.csv", [row], category("Men Tshirts", "colour", "neck"))
    assert text == f'{HEADER}\n0012,Men Tshirts,2,red,"round, or so",' + ",".join(["dummy_value"] * 8) + "\n"


def test_ten_attributes_leave_no_dummy(tmp_path: Path) -> None:
    names = [f"attribute {index}" for index in range(10)]
    answers = {name: Answer(name.upper(), 0.5) for name in reversed(names)}
    row = Row(image=Path("1.jpg"), id="1", category="Sarees", answers=answers)
    text = written(tmp_path / "out.csv", [row], category("Sarees", *names))
    assert text.splitlines()[1] == "1,Sarees,10," + ",".join(name.upper() for name in names)


def test_a_photo_without_an_answer_has_its_row_all_the_same(tmp_path: Path) -> None:
    lost = Row(image=Path("1.jpg"), id="1", category="Kurtis")
    lost.fail("the file is empty")
    nobody = Row(image=Path("2.jpg"), id="2", category="Hats")
    nobody.skip()
    dummies = ",".join(["dummy_value"] * 10)
    text = written(tmp_path / "out.csv", [lost, nobody], category("Kurtis", "colour", "neck"))
    assert text == f"{HEADER}\n1,Kurtis,2,{dummies}\n2,Hats,0,{dummies}\n"


def test_more_attributes_than_a_submission_has_columns_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    wide = category("Wide", *(f"attribute {index}" for index in range(11)))
    refused = r"^category 'Wide' has 11 attributes, and a submission takes 10 at most\nwrite .+ with: --format table$"
    with pytest.raises(UserError, match=refused):
        written(tmp_path / "new" / "out.csv", [], category("Narrow", "colour"), wide)
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with output.opened(path, challenge.sheet({}), []) as out:
        out.write(Row(image=Path("1.jpg"), id="1"))
        assert path.read_text() == "old"
    assert path.read_text().startswith(HEADER)
    assert list(tmp_path.iterdir()) == [path]
