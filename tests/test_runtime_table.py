"""The table of predictions: its columns are a contract, any file name survives it, and it is whole or not there."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from runtime import output, table
from runtime.errors import UserError
from runtime.fleet import Row
from runtime.predictor import Answer

ROUTED = Row(
    image=Path("photos/a.jpg"),
    category="Shirt",
    category_confidence=0.98765,
    routed_from="Garment",
    answers={"kind": Answer("Shirt", 0.98765), "colour": Answer("red", 1 / 3)},
)
UNREADABLE = Row(image=Path("photos/b.jpg"), status="error", error="the file is empty")


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def write(path: Path, rows: Iterable[Row], attributes: Sequence[str]) -> list[list[str]]:
    with output.opened(path, table.sheet(attributes), []) as out:
        for row in rows:
            out.write(row)
    return read(path)


def test_the_columns_are_those_of_every_row_and_then_each_attribute_beside_its_confidence() -> None:
    assert table.columns(["colour", "neck"]) == [
        "image",
        "category",
        "category_confidence",
        "routed_from",
        "status",
        "error",
        "colour",
        "colour_confidence",
        "neck",
        "neck_confidence",
    ]


def test_confidences_have_four_decimals_and_what_does_not_apply_is_blank(tmp_path: Path) -> None:
    certain = Row(image=Path("c.jpg"), answers={"kind": Answer("Hat", 1.0)})
    _, *rows = write(tmp_path / "out.csv", [ROUTED, UNREADABLE, certain], ["kind", "neck", "colour"])
    assert rows == [
        ["photos/a.jpg", "Shirt", "0.9877", "Garment", "ok", "", "Shirt", "0.9877", "", "", "red", "0.3333"],
        ["photos/b.jpg", "", "", "", "error", "the file is empty", *[""] * 6],
        ["c.jpg", "", "", "", "ok", "", "Hat", "1.0000", *[""] * 4],
    ]


def test_of_several_labels_the_further_ones_have_columns_with_a_number(tmp_path: Path) -> None:
    names = ["colour", "colour_confidence", "colour_2", "colour_2_confidence", "colour_3", "colour_3_confidence"]
    assert table.columns(["colour"], top=3)[6:] == names
    # Of two classes there is no third.
    ranked = Row(image=Path("a.jpg"), answers={"colour": Answer("red", 0.6, (Answer("blue", 0.4),))})
    assert table.values(ranked, ["colour"], top=3)[6:] == ["red", 0.6, "blue", 0.4, None, None]
    assert table.values(ranked, ["colour"], top=1)[6:] == ["red", 0.6]
    assert table.values(UNREADABLE, ["colour"], top=3)[6:] == [None] * 6


@pytest.mark.parametrize(("names", "top"), [(["colour", "colour_confidence"], 1), (["colour", "colour_2"], 2)])
def test_two_columns_of_one_name_are_refused(names: list[str], top: int) -> None:
    with pytest.raises(UserError, match=rf"two columns of the table would be called '{names[1]}'\nrename"):
        table.sheet(names, top=top)


def test_a_label_of_too_little_confidence_is_blank_and_its_confidence_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert table.values(ROUTED, ["kind", "colour"], least=0.5)[6:] == ["Shirt", 0.98765, None, 1 / 3]
    table.show([ROUTED], least=0.5)
    shown = capsys.readouterr().out
    assert "kind Shirt 0.99" in shown and "red" not in shown


def test_a_table_without_rows_has_its_header(tmp_path: Path) -> None:
    assert write(tmp_path / "new" / "out.csv", [], ["colour"]) == [table.columns(["colour"])]


NAMES = [
    b"plain.jpg",
    b"one, two.jpg",
    b'the "best".jpg',
    b"two\nlines.jpg",
    b"back\r\n.jpg",
    b" spaces .jpg",
    "naïve 写真.jpg".encode(),
    b"latin-1 \xe9\xff.jpg",
    b"[red]markup[bold].jpg",
    b"=1+1.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_comes_back_from_the_table_byte_for_byte(tmp_path: Path, name: bytes) -> None:
    row = Row(image=Path(os.fsdecode(name)), answers={"colour": Answer('a "b", c', 0.5)})
    (_, found) = write(tmp_path / "out.csv", [row], ["colour"])
    assert os.fsencode(found[0]) == name
    assert found[6:] == ['a "b", c', "0.5000"]


def test_the_terminal_shows_what_each_photo_gave_or_why_it_gave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    table.show([ROUTED, UNREADABLE])
    shown = capsys.readouterr().out.splitlines()
    routed, unreadable = (next(line for line in shown if name in line) for name in ("a.jpg", "b.jpg"))
    assert "Shirt" in routed
    assert "red 0.33" in routed
    assert "the file is empty" in unreadable


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", ["[red]markup[bold].jpg", "naïve 写真.jpg", r"latin-1 \udce9\udcff.jpg"]), ("ascii", [r"na\xefve"])],
)
def test_the_terminal_shows_any_file_name_in_whatever_encoding_it_has(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: list[str]
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    table.show([Row(image=Path(os.fsdecode(name)), category="Vêtement") for name in NAMES])
    terminal.seek(0)
    text = terminal.read()
    assert all(name in text for name in shown)
