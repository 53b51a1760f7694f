"""The page of a run: every photo in it, nothing from elsewhere, whatever a file is called."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from runtime import report, table

COLUMNS = table.columns(["colour", "sleeve"], top=2)


def written(path: Path, rows: list[list[str]]) -> dict[str, object]:
    """The data of the page written."""
    report.write(path, "2 photos", COLUMNS, rows)
    text = path.read_text(encoding="utf-8")
    data = text.partition('id="data">')[2].partition("</script>")[0]
    found: dict[str, object] = json.loads(data)
    return found


def texts(image: Path | str, *, status: str = "ok", error: str = "", answers: tuple[str, ...] = ("",) * 8) -> list[str]:
    return [str(image), "Shirt" if status == "ok" else "", "0.9000", "Garment", status, error, *answers]


def test_each_photo_is_small_beside_its_answers(tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    photo = make_photo(tmp_path / "red.png", "red", height=300, width=600)
    answers = ("red", "0.7500", "blue", "0.2500", "", "0.4000", "", "0.3000")
    found = written(tmp_path / "new" / "report.html", [texts(photo, answers=answers), texts("b.jpg", status="error")])
    assert found["title"] == "2 photos"
    assert found["attributes"] == ["colour", "colour_2", "sleeve", "sleeve_2"]
    (image, category, sure, status, _, picture, told), lost = found["rows"]  # type: ignore[misc]
    assert (image, category, sure, status) == (str(photo), "Shirt", 0.9, "ok")
    assert told == [[0, "red", 0.75], [1, "blue", 0.25], [2, None, 0.4], [3, None, 0.3]]
    small_HWC = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert small_HWC.shape == (48, 96, 3)
    assert np.abs(small_HWC.reshape(-1, 3).mean(0) - (220, 30, 30)).max() < 6
    assert lost[3:] == ["error", "", "", []]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_a_photo_larger_than_the_run_allows_is_not_decoded_for_the_page_either(
    tmp_path: Path, make_photo: Callable[..., Path]
) -> None:
    photo, path = make_photo(tmp_path / "red.png", "red", height=20, width=20), tmp_path / "report.html"
    sizes = []
    for most in (399, 400):
        report.write(path, "1 photo", COLUMNS, [texts(photo)], max_pixels=most)
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] > 300


def test_no_name_ends_the_script_or_breaks_the_page(tmp_path: Path) -> None:
    names = [
        "</script><script>alert(1)</script>.jpg",
        '"quoted".jpg',
        "two\nlines.jpg",
        os.fsdecode(b"\xff.jpg"),
        "写真.jpg",
    ]
    found = written(tmp_path / "report.html", [texts(name, status="error") for name in names])
    shown = [row[0] for row in found["rows"]]  # type: ignore[attr-defined]
    assert shown == names


def test_a_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    written(tmp_path / "report.html", [])
    text = (tmp_path / "report.html").read_text()
    assert "default-src 'none'" in text
    assert "http://" not in text and "https://" not in text and "src=" not in text.replace("img-src", "")


def test_of_many_photos_each_is_told_of_once_as_it_is_written(tmp_path: Path) -> None:
    told: list[int] = []
    rows = ([*texts(f"{index}.jpg", status="error")] for index in range(3 * report.CHUNK + 1))
    report.write(tmp_path / "report.html", "many", COLUMNS, rows, advance=lambda: told.append(1))
    assert len(told) == 3 * report.CHUNK + 1
