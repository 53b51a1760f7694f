"""A listing is read as it was written or refused in one clear line, and its photos are found by name alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime import listing
from runtime.errors import UserError
from runtime.listing import Entry

FIRST_LINE = r"its first line should be: id,Category$"


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("0", "000000.jpg"),
        ("12", "000012.jpg"),
        ("000012", "000012.jpg"),
        ("00000012", "000012.jpg"),
        ("70378", "070378.jpg"),
        ("12345678", "12345678.jpg"),
        ("shirt.png", "shirt.png"),
        ("12.jpg", "12.jpg"),
        ("-1", "-1"),
        ("1.0", "1.0"),
        ("١٢", "١٢"),
        ("²", "²"),
    ],
)
def test_a_number_names_its_photo_in_six_digits_and_anything_else_names_itself(id: str, name: str) -> None:
    assert listing.photo_of(id) == name


@pytest.mark.parametrize(
    "content",
    [
        "id,Category\n12,Sarees\n007,Women Tops & Tunics\na b.png,\n",
        "id,Category\r\n12,Sarees\r\n007,Women Tops & Tunics\r\na b.png,\r\n",
        "\ufeffid,Category\n12,Sarees\n007,Women Tops & Tunics\na b.png,",
        '\n"id", Category \n\n 12 , Sarees\n,\n"007"," Women Tops & Tunics"\n  \n a b.png\n\n',
        "len,Category,other,id\n5,Sarees,,12\n9,Women Tops & Tunics,x,007,more\n,,,a b.png\n",
    ],
    ids=["as the challenge writes it", "of Windows", "of a spreadsheet", "blanks and quotes", "columns more and less"],
)
def test_ids_and_categories_come_back_as_text_in_order_whatever_stands_around_them(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "test.csv").write_bytes(content.encode())
    expected = [Entry("12", "Sarees"), Entry("007", "Women Tops & Tunics"), Entry("a b.png", "")]
    assert listing.read(tmp_path / "test.csv") == expected


# What the file holds, and what the line says of it.
MISTAKES = {
    "empty": (b"", r"is empty\n" + FIRST_LINE),
    "blank lines": (b"\n\n,\n  \n", r"is empty\n" + FIRST_LINE),
    "a header alone": (b"id,Category\n", r"has no rows\nbelow id,Category add a line for each photo"),
    "no category": (b"id,len\n1,2\n", r"lacks column Category; it has: 'id, len'\n" + FIRST_LINE),
    "no id": (b"Category\nSarees\n", r"lacks column id; it has: 'Category'\n" + FIRST_LINE),
    "semicolons": (b"id;Category\n1;Sarees\n", r"lacks column id, Category; it has: 'id;Category'\n" + FIRST_LINE),
    "no header": (b"1,Sarees\n2,Sarees\n", r"lacks column id, Category; it has: '1, Sarees'\n" + FIRST_LINE),
    "an escape in the header": (
        b"\x1b[31mid,Category\n1,Sarees\n",
        r"lacks column id; it has: '\\x1b\[31mid, Category'\n" + FIRST_LINE,
    ),
    "the same id twice": (b"id,Category\n1,A\n2,A\n1,B\n", r"has id '1' in lines 2 and 4\nleave one of the two out$"),
    "one photo by two ids": (b"id,Category\n1,A\n\n01,A\n", r"has id '01' in lines 2 and 4\nleave one"),
    "an id left out": (b"id,Category\n1,A\n ,B\n", r"has no id in line 3\ngive every line the id of its photo$"),
    "Latin-1": (
        b"id,Category\n1,V\xeatement\n",
        r"is not UTF-8 text: byte 0xea, .+\nsave it as CSV UTF-8, or .+ iconv ",
    ),
    "UTF-16": ("id,Category\n1,A\n".encode("utf-16"), r"is not UTF-8 text: byte 0xff, invalid start byte\n"),
    "a photo": (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)), r"is not UTF-8 text: byte 0xff, "),
    "a quote without an end": (
        b'id,Category\n1,"A\n2,B\n',
        r"is not a CSV table: unexpected end of data\n" + FIRST_LINE,
    ),
    "a cell beyond reason": (b"id,Category\n1," + b"A" * 200_000, r"is not a CSV table: field larger than"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_no_listing_is_one_clear_line_and_what_to_type_next(tmp_path: Path, mistake: str) -> None:
    content, said = MISTAKES[mistake]
    path = tmp_path / "test.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))} {said}"):
        listing.read(path)


@pytest.mark.parametrize("name", ["none.csv", "folder", "test.csv/x", "n" * 300])
def test_a_listing_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "test.csv").write_text("id,Category\n1,A\n")
    with pytest.raises(
        UserError, match=rf"^cannot read \S+{name}: .+\nname the challenge's test.csv with: --listing FILE$"
    ):
        listing.read(tmp_path / name)


def test_photos_are_looked_up_by_name_throughout_the_folders_and_never_outside_them(tmp_path: Path) -> None:
    for name in ("in/000001.jpg", "in/deep/000002.jpg", "in/c.dat", "outside.jpg", "in/000009.jpg", "alone/000003.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ids = [
        "3",
        "2",
        "4",
        "c.dat",
        "../outside.jpg",
        str(tmp_path / "outside.jpg"),
        "deep/000002.jpg",
        "..",
        "a\0b",
        "1",
    ]
    entries = [Entry(id, "Saree") for id in ids]
    photos = listing.photos(entries, [tmp_path / "in", tmp_path / "alone" / "000003.jpg"])
    found = list(listing.rows(entries, photos, {"Saree"}))
    assert [row.id for row in found] == ids
    assert {row.id: row.image for row in found if row.status == "ok"} == {
        "3": tmp_path / "alone" / "000003.jpg",
        "2": tmp_path / "in" / "deep" / "000002.jpg",
        "c.dat": tmp_path / "in" / "c.dat",
        "1": tmp_path / "in" / "000001.jpg",
    }
    lost = [row for row in found if row.status != "ok"]
    assert {(row.status, row.error) for row in lost} == {("error", "no file of this name in the folders given")}
    assert lost[0].image == Path("000004.jpg")


def test_a_photo_whose_category_nobody_serves_is_skipped_and_one_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for index in (1, 2, 3):
        (tmp_path / f"00000{index}.jpg").touch()
    entries = [Entry("1", "Saree"), Entry("2", "Hat"), Entry("3", ""), Entry("4", "Hat")]
    found = list(listing.rows(entries, listing.photos(entries, [tmp_path]), {"Saree"}))
    assert [(row.category, row.status, row.error) for row in found] == [
        ("Saree", "ok", ""),
        ("Hat", "skipped", "no bundle serves category 'Hat'"),
        ("", "skipped", "no category is given"),
        ("Hat", "error", "no file of this name in the folders given"),
    ]


def test_two_photos_of_the_name_that_is_looked_up_are_refused_and_two_of_another_are_not(tmp_path: Path) -> None:
    for name in ("train/000001.jpg", "test/000001.jpg", "test/000002.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert listing.photos([Entry("2", "A")], [tmp_path]) == {"000002.jpg": tmp_path / "test" / "000002.jpg"}
    two = r"^two photos are named 000001\.jpg: \S+/test/000001\.jpg and \S+/train/000001\.jpg\ngive the folder of "
    with pytest.raises(UserError, match=two):
        listing.photos([Entry("1", "A")], [tmp_path])


def test_one_photo_reached_by_two_ways_is_one_photo_and_a_link_that_leads_nowhere_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "000001.jpg").touch()
    (tmp_path / "in" / "000002.jpg").symlink_to("gone")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    entries = [Entry("1", "A"), Entry("2", "A")]
    assert listing.photos(entries, [Path("in"), Path("linked"), tmp_path / "in"]).keys() == {"000001.jpg", "000002.jpg"}
