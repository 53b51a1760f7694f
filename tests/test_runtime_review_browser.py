"""The page to decide on, used in a browser: Chromium, driven by Playwright; skipped where either is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime import review
from runtime.findings import Finding
from tests.audit_parts import photos, run, table, with_validation, write

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TRUTH = {"red": {"colour": "red", "warmth": "warm"}, "blue": {"colour": "blue", "warmth": "cold"}}
PHOTOS, DECIDED = 40, 20


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that keeps what pages keep."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        profile = tmp_path_factory.mktemp("profile")
        opened = driver.chromium.launch_persistent_context(
            str(profile), executable_path=CHROMIUM, headless=True, args=["--no-sandbox"], accept_downloads=True
        )
        yield opened
        opened.close()


def test_what_is_decided_by_keys_outlives_a_reload_and_is_what_is_changed(
    browser: Any, bundle_folder: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    names = photos(tmp_path / "photos", ["red", "blue"] * (PHOTOS // 2), make_photo)
    rows = [{"image": name, "colour": "green", "warmth": "<b>warm</b>"} for name in names]
    listing, page_path = write(tmp_path / "listing.csv", rows), tmp_path / "audit.html"
    bundles = with_validation(bundle_folder, tmp_path, TRUTH)
    options = ("--bundles", bundles, "--out", tmp_path / "audit.csv", "--report", page_path, "--quiet")
    assert run(listing, tmp_path / "photos", *options) == 0
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.goto(page_path.as_uri())
    decided: dict[tuple[int, str], str] = {}

    def press(letter: str, name: str) -> None:
        where = page.locator(".where").inner_text().split(" · ")
        attribute = page.locator("h2").inner_text()
        decided[int(where[2].removeprefix("line ")), attribute] = name
        page.keyboard.press(letter)

    for number in range(DECIDED // 2):
        press(*(("a", "accept"), ("r", "reject"), ("s", "skip"))[number % 3])
    page.reload()
    assert "7 of 80 decided" in page.locator("#done").inner_text()  # skipped ones are not
    for number in range(DECIDED // 2):
        press(*(("r", "reject"), ("a", "accept"))[number % 2])
    # One is taken back, and decided otherwise.
    page.keyboard.press("b")
    press("r", "reject")
    with page.expect_download() as waiting:
        page.locator("#download").click()
    waiting.value.save_as(tmp_path / "decisions.json")
    page.close()
    assert not errors
    kept = json.loads((tmp_path / "decisions.json").read_text())["decisions"]
    assert {(one["line"], one["column"]): one["decision"] for one in kept} == decided
    assert len(decided) == DECIDED
    fixed = tmp_path / "fixed.csv"
    assert run(listing, "--decisions", tmp_path / "decisions.json", "--fix", fixed, "--quiet") == 0
    changed = {
        (line, column)
        for line, (was, now) in enumerate(zip(rows, table(fixed), strict=True), 2)
        for column in was
        if was[column] != now[column]
    }
    assert changed == {place for place, decision in decided.items() if decision == "accept"}


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(browser: Any, width: int, tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    photo = make_photo(tmp_path / "red.png", "red", height=300, width=200)
    long = "a-very-long-word-" * 5
    found = [
        Finding(
            str(photo), 2, "Shirt", "unknown value", 0.9, f"no class of colour; nearest: {long}", attribute=long,
            column="c", declared=long, predicted=long, confidence=0.9, declared_confidence=0.0001,
        )
    ]  # fmt: skip
    review.write(tmp_path / "audit.html", long, found, listing="x", precision=0.9)
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((tmp_path / "audit.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_ten_thousand_findings_stay_usable(browser: Any, tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    # A photo of its own for each, as large in the page as real ones are.
    rng = np.random.default_rng(0)
    found = []
    for index in range(review.MOST):
        path = tmp_path / f"{index}.jpg"
        coarse_HWC = rng.integers(0, 256, (20, 20, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse_HWC, (160, 160)), [cv2.IMWRITE_JPEG_QUALITY, 70])
        found.append(
            Finding(str(path), index, "Shirt", "contradicts", 0.9, attribute="colour", column="c", declared="red",
                    predicted="blue", confidence=0.9, declared_confidence=0.1)
        )  # fmt: skip
    review.write(tmp_path / "audit.html", "many", found, listing="y", precision=0.9)
    page = browser.new_page()
    page.goto((tmp_path / "audit.html").as_uri(), timeout=60_000)
    took = page.evaluate(
        """() => {
            const began = performance.now();
            const press = () => window.dispatchEvent(new KeyboardEvent("keydown", { key: "a" }));
            for (let pressed = 0; pressed < 50; pressed++) press();
            return (performance.now() - began) / 50;
        }"""
    )
    assert "50 of 10000 decided" in page.locator("#done").inner_text()
    assert took < 100, f"{took:.0f} ms a key"
    page.close()
