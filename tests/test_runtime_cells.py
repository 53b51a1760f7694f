"""What the network says of each declared cell goes to a table and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import declared, vocabulary
from runtime.bundle import Attribute, Category
from runtime.cells import Cell, Questions
from runtime.declared import Listed
from runtime.errors import UserError
from runtime.fleet import Check
from runtime.predictor import Answer


def category(name: str, **attributes: tuple[str, ...]) -> Category:
    return Category(
        name=name,
        attributes=tuple(Attribute(name=one, classes=classes, output=one) for one, classes in attributes.items()),
    )


GARMENT = category("Garment", kind=("Dress", "Shirt"), colour=("dark", "pale"))
DRESS = category("Dress", colour=("red", "blue", "green"), sleeve=("long", "short"))
LEADS = {"gown": "Frock", "maxi": "Frock", "shoe": "Footwear"}
RED = Answer("red", 0.5, (Answer("blue", 0.499), Answer("green", 0.0000012345)))


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    path = tmp_path / "listing.csv"
    path.write_text("image,kind,colour\n1.jpg,dresses,Green\n2.jpg,,purple\n3.jpg,n/a,\n4.jpg,Shirt,pale\n")
    listing = declared.read(path, ["kind", "colour", "sleeve"], ())
    return Questions(listing, {"Garment": GARMENT, "Dress": DRESS}, vocabulary.read())


def row(questions: Questions, place: int, **other: object) -> Listed:
    record = questions.listing.records[place]
    return Listed(image=Path(f"{place + 1}.jpg"), record=record, **other)  # type: ignore[arg-type]


def there_and_back(questions: Questions, rows: list[Listed]) -> list[list[Cell]]:
    sheet = questions.sheet()
    texts = [[("" if value is None else str(value)) for value in sheet.values(one)] for one in rows]
    assert all(len(one) == len(sheet.columns) for one in texts)
    assert [sheet.status(text, one) for text, one in zip(texts, rows, strict=True)] == [one.status for one in rows]
    return [list(photo.cells) for photo in questions.photos(texts)]


def test_a_routed_photo_is_asked_for_its_own_attributes_first_then_for_its_routers(questions: Questions) -> None:
    routed = {"category": "Dress", "category_confidence": 0.8, "routed_from": "Garment"}
    kind = Answer("Dress", 0.8, (Answer("Shirt", 0.2),))
    first, second, third, fourth = there_and_back(
        questions,
        [
            row(questions, 0, answers={"kind": kind, "colour": RED, "sleeve": Answer("long", 1.0)}, **routed),
            row(questions, 1, answers={"kind": kind, "colour": RED}, **routed),
            row(questions, 2, answers={"kind": kind, "colour": RED}, **routed),
            row(questions, 3, status="error", error="gone"),
        ],
    )
    # The listing has no column for sleeves.
    assert first == [
        Cell("Dress", "colour", 2, "Green", "green", "red", "red", 0.5, 0.00000123450),
        Cell("Garment", "kind", 1, "dresses", "Dress", "Dress", "Dress", 0.8, 0.8),
    ]
    assert second == [
        Cell("Dress", "colour", 2, "purple", "", "red", "red", 0.5, 0.0),
        Cell("Garment", "kind", 1, "", "", "Dress", "Dress", 0.8, 0.0),
    ]
    assert [cell.declared for cell in third] == ["", ""]
    assert fourth == []


def test_a_photo_that_its_router_answers_itself_is_asked_for_that_alone(questions: Questions) -> None:
    answers = {
        "kind": Answer("Shirt", 0.9, (Answer("Dress", 0.1),)),
        "colour": Answer("pale", 0.7, (Answer("dark", 0.3),)),
    }
    rows = [row(questions, place, category="Garment", answers=answers) for place in range(4)]
    *_, last = there_and_back(questions, rows)
    assert last == [
        Cell("Garment", "kind", 1, "Shirt", "Shirt", "Shirt", "Shirt", 0.9, 0.9),
        Cell("Garment", "colour", 2, "pale", "pale", "pale", "pale", 0.7, 0.7),
    ]


def test_what_is_declared_and_not_asked_is_told(questions: Questions) -> None:
    given = row(questions, 0, category="Dress", answers={"colour": RED, "sleeve": Answer("long", 1.0)})
    texts = [[("" if value is None else str(value)) for value in questions.sheet().values(given)]] * 4
    photos = list(questions.photos(texts))
    assert [questions.unasked(photo) for photo in photos] == [["kind"], [], [], ["kind"]]


def test_a_listing_without_a_column_for_any_category_at_hand_is_told(questions: Questions) -> None:
    questions.check_any()
    hats = Questions(questions.listing, {"Hat": category("Hat", brim=("wide", "none"))}, vocabulary.read())
    with pytest.raises(UserError, match=r"no column of an attribute of Hat\nthey have: brim; .*--columns brim=COL"):
        hats.check_any()


def test_a_given_category_is_checked_by_what_its_router_says(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("id,Category,attr_1\n1,frocks,red\n2,Hat,x\n")
    listing = declared.read(path, ["colour"], (), ["Frock"])
    frock = category("Frock", colour=("red", "blue"))
    check = Check("Router", Attribute(name="kind", classes=("gown", "maxi", "shoe"), output="kind"), LEADS)
    questions = Questions(listing, {"Frock": frock}, vocabulary.read(), check)
    shows = Answer("shoe", 0.7, (Answer("maxi", 0.2), Answer("gown", 0.1)))
    colour = Answer("red", 0.9, (Answer("blue", 0.1),))
    rows = [
        row(questions, 0, category="Frock", answers={"colour": colour}, shows=shows),
        row(questions, 1, status="skipped"),
    ]
    (first, second), _ = there_and_back(questions, rows)
    assert first == Cell("Frock", "colour", 2, "red", "red", "red", "red", 0.9, 0.9)
    # Either class leads to a frock; what is written would be the category that a shoe is of.
    assert second._replace(declared_confidence=0) == Cell(
        "Router", "kind", 1, "frocks", "gown", "shoe", "Footwear", 0.7, 0, also=("maxi",)
    )
    assert second.declared_confidence == pytest.approx(0.3)
