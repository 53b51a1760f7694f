"""The command, from a listing and its photos to verdicts, a page, and a listing that is fixed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from runtime import audit, bundle, findings, output, review
from runtime.errors import UserError
from runtime.files import sha256_of
from runtime.fleet import Row
from tests.audit_parts import photos, run, table, with_validation, write
from tests.conftest import RGB

TRUTH = {"red": {"colour": "red", "warmth": "warm"}, "blue": {"colour": "blue", "warmth": "cold"}}
COLOURS = ["red", "blue"] * 40


@pytest.fixture(scope="module")
def shirts(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundles folder. Not to be changed."""
    root = tmp_path_factory.mktemp("audited")
    with_validation(bundle_folder, root, TRUTH)
    return root


@pytest.fixture(scope="module")
def shown(make_photo: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 photos, red and blue in turn. Not to be changed."""
    folder = tmp_path_factory.mktemp("shown")
    photos(folder, COLOURS, make_photo)
    return folder


def listed(**changed: dict[int, str]) -> list[dict[str, str]]:
    """A row for each photo, rightly declared but for what is changed, by column and place."""
    rows = []
    for index, colour in enumerate(COLOURS):
        declared = TRUTH[colour]
        row = {"image": f"{index:03d}.png", "colour": declared["colour"], "warmth": declared["warmth"], "price": "9"}
        rows.append(row | {name: places[index] for name, places in changed.items() if index in places})
    return rows


WRONG = {"colour": dict.fromkeys(range(0, 20, 2), "blue") | {1: "", 3: "Blu-ish", 5: " Blues", 7: "n/a"}}


def test_each_cell_gets_its_verdict_and_what_needs_a_look_is_written(
    shirts: Path, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    before = listing.read_bytes()
    out = tmp_path / "new" / "audit.csv"
    assert run(listing, shown, "--bundles", shirts, "--out", out, "--precision", "0.9") == 0
    found = table(out)
    assert Counter(row["verdict"] for row in found) == {"contradicts": 10, "fills": 2, "unknown value": 1}
    assert {int(row["line"]) for row in found if row["verdict"] == "contradicts"} == set(range(2, 22, 2))
    wrong = next(row for row in found if row["line"] == "2")
    assert (wrong["attribute"], wrong["declared"], wrong["predicted"], wrong["column"]) == (
        "colour",
        "blue",
        "red",
        "colour",
    )
    assert float(wrong["confidence"]) > 0.99 > 0.01 > float(wrong["declared_confidence"])
    strange = next(row for row in found if row["verdict"] == "unknown value")
    assert (strange["declared"], strange["predicted"]) == ("Blu-ish", "blue")
    assert strange["note"] == "no class of colour; nearest: blue"
    worths = [float(row["worth"]) for row in found]
    assert worths == sorted(worths, reverse=True)
    colour, warmth = table(tmp_path / "new" / "audit.summary.csv")
    assert (colour["declared"], colour["agrees"], colour["contradicts"], colour["fills"]) == ("78", "67", "10", "2")
    assert (warmth["declared"], warmth["agrees"], warmth["minutes"]) == ("80", "80", "0.0")
    assert float(colour["minutes"]) == pytest.approx(13 * 4 / 60, abs=0.05)
    assert listing.read_bytes() == before
    told = capsys.readouterr()
    assert "not judged, being no attribute of the photo's category: price (80 values)" in told.out
    assert "10 (" in told.out and "false at most" in told.out
    assert "13 findings" in told.err


def test_a_bundle_that_keeps_no_validation_photos_promises_nothing_and_says_so(
    bundle_folder: Path, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    assert run(listing, shown, "--bundles", bundle_folder, "--out", tmp_path / "audit.csv") == 0
    verdicts = Counter(row["verdict"] for row in table(tmp_path / "audit.csv"))
    assert verdicts == {"unsure": 12, "unknown value": 1}
    told = capsys.readouterr()
    assert "keeps nothing of its validation photos" in told.err and "python -m export.build" in told.err
    assert "0 labels are too few to call a value wrong" in told.out


def test_a_precision_that_the_validation_photos_do_not_carry_is_not_promised(
    shirts: Path, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    assert run(listing, shown, "--bundles", shirts, "--out", tmp_path / "audit.csv", "--precision", "0.999") == 0
    assert Counter(row["verdict"] for row in table(tmp_path / "audit.csv"))["unsure"] == 12
    told = capsys.readouterr()
    assert "too few to call a value wrong (29956 are needed where a tenth of a listing is wrong)" in told.out
    (folder,) = shirts.iterdir()
    assert f"training photos can count among the labels of {folder}\n" in told.err
    assert "where their checkpoints are: python -m train.crossfit --data DIR" in told.err

    copy = Path(shutil.copytree(folder, tmp_path / "bundle"))
    page = bundle.load(copy)
    assert page.validation
    with_training = msgspec.structs.replace(page.validation, out_of_fold="0" * 64, photos_out_of_fold=400)
    bundle.save(copy, msgspec.structs.replace(page, validation=with_training))
    assert run(listing, shown, "--bundles", copy, "--out", tmp_path / "audit.csv", "--precision", "0.999") == 0
    told = capsys.readouterr()
    assert "too few to call a value wrong" in told.out and "training photos" not in told.err


def test_what_the_promise_covers_is_fixed_and_told(shirts: Path, shown: Path, tmp_path: Path) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    fixed = tmp_path / "fixed.csv"
    options = ("--bundles", shirts, "--out", tmp_path / "audit.csv", "--precision", "0.9", "--quiet")
    assert run(listing, shown, *options, "--fix", fixed) == 0
    was, now = table(listing), table(fixed)
    changed = {index for index, (one, other) in enumerate(zip(was, now, strict=True)) if one != other}
    assert changed == set(range(0, 20, 2)) | {1, 7}
    assert all(row["colour"] == COLOURS[index] for index, row in enumerate(now) if index not in (3, 5))
    assert [row["before"] for row in table(tmp_path / "fixed.changes.csv")].count("blue") == 10


def test_decisions_need_no_photos(shirts: Path, tmp_path: Path) -> None:
    listing = write(tmp_path / "listing.csv", listed())
    decided = {"line": 2, "column": "colour", "declared": "red", "predicted": "blue", "decision": "accept"}
    content = {"version": 1, "listing": sha256_of(listing), "decisions": [decided]}
    (tmp_path / "d.json").write_text(json.dumps(content))
    assert run(listing, "--decisions", tmp_path / "d.json", "--fix", tmp_path / "fixed.csv", "--quiet") == 0
    assert table(tmp_path / "fixed.csv")[0]["colour"] == "blue"
    assert table(tmp_path / "fixed.csv")[1:] == table(listing)[1:]
    assert not (tmp_path / "audit.csv").exists()


def test_the_challenges_layout_is_read_by_the_bundles_attributes(
    shirts: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    rows = []
    for index, colour in enumerate(COLOURS):
        make_photo(tmp_path / "photos" / f"{index:06d}.jpg", colour)
        rows.append({"id": str(index), "Category": "Shirt", "len": "2", "attr_1": colour, "attr_2": "warm"})
    rows.append({"id": "0", "Category": "Shirt", "len": "2", "attr_1": "red", "attr_2": "warm"})
    rows.append({"id": "900", "Category": "Shirt", "len": "2", "attr_1": "red", "attr_2": "warm"})
    rows.append({"id": "901", "Category": "Hat", "len": "2", "attr_1": "red", "attr_2": "warm"})
    make_photo(tmp_path / "photos" / "000901.jpg", "red")
    listing = write(tmp_path / "train.csv", rows)
    out = tmp_path / "audit.csv"
    assert run(listing, tmp_path / "photos", "--bundles", shirts, "--out", out, "--quiet") == 1
    found = table(out)
    assert Counter((row["verdict"], row["column"]) for row in found) == {
        ("contradicts", "attr_2"): 40,
        ("error", ""): 3,
    }
    assert [row["note"] for row in found if row["verdict"] == "error"] == [
        "line 2 has this id already",
        "no file of this name in the folders given",
        "no bundle serves category 'Hat'",
    ]


def test_a_router_says_what_is_asked_of_a_photo_without_a_category(
    fleet_root: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    make_photo(tmp_path / "red.png", "red")
    make_photo(tmp_path / "blue.png", "blue")
    rows = [
        {"image": "red.png", "kind": "Boot", "colour": "red", "sole": ""},
        {"image": "blue.png", "kind": "Boot", "colour": "", "sole": "flat"},
    ]
    listing = write(tmp_path / "listing.csv", rows)
    out = tmp_path / "audit.csv"
    assert run(listing, tmp_path, "--bundles", fleet_root, "--out", out, "--quiet") == 0
    found = {(row["image"].rpartition("/")[2], row["category"], row["attribute"]) for row in table(out)}
    # What a Boot has not is not asked of it, though the listing has the column.
    assert found == {("red.png", "Garment", "kind"), ("blue.png", "Boot", "sole")}


def test_a_run_that_was_stopped_goes_on_to_the_same_verdicts(
    shirts: Path, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    options = (listing, shown, "--bundles", shirts, "--quiet")
    assert run(*options, "--out", tmp_path / "whole.csv") == 0
    write_row = output.Unfinished.write

    def stopped(unfinished: output.Unfinished, row: Row) -> None:
        if unfinished.rows == 30:
            raise KeyboardInterrupt
        write_row(unfinished, row)

    with monkeypatch.context() as patch:
        patch.setattr(output.Unfinished, "write", stopped)
        assert run(*options, "--out", tmp_path / "audit.csv") == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "audit.csv").exists()
    answered = []
    with monkeypatch.context() as patch:
        patch.setattr(output.Unfinished, "write", lambda self, row: (answered.append(row), write_row(self, row)))
        assert run(*options, "--out", tmp_path / "audit.csv", "--resume") == 0
    assert 50 <= len(answered) < 60  # whole batches are kept
    for what in ("", ".summary", ".answers"):
        assert (tmp_path / f"audit{what}.csv").read_bytes() == (tmp_path / f"whole{what}.csv").read_bytes()


def test_what_a_cell_holds_is_no_formula_for_a_spreadsheet_and_no_code_for_the_page(
    shirts: Path, shown: Path, tmp_path: Path
) -> None:
    evil = {3: "=HYPERLINK(1)", 5: "+1", 7: "-1", 9: "@a", 11: "</script><script>alert(1)</script>", 13: "\t=1"}
    listing = write(tmp_path / "listing.csv", listed(colour=evil))
    out, page = tmp_path / "audit.csv", tmp_path / "audit.html"
    assert run(listing, shown, "--bundles", shirts, "--out", out, "--report", page, "--quiet") == 0
    cells = [cell for row in table(out) for cell in row.values()]
    assert "'=HYPERLINK(1)" in cells and "'+1" in cells and "'-1" in cells and "'@a" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    data = page.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]
    assert "</script><script>alert(1)</script>" in {row[6] for row in json.loads(data)["rows"]}


def test_an_image_column_leads_to_no_file_outside_the_folders(
    shirts: Path, shown: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    make_photo(tmp_path / "secret.png", "red")
    rows = [{"image": "../secret.png", "colour": "red"}, {"image": str(tmp_path / "secret.png"), "colour": "red"}]
    listing = write(tmp_path / "listing.csv", rows)
    out = tmp_path / "audit.csv"
    assert run(listing, shown, "--bundles", shirts, "--out", out, "--quiet") == 1
    assert [row["note"] for row in table(out)] == ["no file of this name in the folders given"] * 2


def test_a_listing_that_changes_while_its_photos_are_answered_is_not_fixed(
    shirts: Path, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    write_rows = findings.write

    def changed(path: Path, *rest: Any) -> None:
        write_rows(path, *rest)
        if path == tmp_path / "audit.csv":
            listing.write_text(listing.read_text().replace("000.png", "900.png"))

    monkeypatch.setattr(findings, "write", changed)
    options = ("--out", tmp_path / "audit.csv", "--fix", tmp_path / "fixed.csv")
    assert run(listing, shown, "--bundles", shirts, *options) == 2
    told = capsys.readouterr().err
    assert "was changed since it was read" in told and told.endswith("audit it again\n")
    assert not (tmp_path / "fixed.csv").exists() and (tmp_path / "audit.csv").exists()


def test_an_error_at_the_end_says_how_to_keep_the_answers(
    shirts: Path, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    options = (listing, shown, "--bundles", shirts, "--out", tmp_path / "audit.csv")

    def full(*args: object, **options: object) -> None:
        raise UserError("cannot write audit.html: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(review, "write", full)
        assert run(*options, "--report", tmp_path / "audit.html") == 2
    told = capsys.readouterr().err
    assert told.endswith("No space left on device\nno photo is answered again with this --out and: --resume\n")
    assert run(*options, "--report", tmp_path / "other.html", "--resume") == 0
    assert "(0.0 images/s)" in capsys.readouterr().err


def test_a_run_that_was_stopped_at_the_page_has_its_answers(
    shirts: Path, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = write(tmp_path / "listing.csv", listed(**WRONG))
    options = (
        listing,
        shown,
        "--bundles",
        shirts,
        "--out",
        tmp_path / "audit.csv",
        "--report",
        tmp_path / "audit.html",
    )

    def stopped(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(review, "write", stopped)
        assert run(*options) == 130
    assert capsys.readouterr().err.endswith("kept\nadd to the same command: --resume\n")
    assert run(*options, "--resume") == 0
    assert "80 photos in" in (told := capsys.readouterr().err) and "(0.0 images/s)" in told
    assert (tmp_path / "audit.html").exists() and (tmp_path / "audit.answers.csv").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["photos", "--decisions", "d.json", "--fix", "fixed.csv"],
            "--decisions are of an audit that was made\nleave out: PHOTOS, --report",
        ),
        (["--decisions", "d.json"], "--decisions are written into a new listing\nname it with: --fix FILE"),
        (["photos", "--out", "audit.txt"], "is a CSV table\nname it so: --out audit.csv"),
        (["photos", "--report", "audit.csv"], "is a page\nname it so: --report audit.html"),
        (["photos", "--out", "listing.csv"], "listing.csv is read, and would be written over"),
        (["photos", "--fix", "photo.jpg"], "is a table as listing.csv is\nname it so: --fix fixed.csv"),
        (["photos", "--out", "listing.csv/audit.csv"], "cannot write listing.csv/audit.csv: Not a directory"),
        (["photos", "--fix", "listing.csv/fixed.csv"], "\nchoose another file with: --fix FILE"),
        (["photos", "--fix", "listing.csv"], "listing.csv is read, and would be written over"),
        (["photos", "--fix", "audit.csv"], "audit.csv is written already, and would be written over"),
        (["photos", "--fix", "audit.answers.csv"], "is written already"),
        ([], "the photos of listing.csv are needed"),
        (["nowhere"], "no such file or folder: nowhere\nname the folder that holds the photos of listing.csv"),
        (["photos", "--columns", "colour=Farbe"], "has no column 'Farbe' for colour"),
        (["photos", "--aliases", "none.csv"], "cannot read none.csv"),
    ],
)
def test_what_does_not_go_together_is_told_before_any_work(
    options: list[str], told: str, shirts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "listing.csv", listed())
    (tmp_path / "photos").mkdir()
    assert run("listing.csv", *options, "--bundles", shirts, "--quiet") == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["listing.csv", "photos"]


@pytest.mark.parametrize("precision", ["0.49", "1", "nan", "high"])
def test_a_precision_that_is_none_is_refused(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("listing.csv", "photos", "--precision", precision)
    assert f"must be a share, 0.5 to 0.999, got {precision!r}" in capsys.readouterr().err


def test_a_listing_that_gives_categories_takes_no_other(shirts: Path, shown: Path, tmp_path: Path) -> None:
    rows = [{"id": "000.png", "Category": "Shirt", "attr_1": "red"}]
    args = audit.parser().parse_args([str(write(tmp_path / "l.csv", rows)), str(shown), "--category", "Shirt"])
    args.bundles = shirts
    with pytest.raises(UserError, match="the listing gives every photo its category already"):
        audit.audit(args)


KINDS = {"red": {"kind": "Shirt", "warmth": "warm"}, "blue": {"kind": "Boot", "warmth": "cold"}}


def test_a_category_that_the_photo_is_not_of_is_told_and_mended(
    fleet_root: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    with_validation(fleet_root / "garment", bundles, KINDS)
    for slug in ("shirt", "boot"):
        (bundles / slug).symlink_to(fleet_root / slug)
    rows = [
        {"id": name, "Category": "Boot" if index < 10 or index % 2 else "Shirt", "attr_1": ""}
        for index, name in enumerate(photos(tmp_path / "photos", COLOURS, make_photo))
    ]
    listing = write(tmp_path / "train.csv", rows)
    options = ("--bundles", bundles, "--out", tmp_path / "audit.csv", "--fix", tmp_path / "fixed.csv", "--quiet")
    assert run(listing, tmp_path / "photos", *options, "--precision", "0.9") == 0
    found = [row for row in table(tmp_path / "audit.csv") if row["column"] == "Category"]
    assert {int(row["line"]) for row in found} == {2, 4, 6, 8, 10}
    assert {(row["verdict"], row["attribute"], row["declared"], row["predicted"]) for row in found} == {
        ("contradicts", "kind", "Boot", "Shirt")
    }
    assert [row["Category"] for row in table(tmp_path / "fixed.csv")] == ["Shirt", "Boot"] * 40


def test_a_joint_bundle_whose_router_is_its_category_column_is_asked_for_both(
    joint_folder: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [
        {"id": name, "Category": ("T-Shirt", "Boot")[index % 2], "attr_1": "", "attr_2": ""}
        for index, name in enumerate(photos(tmp_path / "photos", ["red", "blue"] * 4, make_photo))
    ]
    listing = write(tmp_path / "train.csv", rows)
    assert run(listing, tmp_path / "photos", "--bundles", joint_folder, "--out", tmp_path / "audit.csv", "--quiet") == 0
    found = {(row["category"], row["attribute"], row["column"]) for row in table(tmp_path / "audit.csv")}
    assert found == {
        ("T-Shirt", "neck", "attr_1"),
        ("T-Shirt", "colour", "attr_2"),
        ("Boot", "colour", "attr_1"),
        ("Boot", "sole", "attr_2"),
    }
    summed = {(row["category"], row["attribute"]): row["agrees"] for row in table(tmp_path / "audit.summary.csv")}
    assert summed["Router", "Category"] == "8"


@pytest.mark.parametrize(("seen", "drifts"), [(["red", "blue"], False), (["green"], True)])
def test_photos_unlike_those_of_validation_are_told_of(
    seen: list[str], drifts: bool, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = with_validation(bundle_folder, tmp_path, TRUTH)
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    rows = []
    for index in range(40):
        colour = np.array(RGB[seen[index % len(seen)]])
        image_HWC = np.clip(colour + rng.integers(-25, 26, (16, 16, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{index}.png"), image_HWC[:, :, ::-1])
        rows.append({"image": f"{index}.png", "colour": ""})
    listing = write(tmp_path / "listing.csv", rows)
    assert run(listing, tmp_path / "photos", "--bundles", bundles, "--out", tmp_path / "audit.csv") == 0
    assert ("Shirt: the photos look otherwise than those of validation" in capsys.readouterr().out) == drifts
    assert run(listing, tmp_path / "photos", "--bundles", bundles, "--out", tmp_path / "audit.csv", "--quiet") == 0
    # Whoever asks for quiet is told of that alone.
    assert [line[:6] for line in capsys.readouterr().err.splitlines()] == ["Shirt:"] * drifts
    (summed,) = table(tmp_path / "audit.summary.csv")
    assert (float(summed["drift_p"]) <= 0.05) == drifts
