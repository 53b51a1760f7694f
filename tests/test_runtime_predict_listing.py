"""The command with a listing: a row a line of it, or the challenge's submission."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import challenge
from runtime.fleet import Row
from tests.predict_parts import run, stopped_after, table


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the table goes, in a folder of its own, so that anything left beside it is seen."""
    return tmp_path / "tables" / "out.csv"


@pytest.fixture
def make_listing(make_photo: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a listing of lines such as `12,Shirt,red`, and the photos of those that say a colour, in named/deep/."""

    def make(*lines: str, header: str = "id,Category") -> Path:
        (tmp_path / "named" / "deep").mkdir(parents=True, exist_ok=True)
        for id, _, colour in (line.split(",") for line in lines):
            if colour:
                make_photo(tmp_path / "named" / "deep" / f"{int(id):06d}.jpg", colour)
        path = tmp_path / "test.csv"
        path.write_text("\n".join([header, *(line.rpartition(",")[0] for line in lines)]) + "\n")
        return path

    return make


LISTED = ("12,Shirt,red", "7,Boot,blue", "0003,Shirt,green", "70000,Boot,red")


def test_a_listing_gives_a_row_a_line_in_its_order_with_the_category_it_says(
    make_listing: Callable[..., Path], fleet_root: Path, tmp_path: Path, out: Path
) -> None:
    named = tmp_path / "named"
    listing = make_listing(*LISTED)
    shutil.copy(named / "deep" / "000012.jpg", named / "000099.jpg")  # nobody asks for it
    assert run(named, "--listing", listing, "--bundles", fleet_root, "--out", out, "--quiet", "--batch", "3") == 0
    rows = table(out)
    assert list(rows[0])[6:] == ["colour", "colour_confidence", "sole", "sole_confidence"]
    assert [(Path(row["image"]).name, row["category"], row["colour"], row["sole"]) for row in rows] == [
        ("000012.jpg", "Shirt", "red", ""),
        ("000007.jpg", "Boot", "", "high"),
        ("000003.jpg", "Shirt", "green", ""),
        ("070000.jpg", "Boot", "", "flat"),
    ]
    assert {(row["status"], row["routed_from"], row["category_confidence"]) for row in rows} == {("ok", "", "")}


def test_of_a_listing_only_the_bundles_of_its_categories_are_opened(
    make_listing: Callable[..., Path], fleet_root: Path, tmp_path: Path, out: Path
) -> None:
    spoilt = Path(shutil.copytree(fleet_root, tmp_path / "spoilt"))
    for folder in ("boot", "garment"):
        (graph,) = spoilt.glob(f"{folder}/model.*")
        graph.write_bytes(b"no graph")
    listing = make_listing("1,Shirt,red")
    assert run(tmp_path / "named", "--listing", listing, "--bundles", spoilt, "--out", out, "--quiet") == 0
    assert [row["colour"] for row in table(out)] == ["red"]


def test_of_a_listing_a_photo_that_is_not_there_costs_its_row_and_a_category_of_no_bundle_is_skipped(
    make_listing: Callable[..., Path],
    fleet_root: Path,
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = tmp_path / "named"
    listing = make_listing("5,Shirt,", "4,Hat,red", "3,Shirt,blue")
    (named / "000003.jpg").symlink_to("nowhere")
    (named / "deep" / "000003.jpg").unlink()
    assert run(named, "--listing", listing, "--bundles", fleet_root, "--out", out) == 1
    assert [(row["image"], row["category"], row["status"], row["error"]) for row in table(out)] == [
        ("000005.jpg", "Shirt", "error", "no file of this name in the folders given"),
        (str(named / "deep" / "000004.jpg"), "Hat", "skipped", "no bundle serves category 'Hat'"),
        (str(named / "000003.jpg"), "Shirt", "error", "cannot be opened: No such file or directory"),
    ]
    assert "2 unreadable, 1 skipped; table: " in capsys.readouterr().err


SUBMISSION = """\
id,Category,len,attr_1,attr_2,attr_3,attr_4,attr_5,attr_6,attr_7,attr_8,attr_9,attr_10
12,T-Shirt,2,round,red,D,D,D,D,D,D,D,D
7,Boot,2,navy,high,D,D,D,D,D,D,D,D
0003,T-Shirt,2,round,green,D,D,D,D,D,D,D,D
70000,Boot,2,oxblood,flat,D,D,D,D,D,D,D,D
""".replace("D", "dummy_value")


def test_a_listing_of_a_joint_bundle_becomes_the_challenge_s_submission(
    make_listing: Callable[..., Path], joint_folder: Path, tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listing = make_listing(*(line.replace("Shirt", "T-Shirt") for line in LISTED))
    args = (tmp_path / "named", "--listing", listing, "--bundles", joint_folder, "--out", out, "--format", "challenge")
    for batch in (1, 3, 16):
        assert run(*args, "--batch", batch, "--quiet") == 0
        assert out.read_bytes().decode() == SUBMISSION
    assert capfd.readouterr() == ("", "")
    assert run(*args) == 0
    assert f"0 unreadable; challenge: {out}\n" in capfd.readouterr().err


def test_a_submission_has_every_id_and_says_on_stderr_which_have_no_answer(
    make_listing: Callable[..., Path], fleet_root: Path, tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listing = make_listing("9,Shirt,", "4,Hat,red", "3,Shirt,blue", "5,Boot,red")
    (tmp_path / "named" / "deep" / "000005.jpg").write_bytes(b"")
    args = ("--listing", listing, "--bundles", fleet_root, "--out", out, "--format", "challenge", "--quiet")
    assert run(tmp_path / "named", *args) == 1
    _, *lines = out.read_text().splitlines()
    dummies = ",".join(["dummy_value"] * 9)
    assert lines == [
        f"9,Shirt,1,dummy_value,{dummies}",
        f"4,Hat,0,dummy_value,{dummies}",
        f"3,Shirt,1,blue,{dummies}",
        f"5,Boot,1,dummy_value,{dummies}",
    ]
    assert capfd.readouterr() == (
        "",
        "3 of 4 ids have no answer, and dummy_value in every column:\n"
        "  '9': no file of this name in the folders given\n"
        "  '4': no bundle serves category 'Hat'\n"
        "  '5': the file is empty\n",
    )


def test_a_submission_gone_on_with_counts_as_one_that_was_never_stopped(
    make_listing: Callable[..., Path], fleet_root: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = make_listing("3,Shirt,blue", "4,Shirt,red", "5,Shirt,red", "6,Shirt,red")
    options = ("--bundles", fleet_root, "--out", out, "--format", "challenge", "--quiet", "--batch", "1")
    doubtful = ("--listing", listing, "--min-confidence", "1", *options)
    assert run(tmp_path / "named", *doubtful) == 0
    whole = out.read_bytes()
    assert whole.count(b"dummy_value") == 4 * 10
    with stopped_after(2, monkeypatch):
        assert run(tmp_path / "named", *doubtful) == 2
    assert run(tmp_path / "named", *doubtful, "--resume") == 0
    assert out.read_bytes() == whole


def test_a_category_that_no_bundle_serves_is_exit_code_1_of_a_submission_and_0_of_a_table(
    make_listing: Callable[..., Path], fleet_root: Path, tmp_path: Path, out: Path
) -> None:
    listing = make_listing("4,Hat,red", "3,Shirt,blue")
    args = (tmp_path / "named", "--listing", listing, "--bundles", fleet_root, "--out", out, "--quiet")
    assert run(*args, "--format", "challenge") == 1
    assert run(*args, "--format", "table") == 0


def test_of_many_ids_without_an_answer_the_first_are_named_and_all_are_counted(
    make_listing: Callable[..., Path], fleet_root: Path, tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listing = make_listing(*(f"{index},Shirt," for index in range(500)))
    args = ("--listing", listing, "--bundles", fleet_root, "--out", out, "--format", "challenge", "--quiet")
    assert run(tmp_path / "named", *args) == 1
    first, *named, last = capfd.readouterr().err.splitlines()
    assert first.startswith("500 of 500 ids have no answer")
    assert len(named) == 10
    assert last == "  and 490 more; every reason is in the table of: --format table"
    assert len(out.read_text().splitlines()) == 501


def test_a_photo_that_a_listing_names_is_not_written_over(
    make_photo: Callable[..., Path], fleet_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "named").mkdir()
    photo = make_photo(tmp_path / "red.png", "red").rename(tmp_path / "named" / "q.csv")
    before = photo.read_bytes()
    (tmp_path / "test.csv").write_text("id,Category\nq.csv,Shirt\n")
    options = ("--listing", tmp_path / "test.csv", "--bundles", fleet_root)
    assert run(tmp_path / "named", *options, "--out", photo) == 2
    assert f"--out {photo} is one of the inputs\n" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_a_photo_of_a_submission_is_as_readable_to_a_run_that_goes_on_as_it_was(
    make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    row = Row(image=make_photo(tmp_path / "red.png", "red", height=20, width=20))
    texts = ["1", "Shirt", "1", *[challenge.DUMMY] * challenge.MOST_ATTRIBUTES]
    for most, status in ((399, "error"), (400, "ok")):
        assert challenge.sheet({}, max_pixels=most).status(texts, row) == status
