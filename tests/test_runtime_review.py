"""The page to decide on holds each finding, and each photo once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime import review
from runtime.findings import Finding


def written(path: Path, found: Sequence[Finding], **options: Any) -> Any:
    review.write(path, "an audit", found, listing="abc", precision=0.9, **options)
    return json.loads(path.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0])


def finding(image: Path | str, line: int = 2) -> Finding:
    return Finding(
        str(image), line, "Shirt", "contradicts", 0.98765, attribute="colour", column="attr_1", declared="red",
        predicted="blue", confidence=0.9, declared_confidence=0.01,
    )  # fmt: skip


def test_a_photo_with_several_findings_is_in_the_page_once(tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    red, blue = (make_photo(tmp_path / f"{colour}.png", colour, height=400, width=200) for colour in ("red", "blue"))
    page = written(tmp_path / "audit.html", [finding(red), finding(blue), finding(red), finding("gone.png")])
    pictures = [row[-1] for row in page["rows"]]
    assert pictures[0] and pictures[1] and pictures[0] != pictures[1]
    assert pictures[2:] == [0, ""]
    assert page["rows"][0][:12] == [
        2, "attr_1", str(red), "Shirt", "colour", "contradicts", "red", "blue", 0.9, 0.01, 0.9877, "",
    ]  # fmt: skip
    assert (page["title"], page["listing"], page["precision"]) == ("an audit", "abc", 0.9)


def test_each_finding_is_told_of_and_no_more_are_in_the_page_than_a_browser_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "MOST", 100)
    told: list[int] = []
    found = [finding(f"{line}.png", line) for line in range(150)]
    page = written(tmp_path / "audit.html", found, advance=lambda: told.append(1))
    assert len(page["rows"]) == len(told) == 100


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    written(tmp_path / "audit.html", [])
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "http://" not in text and "https://" not in text and "innerHTML" not in text
