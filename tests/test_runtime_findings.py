"""What an audit writes is safe to open."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from runtime import findings
from runtime.errors import UserError
from runtime.findings import COLUMNS, Finding


def test_a_finding_is_a_row_of_texts(tmp_path: Path) -> None:
    found = Finding(
        "a,\n1.jpg", 2, "Shirt", "contradicts", 0.98765, attribute="colour", column="=x", declared="red",
        predicted="blue", confidence=1.0, declared_confidence=0.00001,
    )  # fmt: skip
    findings.write(tmp_path / "new" / "audit.csv", COLUMNS, [found.texts(), Finding("b", 3, "", "error").texts()])
    with (tmp_path / "new" / "audit.csv").open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert header == list(COLUMNS)
    assert first == [
        "a,\n1.jpg",
        "2",
        "Shirt",
        "colour",
        "'=x",
        "contradicts",
        "red",
        "blue",
        "1.0000",
        "0.0000",
        "0.9877",
        "",
    ]
    assert second == ["b", "3", "", "", "", "error", "", "", "", "", "0.0000", ""]


def test_a_table_goes_where_a_link_leads_and_takes_the_place_of_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "there.csv")
    findings.write(tmp_path / "link.csv", ["a"], [["1"]])
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "there.csv").read_text().split() == ['"a"', '"1"']
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match=r"cannot write \S+pipe\.csv: not a file"):
        findings.write(tmp_path / "pipe.csv", ["a"], [])
