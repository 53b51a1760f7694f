"""The table of predictions: its columns are a contract, any file name survives it, and it is whole or not there."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runtime import table
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
    with table.csv_file(path, attributes) as write_row:
        for row in rows:
            write_row(row)
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


def test_confidences_have_four_decimals_and_what_does_not_apply_is_blank() -> None:
    attributes = ["kind", "neck", "colour"]
    assert table.cells(ROUTED, attributes) == [
        *("photos/a.jpg", "Shirt", "0.9877", "Garment", "ok", ""),
        *("Shirt", "0.9877", "", "", "red", "0.3333"),
    ]
    assert table.cells(UNREADABLE, attributes) == ["photos/b.jpg", "", "", "", "error", "the file is empty", *[""] * 6]
    certain = Row(image=Path("c.jpg"), answers={"kind": Answer("Hat", 1.0)})
    assert table.cells(certain, ["kind"])[-2:] == ["Hat", "1.0000"]


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


def test_the_old_table_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with table.csv_file(path, ["kind"]) as write_row:
        write_row(ROUTED)
        assert path.read_text() == "old"
    assert len(read(path)) == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_on_the_way_leaves_the_old_table_and_nothing_beside_it(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def failing() -> Iterator[Row]:
        yield ROUTED
        raise error("on the way")

    with pytest.raises(error, match="on the way"):
        write(path, failing(), ["kind"])
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("out.csv", "old")]


def test_a_table_that_cannot_be_written_is_refused_before_any_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    before = sorted(tmp_path.rglob("*"))
    for name in (".", "/", "..", "folder", "folder/", "pipe", "file/out.csv", "/proc/out.csv", "x" * 300):
        with (
            pytest.raises(UserError, match=rf"^cannot write {Path(name)}: .+\nchoose another file with: --out FILE$"),
            table.csv_file(Path(name), []),
        ):
            pytest.fail(f"{name!r} was taken for a file that can be written")
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("file").read_text() == "mine"
    assert Path("pipe").is_fifo()


def test_a_disk_that_fills_up_on_the_way_leaves_the_old_table_and_nothing_beside_it(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    refusal = r"^cannot write \S+out\.csv: File too large\nchoose another file"
    with largest_file(10_000), pytest.raises(UserError, match=refusal):
        write(path, [ROUTED] * 10_000, ["kind"])
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("out.csv", "old")]


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
