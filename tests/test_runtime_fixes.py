"""A fixed listing has exactly the changes that were decided, each told, and nothing else of it moves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from runtime import fixes
from runtime.errors import UserError
from runtime.files import sha256_of
from runtime.findings import Finding
from runtime.fixes import Change

CONTENT = '\ufeffimage;colour;neck\r\n1.jpg;"red";\r\n\r\n2.jpg; blue ;"a ""b"""\r\n3.jpg\n'


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "listing.csv"
    path.write_bytes(CONTENT.encode())
    return path


def decisions(path: Path, listing: Path, *found: dict[str, Any], **other: Any) -> Path:
    path.write_text(json.dumps({"version": 1, "listing": sha256_of(listing), "decisions": found} | other))
    return path


def one(decision: str = "accept", **other: Any) -> dict[str, Any]:
    return {"line": 4, "column": "colour", "declared": "blue", "predicted": "green", "decision": decision} | other


def test_what_is_not_changed_stays_byte_for_byte(listing: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "fixed.csv"
    changes = [Change(4, "colour", "blue", "green; pale", "accepted"), Change(5, "neck", "", "round", "accepted")]
    fixes.apply(listing, changes, out, digest=sha256_of(listing))
    expected = CONTENT.replace('2.jpg; blue ;"a ""b"""', '2.jpg;"green; pale";"a ""b"""').replace(
        "3.jpg", "3.jpg;;round"
    )
    assert out.read_bytes().decode() == expected
    assert listing.read_bytes().decode() == CONTENT
    with fixes.traces(out).open(newline="") as file:
        assert list(csv.reader(file)) == [
            list(fixes.COLUMNS),
            ["4", "colour", "blue", "green; pale", "accepted"],
            ["5", "neck", "", "round", "accepted"],
        ]


@pytest.mark.parametrize("cell", ["two\nlines", "a\rb", "a\r\nb"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", ""])
def test_a_line_break_in_a_changed_row_stays_in_its_cell(cell: str, ending: str, tmp_path: Path) -> None:
    path, out = tmp_path / "listing.csv", tmp_path / "fixed.csv"
    text = f'image,colour,about\n1.jpg,red,"{cell}"{ending}'
    path.write_bytes(text.encode())
    fixes.apply(path, [Change(2, "colour", "red", "blue", "accepted")], out, digest=sha256_of(path))
    assert out.read_bytes() == text.replace("red", "blue").encode()


def test_what_names_a_photo_never_changes(listing: Path, tmp_path: Path) -> None:
    path = decisions(tmp_path / "d.json", listing, one())
    assert len(fixes.decided(path, listing)) == 1
    with pytest.raises(UserError, match="is no value that an audit predicts"):
        fixes.decided(path, listing, ["colour"])


def test_a_listing_that_is_not_the_one_that_was_read_is_not_fixed(listing: Path, tmp_path: Path) -> None:
    with pytest.raises(fixes.ChangedError, match=r"was changed since it was read.*\naudit it again"):
        fixes.apply(listing, [Change(4, "colour", "blue", "green", "")], tmp_path / "fixed.csv", digest="0")
    assert [path.name for path in tmp_path.iterdir()] == ["listing.csv"]


def test_no_change_gives_the_listing_itself(listing: Path, tmp_path: Path) -> None:
    fixes.apply(listing, [], tmp_path / "fixed.csv", digest=sha256_of(listing))
    assert (tmp_path / "fixed.csv").read_bytes() == listing.read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change(4, "colour", "red", "green", ""), r"listing\.csv, line 4: colour should be 'red', and is 'blue'"),
        (Change(4, "sleeve", "", "long", ""), "line 4: sleeve should be '', and is no such column"),
        (Change(3, "colour", "", "green", ""), "has no row in line 3|line 3: colour"),
        (Change(99, "colour", "", "green", ""), "has no row in line 99"),
    ],
)
def test_a_change_of_another_listing_changes_nothing(change: Change, told: str, listing: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        fixes.apply(listing, [change], tmp_path / "fixed.csv", digest=sha256_of(listing))
    assert [path.name for path in tmp_path.iterdir()] == ["listing.csv"]


def test_only_what_was_accepted_is_changed(listing: Path, tmp_path: Path) -> None:
    path = decisions(tmp_path / "d.json", listing, one("reject"), one("skip", line=5), one(line=2, declared="red"))
    assert fixes.decided(path, listing) == [Change(2, "colour", "red", "green", "accepted")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no json", "is no file of decisions"),
        ("[]", "is no file of decisions, of version 1"),
        ("[" * 100_000, "is no file of decisions"),
        ('{"version": 2, "decisions": []}', "of version 1"),
        ('{"version": 1, "decisions": {}}', "of version 1"),
        ('{"version": 1, "listing": "other", "decisions": []}', "was decided on another listing"),
    ],
)
def test_what_holds_no_decisions_on_this_listing_is_told(
    content: str, told: str, listing: Path, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(UserError, match=told):
        fixes.decided(path, listing)


@pytest.mark.parametrize(
    "wrong",
    [
        one("maybe"),
        {},
        "accept",
        one(line="4"),
        one(line=True),
        one(predicted=None),
        one(predicted="=1"),
        one(predicted="a\n"),
        one(predicted="\ud800"),
        one(column="Image"),
    ],
)
def test_a_decision_that_is_none_is_told(wrong: Any, listing: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no decision|names no line, column|is no value that an audit predicts"):
        fixes.decided(decisions(tmp_path / "d.json", listing, wrong), listing)


def test_a_listing_that_is_no_text_is_told(tmp_path: Path) -> None:
    listing = tmp_path / "listing.csv"
    listing.write_bytes(b"image,colour\n1.jpg,ros\xe9\n")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        fixes.apply(listing, [Change(2, "colour", "", "red", "")], tmp_path / "fixed.csv", digest=sha256_of(listing))
    assert [path.name for path in tmp_path.iterdir()] == ["listing.csv"]


def test_a_cell_that_is_decided_twice_is_told(listing: Path, tmp_path: Path) -> None:
    path = decisions(tmp_path / "d.json", listing, one("reject"), one("accept"))
    with pytest.raises(UserError, match="decides line 4, colour, twice"):
        fixes.decided(path, listing)


def test_what_said_nothing_is_traced_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "listing.csv").write_text("image,colour\n1.jpg,N/A\n")
    fixes.apply(
        tmp_path / "listing.csv",
        [Change(2, "colour", "", "red", "fills")],
        tmp_path / "fixed.csv",
        digest=sha256_of(tmp_path / "listing.csv"),
    )
    assert (tmp_path / "fixed.changes.csv").read_text().split() == [
        '"line","column","before","after","why"',
        '"2","colour","N/A","red","fills"',
    ]


def test_decisions_that_are_not_there_are_told(listing: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        fixes.decided(tmp_path / "none.json", listing)
    path = decisions(tmp_path / "d.json", listing)
    with pytest.raises(UserError, match=r"cannot read \S+gone\.csv"):
        fixes.decided(path, tmp_path / "gone.csv")


def test_the_promise_covers_what_fills_and_what_contradicts() -> None:
    def finding(verdict: Any) -> Finding:
        return Finding("1.jpg", 2, "Shirt", verdict, 0.9, column="colour", declared="red", predicted="blue")

    found = list(map(finding, ("fills", "contradicts", "unsure", "unknown value", "error")))
    assert [change.why for change in fixes.promised(found, 0.95)] == [
        "fills, 0.9000, at 0.95",
        "contradicts, 0.9000, at 0.95",
    ]
