"""The router sees every photo, the specialists those of their own kind, and nobody is guessed at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from runtime import bundle, images
from runtime.bundle import Routes, Verdict
from runtime.errors import UserError
from runtime.fleet import Fleet, Row

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def opened(
    folders: Iterable[Path], *, category: str | None = None, engine: str = "onnxruntime", precision: str | None = None
) -> Fleet:
    return Fleet.open(folders, category=category, engine=engine, precision=precision)


def answered(fleet: Fleet, colours: Iterable[str] = COLOURS) -> list[Row]:
    """A row for each colour, answered in one batch."""
    photos = [np.full((30, 20, 3), COLOURS[colour], np.uint8) for colour in colours]
    filled = [Row(image=Path(f"{colour}.jpg")) for colour in colours]
    with fleet:
        fleet.fill(filled, [{spec: images.fit(photo, spec) for spec in fleet.specs} for photo in photos])
    return filled


def labels(row: Row) -> dict[str, str]:
    return {name: answer.label for name, answer in row.answers.items()}


@pytest.fixture
def folders(fleet_root: Path) -> list[Path]:
    return list(bundle.find(fleet_root).values())


def test_the_router_sends_each_kind_to_its_specialist(folders: list[Path]) -> None:
    red, _, blue = answered(opened(folders))
    assert (red.category, red.routed_from, blue.category, blue.routed_from) == ("Shirt", "Garment", "Boot", "Garment")
    assert labels(red) == {"kind": "Shirt", "warmth": "warm", "colour": "red"}
    assert labels(blue) == {"kind": "Boot", "warmth": "cold", "sole": "high"}
    assert red.category_confidence == red.answers["kind"].confidence


def test_a_kind_whose_specialist_is_not_there_stays_with_the_router(folders: list[Path]) -> None:
    green = answered(opened(folders))[1]
    assert (green.category, green.routed_from, green.category_confidence) == ("Garment", "", None)
    assert green.answers.keys() == {"kind", "warmth"}
    assert green.status == "ok"


def test_a_kind_that_leads_nowhere_stays_with_the_router(
    folders: list[Path], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    routes = Routes(attribute="kind", to={"Top": "Shirt"})
    router = make_bundle(tmp_path, "Everything", {"kind": {"Top": "R", "Boot": "B", "Shirt": "G"}}, routes=routes)
    specialists = [folder for folder in folders if folder.name != "garment"]
    found = answered(opened([*specialists, router]))
    # Boot and Shirt are categories with bundles of their own; only what `to` names is followed.
    assert [row.category for row in found] == ["Shirt", "Everything", "Everything"]


def test_each_row_of_a_mixed_batch_has_the_answers_of_its_own_photo(folders: list[Path]) -> None:
    order = ["blue", "red", "red", "green", "blue", "red", "green"]
    for row, colour in zip(answered(opened(folders), order), order, strict=True):
        assert labels(row) == labels(answered(opened(folders), [colour])[0])


def test_a_specialist_has_the_last_word_on_an_attribute_that_both_know(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    routes = Routes(attribute="kind", to={"Shirt": "Shirt"})
    kinds = {"Shirt": "R", "Hat": "B"}
    make_bundle(tmp_path, "Garment", {"kind": kinds, "colour": {"dark": "R", "bright": "B"}}, routes=routes)
    make_bundle(tmp_path, "Shirt", {"colour": {"crimson": "R", "navy": "B"}})
    fleet = opened(bundle.find(tmp_path).values())
    red, blue = answered(fleet, ["red", "blue"])
    assert labels(red) == {"kind": "Shirt", "colour": "crimson"}
    assert labels(blue) == {"kind": "Hat", "colour": "bright"}
    assert fleet.attributes == ["kind", "colour"]


def test_attributes_and_sizes_are_those_of_the_whole_run_each_once_the_router_s_first(folders: list[Path]) -> None:
    fleet = opened(folders)
    assert fleet.attributes == ["kind", "warmth", "sole", "colour"]
    assert [(spec.height, spec.width) for spec in fleet.specs] == [(16, 16), (24, 24)]
    assert len(fleet.predictors) == 3


@pytest.mark.parametrize("category", ["Shirt", "shirt"])
def test_a_category_given_by_name_or_slug_answers_every_photo_itself(folders: list[Path], category: str) -> None:
    fleet = opened(folders, category=category)
    assert fleet.attributes == ["colour"]
    found = answered(fleet)
    assert [(row.category, row.routed_from, row.category_confidence) for row in found] == [("Shirt", "", None)] * 3
    assert [labels(row) for row in found] == [{"colour": colour} for colour in COLOURS]


def test_the_router_s_own_category_given_routes_nothing(folders: list[Path]) -> None:
    fleet = opened(folders, category="Garment")
    assert [row.category for row in answered(fleet)] == ["Garment"] * 3
    assert len(fleet.predictors) == 1


def test_one_bundle_alone_needs_no_category(bundle_folder: Path) -> None:
    assert [row.category for row in answered(opened([bundle_folder]))] == ["Shirt"] * 3


def test_a_router_alone_answers_every_photo_itself(fleet_root: Path) -> None:
    found = answered(opened([fleet_root / "garment"]))
    assert [(row.category, labels(row)["kind"]) for row in found] == [
        ("Garment", "Shirt"),
        ("Garment", "Hat"),
        ("Garment", "Boot"),
    ]


def test_several_bundles_and_no_router_ask_for_one_of_their_categories(fleet_root: Path) -> None:
    with pytest.raises(UserError, match=r"^0 routers among 2 bundles.*\nadd: --category NAME, one of: Boot, Shirt$"):
        opened([fleet_root / "boot", fleet_root / "shirt"])


def test_two_routers_ask_for_one_of_the_categories(
    folders: list[Path], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    routes = Routes(attribute="kind", to={"Shirt": "Shirt"})
    second = make_bundle(tmp_path, "Goods", {"kind": {"Shirt": "R", "Food": "G"}}, routes=routes)
    asked = r"2 routers among 4 bundles.*\nadd: --category NAME, one of: Boot, Garment, Shirt, Goods$"
    with pytest.raises(UserError, match=asked):
        opened([*folders, second])
    assert {row.category for row in answered(opened([*folders, second], category="Goods"))} == {"Goods"}


def test_a_category_that_no_bundle_serves_is_answered_with_those_that_are_served(folders: list[Path]) -> None:
    asked = r"^no bundle serves category 'Sarees'; have: Boot, Garment, Shirt\nbuild it with: python -m export\.build "
    with pytest.raises(UserError, match=asked):
        opened(folders, category="Sarees")


def test_a_specialist_that_cannot_serve_as_asked_is_named_before_any_photo_is_read(
    fleet_root: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    unrun = Verdict(engine="onnxruntime", state="unrun", reason="not installed where it was built")
    shirt = make_bundle(tmp_path, "Shirt", {"colour": {"blue": "B", "red": "R"}}, verdicts=[unrun])
    with pytest.raises(UserError, match=r"no passed artifact in bundle 'shirt'"):
        opened([fleet_root / "garment", shirt], engine="auto")


def test_an_empty_batch_asks_nothing_of_any_engine(folders: list[Path]) -> None:
    opened(folders).fill([], [])  # not entered: an engine that was asked would refuse
