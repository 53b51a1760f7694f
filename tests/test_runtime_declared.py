"""Listings of all layouts are read as they are meant, and what is unclear is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import declared
from runtime.bundle import Attribute, Category
from runtime.errors import UserError

ATTRIBUTES = ["colour", "neck"]
MAPPED = (("image", "File"), ("colour", "category"))
SHIRT = Category(
    name="Shirt",
    attributes=tuple(Attribute(name=name, classes=("a", "b"), output=name) for name in ATTRIBUTES),
)


def read(path: Path, content: str | bytes, *columns: tuple[str, str]) -> declared.Listing:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return declared.read(path, ATTRIBUTES, columns, ["Shirt"])


def cells(listing: declared.Listing, attribute: str) -> list[str | None]:
    column = listing.columns.of(SHIRT, attribute)
    return [None if column is None else declared.cell(record, column) for record in listing.records]


def test_the_challenges_own_layout_numbers_the_attributes_of_each_category(tmp_path: Path) -> None:
    found = read(tmp_path / "train.csv", "id,Category,len,attr_1,attr_2\n7,Shirt,2,red, round\n12,Shirt,2,,\n")
    assert [found.photo(record) for record in found.records] == ["000007.jpg", "000012.jpg"]
    assert [found.category(record) for record in found.records] == ["Shirt", "Shirt"]
    assert (cells(found, "colour"), cells(found, "neck")) == (["red", ""], ["round", ""])
    assert cells(found, "sleeve") == [None, None]


@pytest.mark.parametrize(
    "content",
    [
        "image,colour,neck\na/1.jpg,red,round\n",
        "\ufeffImage;Neck;COLOUR\na/1.jpg;round;red\n",
        "image\tother\tcolour\tneck\r\na/1.jpg\t\tred\tround\r\n",
        '\nimage,colour,neck\n\n"a/1.jpg","red",round\n\n',
    ],
)
def test_any_table_of_photos_and_attributes_will_do(content: str, tmp_path: Path) -> None:
    found = read(tmp_path / "listing.csv", content)
    assert [found.photo(record) for record in found.records] == ["a/1.jpg"]
    assert (cells(found, "colour"), cells(found, "neck")) == (["red"], ["round"])
    assert found.columns.category is None


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    found = read(tmp_path / "listing.csv", "File,category,Farbe\n1.jpg,red,x\n", *MAPPED)
    assert (found.photo(found.records[0]), cells(found, "colour")) == ("1.jpg", ["red"])
    assert found.columns.category is None  # that column is the colour's


@pytest.mark.parametrize(
    ("content", "columns", "told"),
    [
        ("", (), "is empty"),
        ("\n\n", (), "is empty"),
        ("image,colour\n", (), "has no rows"),
        ("photo,colour\n1.jpg,red\n", (), "no column 'image' or 'id'; it has: photo, colour\n.+--columns image=COLUMN"),
        ("image,farbe\n1.jpg,red\n", (), "no column of an attribute; it has: image, farbe\n.+--columns colour=COLUMN"),
        ("image,colour,colour\n1.jpg,red,red\n", (), "has two columns called 'colour'"),
        ("image,colour\n1.jpg,red\n", (("neck", "collar"),), "has no column 'collar' for neck"),
        ("image,colour\n1.jpg,red\n", (("nec", "colour"),), "--columns maps 'nec', which is no attribute"),
        ("image,colour\n1.jpg,rosé\n".encode("latin-1"), (), "is not UTF-8 text.+\n.+iconv"),
        ("image,colour\n1.jpg,red\n".encode("utf-16"), (), "is not UTF-8 text.+\n.+iconv -f UTF-16"),
        ('image,colour\n1.jpg,"red\n', {}, "is not a CSV table"),
        ("image,colour\n1.jpg," + "x" * 200_000 + "\n", (), "is not a CSV table"),
    ],
)  # fmt: skip
def test_what_is_no_listing_is_told(content: str | bytes, columns: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        read(tmp_path / "listing.csv", content, *columns)


def test_a_listing_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        declared.read(tmp_path / "none.csv", ATTRIBUTES, ())


def test_all_of_a_file_is_in_its_records_byte_for_byte(tmp_path: Path) -> None:
    content = '\ufeff\r\nimage,colour\r\n\r\n1.jpg,"red,\n""or"" so"\r\n2.jpg,blue\n\n'
    path = tmp_path / "listing.csv"
    path.write_bytes(content.encode())
    found = list(declared.records(path))
    assert "".join(record.text for record in found) == content
    assert [(record.line, len(record.cells)) for record in found] == [(1, 0), (2, 2), (3, 0), (4, 2), (6, 2), (7, 0)]


def test_empty_is_what_says_nothing() -> None:
    assert all(map(declared.is_empty, ["", " ", "-", "—", "N/A", "nan", "NULL", "dummy_value"]))
    assert not any(map(declared.is_empty, ["no", "none", "0", "default", "🔵", "?"]))


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n", ","),
        ("a;b\n1,2;3\n", ";"),
        ("\n\na\tb\n", "\t"),
        ('\ufeffa,b,"c;d;e;f"\n', ","),
        ('a,b,"c;\nd;e;f"\n', ","),
        ("", ","),
    ],
)
def test_the_delimiter_is_that_of_the_header(text: str, delimiter: str) -> None:
    assert declared.delimiter_of(text) == delimiter


def test_a_category_is_known_without_case_and_plural_and_one_that_is_never_given_is_none(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "id,Category,attr_1\n1,SHIRTS,red\n2,Hat,red\n3,,red\n")
    assert [found.category(record) for record in found.records] == ["Shirt", "Hat", ""]
    found = read(tmp_path / "b.csv", "image,category,colour\n1.jpg,,red\n2.jpg, ,red\n")
    assert found.columns.category is None


def test_a_header_of_any_length_is_read(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", f"id,Category,attr_1,attr_{'1' * 5000}\n1,Shirt,red,x\n")
    assert cells(found, "colour") == ["red"]


def test_rows_find_their_photos_and_say_why_not(tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    photos = tmp_path / "photos"
    for name in ("a/1.png", "b/1.png", "b/2.png", "c/3.png"):
        make_photo(photos / name, "red")
    (photos / "a" / "3.png").symlink_to(photos / "c" / "3.png")
    listing = read(
        tmp_path / "listing.csv",
        "image,colour\nb/1.png,x\n1.png,x\n2.png,x\n3.png,x\ngone.png,x\n,x\nb/1.png,x\n../../etc/2.png,x\nd/3.png,x\n",
    )
    rows = list(declared.rows(listing, declared.photos(listing, [photos])))
    assert [row.status for row in rows] == ["ok", "error", "ok", "ok", "error", "error", "ok", "ok", "ok"]
    assert rows[0].image == rows[6].image == photos / "b" / "1.png"
    # A name leads nowhere but into the folders given.
    assert rows[7].image == photos / "b" / "2.png"
    told = [row.error for row in rows if row.status == "error"]
    assert told[0].startswith("2 photos have this name: ")
    assert told[1:] == ["no file of this name in the folders given", "no photo is named"]


def test_two_photos_of_a_name_are_told_and_one_whose_folder_another_row_names_is_not_taken(
    tmp_path: Path, make_photo: Callable[..., Path]
) -> None:
    for name in ("a/1.png", "b/1.png", "blue/2.png"):
        make_photo(tmp_path / name, "red")
    listing = read(tmp_path / "listing.csv", "image,colour\n1.png,x\nred/2.png,x\nblue/2.png,x\n")
    first, second, third = declared.rows(listing, declared.photos(listing, [tmp_path]))
    assert first.error.startswith("2 photos have this name: ")
    assert second.error == "no file of this name in the folders given"
    assert third.image == tmp_path / "blue" / "2.png"


def test_an_id_stands_once(tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    make_photo(tmp_path / "000001.jpg", "red")
    listing = read(tmp_path / "train.csv", "id,Category,attr_1\n1,Shirt,red\n01,Shirt,red\n")
    assert [row.error for row in declared.rows(listing, declared.photos(listing, [tmp_path]))] == [
        "",
        "line 2 has this id already",
    ]


def test_a_category_that_nobody_serves_is_skipped(tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    make_photo(tmp_path / "000001.jpg", "red")
    listing = read(tmp_path / "train.csv", "id,Category,attr_1\n1,Hat,red\n")
    (row,) = declared.rows(listing, declared.photos(listing, [tmp_path]), {"Shirt"})
    assert (row.status, row.error) == ("skipped", "no bundle serves category 'Hat'")


def test_a_name_that_no_file_can_have_is_told_and_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "listing.csv"
    path.write_text(f"image,colour\n={'a' * 131_071},red\n")
    (row,) = declared.rows(declared.read(path, ["colour"], ()), {})
    assert (row.status, row.error) == ("error", "no file has a name of 131072 signs")
    assert len(str(row.image)) == 200


def test_a_category_that_is_spelt_as_one_is_that_one(tmp_path: Path) -> None:
    path = tmp_path / "listing.csv"
    path.write_text("image,category,colour\n1.jpg,Shoe,red\n2.jpg,Shoes,red\n3.jpg,SHOES,red\n")
    listing = declared.read(path, ["colour"], (), ["Shoes", "Shoe"])
    assert [listing.category(record) for record in listing.records][:2] == ["Shoe", "Shoes"]
