"""The router sees every photo, each category its own, no engine one twice, and nobody is guessed at."""

# B batch

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
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


def answered(fleet: Fleet, colours: Iterable[str] = COLOURS, categories: Sequence[str] = ()) -> list[Row]:
    """A row for each colour, answered in one batch; with `categories`, each row brings its own."""
    photos = [np.full((30, 20, 3), COLOURS[colour], np.uint8) for colour in colours]
    filled = [Row(image=Path(f"{colour}.jpg")) for colour in colours]
    for row, category in zip(filled, categories, strict=False):
        row.category = category
    with fleet:
        fleet.fill(filled, {spec: np.stack([images.fit(photo, spec) for photo in photos]) for spec in fleet.specs})
    return filled


def counted(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """For each bundle of the fleet, by its slug, the size of every batch that its engine then runs."""
    runs: dict[str, list[int]] = {}
    for predictor in fleet.predictors:

        def probabilities(
            images_BHWC: np.ndarray,
            slug: str = predictor.bundle.slug,
            run: Callable[[np.ndarray], dict[str, np.ndarray]] = predictor.probabilities,
        ) -> dict[str, np.ndarray]:
            runs.setdefault(slug, []).append(len(images_BHWC))
            return run(images_BHWC)

        monkeypatch.setattr(predictor, "probabilities", probabilities)
    return runs


def listed(folders: Iterable[Path], categories: Iterable[str]) -> Fleet:
    return Fleet.listed(folders, categories, engine="onnxruntime", precision=None)


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
    with pytest.raises(UserError, match=r"^no bundle serves category 'shrit'; .*\ndid you mean: --category Shirt$"):
        opened(folders, category="shrit")
    with pytest.raises(UserError, match=r"^no bundle serves category ''; have: Shirt\n"):
        opened(folders[-1:], category="")


def test_a_specialist_that_cannot_serve_as_asked_is_named_before_any_photo_is_read(
    fleet_root: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    unrun = Verdict(engine="onnxruntime", state="unrun", reason="not installed where it was built")
    shirt = make_bundle(tmp_path, "Shirt", {"colour": {"blue": "B", "red": "R"}}, verdicts=[unrun])
    with pytest.raises(UserError, match=r"no passed artifact in bundle 'shirt'"):
        opened([fleet_root / "garment", shirt], engine="auto")


def test_an_empty_batch_asks_nothing_of_any_engine(folders: list[Path]) -> None:
    opened(folders).fill([], {})  # not entered: an engine that was asked would refuse


def test_a_router_in_a_joint_bundle_and_the_categories_beside_it_take_one_pass_together(
    joint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = opened([joint_folder])
    runs = counted(fleet, monkeypatch)
    red, green, blue = answered(fleet)
    assert runs == {"everything": [3]}
    assert (red.category, red.routed_from, labels(red)) == ("T-Shirt", "Router", {"neck": "round", "colour": "red"})
    assert (blue.category, blue.routed_from, labels(blue)) == ("Boot", "Router", {"colour": "navy", "sole": "high"})
    # e^6 in e^6 + 2: 190 of 255 between the channels, at sharpness 8.
    assert red.category_confidence == pytest.approx(0.9949, abs=1e-3)
    assert fleet.attributes == ["colour", "sole", "neck"]
    assert (green.status, red.status, blue.status) == ("skipped", "ok", "ok")


def test_a_photo_of_a_category_that_no_bundle_serves_is_skipped_with_the_router_s_word_on_it(
    joint_folder: Path,
) -> None:
    green = answered(opened([joint_folder]))[1]
    assert (green.status, green.error) == ("skipped", "no bundle serves category 'Hat'")
    assert (green.category, green.routed_from, green.answers) == ("Hat", "Router", {})
    assert green.category_confidence == pytest.approx(0.9949, abs=1e-3)


def test_each_row_of_a_mixed_batch_of_a_joint_bundle_has_the_answers_of_its_own_photo(joint_folder: Path) -> None:
    order = ["blue", "red", "red", "green", "blue", "red", "green"]
    for row, colour in zip(answered(opened([joint_folder]), order), order, strict=True):
        (alone,) = answered(opened([joint_folder]), [colour])
        assert (row.category, row.status, labels(row)) == (alone.category, alone.status, labels(alone))


def test_a_category_given_of_a_joint_bundle_answers_alone_and_the_router_is_no_choice(joint_folder: Path) -> None:
    fleet = opened([joint_folder], category="boot")
    assert fleet.attributes == ["colour", "sole"]
    assert [(row.category, row.routed_from, labels(row)["colour"]) for row in answered(fleet)] == [
        ("Boot", "", "oxblood"),
        ("Boot", "", "navy"),  # neither red nor blue: the first class
        ("Boot", "", "navy"),
    ]
    with pytest.raises(UserError, match=r"^no bundle serves category 'Router'; have: Boot, T-Shirt\n"):
        opened([joint_folder], category="Router")


def test_a_joint_bundle_without_a_router_asks_for_one_of_its_categories(
    make_joint: Callable[..., Path], tmp_path: Path
) -> None:
    colours = {"colour": {"blue": "B", "red": "R"}}
    folder = make_joint(tmp_path / "both", {"Shoe": colours, "Sock": colours})
    with pytest.raises(
        UserError, match=r"^0 routers among 1 bundles, of 2 .*\nadd: --category NAME, one of: Shoe, Sock$"
    ):
        opened([folder])
    assert {row.category for row in answered(opened([folder], category="Sock"))} == {"Sock"}


def test_a_router_that_only_tells_categories_apart_leads_to_bundles_of_their_own(
    fleet_root: Path, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"Boot": "B", "Hat": "G", "Shirt": "R"}
    routes = Routes(attribute="Category", to={kind: kind for kind in kinds})
    router = make_bundle(tmp_path, "Router", {"Category": kinds}, routes=routes)
    fleet = opened([fleet_root / "boot", router, fleet_root / "shirt"])
    runs = counted(fleet, monkeypatch)
    red, green, blue = answered(fleet)
    assert runs == {"router": [3], "boot": [1], "shirt": [1]}
    assert (red.category, red.routed_from, labels(red)) == ("Shirt", "Router", {"colour": "red"})
    assert (blue.category, blue.routed_from, labels(blue)) == ("Boot", "Router", {"sole": "high"})
    assert green.status == "skipped"
    assert fleet.attributes == ["sole", "colour"]


def test_a_router_leads_to_several_categories_of_another_bundle_in_one_pass_of_it(
    make_joint: Callable[..., Path],
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = {"Shoe": "B", "Sock": "R"}
    routes = Routes(attribute="Category", to={kind: kind for kind in kinds})
    router = make_bundle(tmp_path, "Router", {"Category": kinds}, routes=routes)
    served = {"Shoe": {"colour": {"navy": "B", "red": "R"}}, "Sock": {"colour": {"blue": "B", "crimson": "R"}}}
    fleet = opened([make_joint(tmp_path / "both", served), router])
    runs = counted(fleet, monkeypatch)
    found = answered(fleet, ["red", "blue", "blue", "red"])
    assert runs == {"router": [4], "both": [4]}
    assert [row.category for row in found] == ["Sock", "Shoe", "Shoe", "Sock"]
    assert [row.answers["colour"].label for row in found] == ["crimson", "navy", "navy", "crimson"]


def test_a_router_alone_that_only_tells_categories_apart_still_tells_them(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    routes = Routes(attribute="Category", to={"Boot": "Boot", "Shirt": "Shirt"})
    fleet = opened([make_bundle(tmp_path, "Router", {"Category": {"Boot": "B", "Shirt": "R"}}, routes=routes)])
    assert fleet.attributes == []
    assert [(row.category, row.status) for row in answered(fleet, ["red", "blue"])] == [
        ("Shirt", "skipped"),
        ("Boot", "skipped"),
    ]


def test_a_router_that_only_tells_categories_apart_comes_before_a_category_that_routes(
    folders: list[Path], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    routes = Routes(attribute="Category", to={"Garment": "Garment", "Boot": "Boot"})
    router = make_bundle(tmp_path, "Router", {"Category": {"Garment": "R", "Boot": "B"}}, routes=routes)
    fleet = opened([*folders, router])
    red, blue = answered(fleet, ["red", "blue"])
    # Garment's own kinds would send red on to Shirt; but somebody has said already what it is.
    assert (red.category, labels(red)) == ("Garment", {"kind": "Shirt", "warmth": "warm"})
    assert (blue.category, labels(blue)) == ("Boot", {"sole": "high"})
    assert len(fleet.predictors) == 3


def test_two_routers_that_only_tell_categories_apart_ask_for_one_of_the_categories(
    joint_folder: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    routes = Routes(attribute="Category", to={"Boot": "Boot"})
    second = make_bundle(tmp_path, "Router", {"Category": {"Boot": "R", "Food": "B"}}, routes=routes)
    with pytest.raises(UserError, match=r"^2 routers among 2 bundles.*\nadd: --category NAME, one of: Boot, T-Shirt$"):
        opened([joint_folder, second])


def test_a_category_of_a_joint_bundle_that_routes_keeps_its_answers_in_one_pass(
    make_joint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"Boot": "B", "Hat": "G", "Shirt": "R"}
    categories = {
        "Boot": {"sole": {"flat": "R", "high": "B"}, "colour": {"navy": "B", "oxblood": "R"}},
        "Garment": {"kind": kinds, "colour": {"dark": "B", "light": "R"}},
        "Shirt": {"neck": {"round": "R", "v": "B"}},
    }
    routes = Routes(attribute="kind", to={kind: kind for kind in kinds})
    fleet = opened([make_joint(tmp_path / "all", categories, routes=routes)])
    runs = counted(fleet, monkeypatch)
    red, green, blue = answered(fleet)
    assert runs == {"all": [3]}
    assert (red.category, red.routed_from) == ("Shirt", "Garment")
    assert labels(red) == {"kind": "Shirt", "colour": "light", "neck": "round"}
    assert (green.category, green.status, labels(green)["kind"]) == ("Garment", "ok", "Hat")
    # Both have a colour: the Boot's is the last word.
    assert labels(blue) == {"kind": "Boot", "sole": "high", "colour": "navy"}
    assert fleet.attributes == ["kind", "colour", "sole", "neck"]


def test_what_the_router_s_own_bundle_serves_is_asked_of_no_other(
    joint_folder: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_bundle(tmp_path, "Boot", {"heel": {"low": "R", "tall": "B"}})
    fleet = opened([other, joint_folder])
    assert len(fleet.predictors) == 1
    assert labels(answered(fleet, ["blue"])[0]) == {"colour": "navy", "sole": "high"}


def test_rows_that_bring_their_category_are_answered_by_it_and_no_router_is_asked(
    folders: list[Path], joint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    categories = ["t-shirt", "Shirt", "Boot", "Hat", "T-Shirt"]
    fleet = listed([joint_folder, *folders], categories)
    runs = counted(fleet, monkeypatch)
    found = answered(fleet, ["red", "green", "blue", "red", "blue"], categories)
    # Both bundles serve Boot: the first one given is asked. Nobody asks Garment.
    assert runs == {"everything": [3], "shirt": [1]}
    assert [row.category for row in found] == categories
    assert [labels(row) for row in found] == [
        {"neck": "round", "colour": "red"},
        {"colour": "green"},
        {"colour": "navy", "sole": "high"},
        {},
        {"neck": "v", "colour": "blue"},
    ]
    assert [row.error for row in found if row.status == "skipped"] == ["no bundle serves category 'Hat'"]
    assert {(row.routed_from, row.category_confidence) for row in found} == {("", None)}


def test_a_router_that_is_to_check_says_what_a_photo_shows_and_changes_no_category(folders: list[Path]) -> None:
    given = ["Boot", "Boot", "Shirt"]
    fleet = Fleet.listed(folders, given, engine="onnxruntime", precision=None, checks=True)
    found = answered(fleet, ["red", "blue", "red"], given)
    assert [row.shows and row.shows.label for row in found] == ["Shirt", "Boot", "Shirt"]
    assert [(row.category, list(row.answers)) for row in found] == [
        ("Boot", ["sole"]),
        ("Boot", ["sole"]),
        ("Shirt", ["colour"]),
    ]
    check = fleet.check
    assert check is not None and (check.category, check.attribute.name) == ("Garment", "kind")
    assert (check.classes("Boot"), check.classes("Garment")) == (["Boot"], [])
    unchecked = listed(folders, given)
    assert unchecked.check is None and all(row.shows is None for row in answered(unchecked, ["red"], ["Boot"]))


def test_a_listing_whose_every_category_is_unknown_is_answered_with_those_that_are_served(folders: list[Path]) -> None:
    asked = r"^no bundle serves any of the 2 categories listed, 'Saree' the first; have: Boot, Garment, Shirt\nbuild it"
    with pytest.raises(UserError, match=asked):
        listed(folders, ["Saree", "Router", "Saree"])


def test_a_fleet_of_which_one_engine_cannot_be_opened_gives_back_the_others(fleet_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(fleet_root, tmp_path / "fleet"))
    fleet = opened(bundle.find(root).values())
    (graph,) = (root / fleet.predictors[-1].bundle.slug).glob("model.*")
    graph.unlink()
    with pytest.raises(UserError, match=r"^onnxruntime cannot open model"), fleet:
        pytest.fail("the fleet was opened")
    for predictor in fleet.predictors:
        with pytest.raises(UserError, match="is not open"):
            predictor.probabilities(np.zeros((1, 16, 16, 3), np.uint8))
