"""The command: its table, its exit codes, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.engines import ENGINES, ort
from runtime.predict import main
from tests.predict_parts import run, stopped_after, table

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("numpy", "cv2", "onnxruntime", "openvino", "tensorrt_rtx", "tensorrt", "rich")


@pytest.fixture
def photos(make_photo: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder of three photos: blue, green and red."""
    for colour in ("red", "green", "blue"):
        make_photo(tmp_path / "photos" / f"{colour}.jpg", colour)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the table goes, in a folder of its own, so that anything left beside it is seen."""
    return tmp_path / "tables" / "out.csv"


def test_a_folder_of_photos_becomes_a_table_with_a_row_each(
    photos: Path, fleet_root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, "--bundles", fleet_root, "--out", out) == 0
    blue, green, red = table(out)
    assert list(blue) == [
        *("image", "category", "category_confidence", "routed_from", "status", "error"),
        *("kind", "kind_confidence", "warmth", "warmth_confidence"),
        *("sole", "sole_confidence", "colour", "colour_confidence"),
    ]
    assert blue["image"] == str(photos / "blue.jpg")
    assert (blue["category"], blue["routed_from"], blue["sole"], blue["colour"]) == ("Boot", "Garment", "high", "")
    assert (red["category"], red["routed_from"], red["sole"], red["colour"]) == ("Shirt", "Garment", "", "red")
    assert (green["category"], green["routed_from"], green["category_confidence"]) == ("Garment", "", "")
    assert red["category_confidence"] == red["kind_confidence"]
    assert [row["status"] for row in (blue, green, red)] == ["ok"] * 3
    # e^6 in e^6 + 2: 190 of 255 between the channels, at sharpness 8, give or take JPEG's rounding.
    assert 0.990 < float(red["kind_confidence"]) < 0.999
    assert len(red["kind_confidence"]) == len("0.9948")
    shown = capsys.readouterr()
    assert "blue.jpg" in shown.out
    assert "3 of 3 photos in " in shown.err
    assert f"0 unreadable; table: {out}" in shown.err


def test_quiet_says_nothing_at_all(
    photos: Path, fleet_root: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, "--bundles", fleet_root, "--out", out, "--quiet") == 0
    assert capfd.readouterr() == ("", "")
    assert len(table(out)) == 3


def test_a_category_given_is_taken_at_its_word(photos: Path, fleet_root: Path, out: Path) -> None:
    assert run(photos, "--bundles", fleet_root, "--category", "shirt", "--out", out, "--quiet") == 0
    rows = table(out)
    assert [(row["category"], row["routed_from"], row["colour"]) for row in rows] == [
        ("Shirt", "", colour) for colour in ("blue", "green", "red")
    ]
    assert "kind" not in rows[0]


def test_folders_named_after_categories_say_what_their_photos_show(
    make_photo: Callable[..., Path], fleet_root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Shirt/blue.jpg", "boot/green.jpg", "others/blue.jpg", "others/deep/red.jpg"):
        make_photo(tmp_path / "photos" / name, Path(name).stem)
    assert run(tmp_path / "photos", "--bundles", fleet_root, "--out", out) == 0
    assert "photos in folders named after a category are taken for it: Shirt, boot\n" in capsys.readouterr().err
    rows = {str(Path(row["image"]).relative_to(tmp_path / "photos")): row for row in table(out)}
    told = {name: (row["category"], row["routed_from"]) for name, row in rows.items()}
    # The router would have called a blue shirt a boot.
    assert told == {
        "Shirt/blue.jpg": ("Shirt", ""),
        "boot/green.jpg": ("Boot", ""),
        "others/blue.jpg": ("Boot", "Garment"),
        "others/deep/red.jpg": ("Shirt", "Garment"),
    }
    assert rows["Shirt/blue.jpg"]["colour"] == "blue"
    assert rows["boot/green.jpg"]["sole"] and not rows["boot/green.jpg"]["kind"]


def test_a_folder_s_name_counts_also_where_the_command_is_run_in_it(
    make_photo: Callable[..., Path], fleet_root: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photo(tmp_path / "Shirt" / "blue.jpg", "blue")
    monkeypatch.chdir(tmp_path / "Shirt")
    for given in (".", "blue.jpg", "../Shirt"):
        assert run(given, "--bundles", fleet_root, "--out", out, "--quiet") == 0
        assert (table(out)[0]["category"], table(out)[0]["routed_from"]) == ("Shirt", "")


def test_of_two_bundles_of_one_category_it_is_told_which_answers(
    photos: Path, fleet_root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a-shirt", "shirt"):
        shutil.copytree(fleet_root / "shirt", tmp_path / "two" / name)
    assert run(photos, "--bundles", tmp_path / "two", "--category", "Shirt", "--out", out) == 0
    assert "Shirt is served by a-shirt and by shirt: a-shirt answers\n" in capsys.readouterr().err


def test_without_a_router_a_photo_in_no_such_folder_is_skipped(
    make_photo: Callable[..., Path], fleet_root: Path, out: Path, tmp_path: Path
) -> None:
    for slug in ("boot", "shirt"):
        shutil.copytree(fleet_root / slug, tmp_path / "bundles" / slug)
    for name in ("shirt/blue.jpg", "others/red.jpg"):
        make_photo(tmp_path / "photos" / name, Path(name).stem)
    assert run(tmp_path / "photos", "--bundles", tmp_path / "bundles", "--out", out, "--quiet") == 0
    other, shirt = table(out)
    assert (other["status"], other["error"]) == ("skipped", "no category is given")
    assert (shirt["status"], shirt["category"], shirt["colour"]) == ("ok", "Shirt", "blue")


def test_a_report_shows_every_row_of_the_table_also_those_of_the_run_before(
    photos: Path, fleet_root: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    page = tmp_path / "r.html"
    options = (photos, "--bundles", fleet_root, "--out", out, "--quiet", "--batch", "1", "--report", page)
    with stopped_after(2, monkeypatch):
        assert run(*options) == 2
    assert not page.exists()
    assert run(*options, "--resume") == 1
    data = json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])
    assert [(Path(row[0]).name, row[3]) for row in data["rows"]] == [
        ("bad.jpg", "error"),
        *((f"{colour}.jpg", "ok") for colour in ("blue", "green", "red")),
    ]
    assert [bool(row[5]) for row in data["rows"]] == [False, True, True, True]


def test_further_labels_and_doubtful_ones(photos: Path, fleet_root: Path, out: Path) -> None:
    options = ("--bundles", fleet_root, "--category", "shirt", "--out", out, "--quiet")
    assert run(photos, *options, "--top-k", "2", "--min-confidence", "0.9") == 0
    red = table(out)[2]
    assert (red["colour"], red["colour_2"]) == ("red", "")
    assert float(red["colour_confidence"]) > 0.9 > float(red["colour_2_confidence"]) > 0


def test_every_engine_and_batch_size_gives_the_same_table(
    photos: Path, fleet_root: Path, out: Path, cpu_engine: str
) -> None:
    assert run(photos, "--bundles", fleet_root, "--out", out, "--quiet", "--batch", "1") == 0
    expected = out.read_bytes()
    for batch in (2, 3, 16):
        options = ("--batch", batch, "--engine", cpu_engine, "--precision", "fp32")
        assert run(photos, "--bundles", fleet_root, "--out", out, "--quiet", *options) == 0
        assert out.read_bytes() == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"These words are no photo.\n", "not an image: it begins like no format that is read"),
    ],
    ids=["empty file", "text named .jpg"],
)
def test_a_bad_photo_costs_its_row_alone_and_exit_code_1(
    photos: Path, fleet_root: Path, out: Path, content: bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.jpg").write_bytes(content)
    assert run(photos, "--bundles", fleet_root, "--out", out) == 1
    bad, *good = table(out)
    assert (bad["image"], bad["status"], bad["error"]) == (str(photos / "bad.jpg"), "error", reason)
    assert set(list(bad.values())[6:]) == {""}
    assert [row["kind"] for row in good] == ["Boot", "Hat", "Shirt"]
    assert "1 unreadable" in capsys.readouterr().err


def test_bad_photos_alone_still_make_a_table(photos: Path, fleet_root: Path, out: Path) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"")
    assert run(photos, "--bundles", fleet_root, "--out", out, "--quiet") == 1
    assert [row["status"] for row in table(out)] == ["error"] * 3


def test_any_file_name_is_read_shown_and_written(
    make_photo: Callable[..., Path], tmp_path: Path, bundle_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [b"a, b.png", b'c "d".png', b"e\nf.png", b"g\xe9\xff.png", "h 写真.png".encode(), b"[red]i.png"]
    for name in names:
        make_photo(tmp_path / "odd" / os.fsdecode(name), "red")
    assert run(tmp_path / "odd", "--bundles", bundle_folder, "--out", out) == 0
    rows = table(out)
    assert sorted(os.fsencode(Path(row["image"]).name) for row in rows) == sorted(names)
    assert {row["colour"] for row in rows} == {"red"}
    assert "[red]i.png" in capsys.readouterr().out


def test_a_batch_larger_than_the_photos_asks_for_no_more_memory_than_they_take(
    fleet_root: Path, photos: Path, tmp_path: Path
) -> None:
    # No machine has room for so many photos, even of 16 px.
    assert run(photos, "--bundles", fleet_root, "--out", tmp_path / "out.csv", "--batch", 10**19, "--quiet") in (0, 1)


def test_of_many_photos_the_first_are_shown_and_all_are_written(
    photos: Path, bundle_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(47):
        shutil.copy(photos / "red.jpg", photos / f"{index:02d}.jpg")
    assert run(photos, "--bundles", bundle_folder, "--out", out) == 0
    shown = capsys.readouterr()
    assert "39.jpg" in shown.out
    assert "40.jpg" not in shown.out
    assert "50 of 50 photos" in shown.err
    assert "the first 40 shown" in shown.err
    assert len(table(out)) == 50


def test_a_joint_bundle_routes_answers_and_skips_in_one_table(
    photos: Path, joint_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, "--bundles", joint_folder, "--out", out) == 0
    blue, green, red = table(out)
    assert list(blue)[6:] == [*("colour", "colour_confidence", "sole", "sole_confidence"), *("neck", "neck_confidence")]
    assert (blue["category"], blue["routed_from"], blue["colour"], blue["neck"]) == ("Boot", "Router", "navy", "")
    assert (red["category"], red["routed_from"], red["colour"], red["sole"]) == ("T-Shirt", "Router", "red", "")
    assert (green["category"], green["status"]) == ("Hat", "skipped")
    assert green["error"] == "no bundle serves category 'Hat'"
    assert set(list(green.values())[6:]) == {""}
    assert all(0.99 < float(row["category_confidence"]) < 0.999 for row in (blue, green, red))
    assert "0 unreadable, 1 skipped; table: " in capsys.readouterr().err


ABSENT = next((name for name, kind in ENGINES.items() if not kind.installed()), "")
# What is typed, and what the line then says, as a pattern.
MISTAKES = {
    "no photos in the folder": ("{tmp}/empty", r"no photos in {tmp}/empty: looked for .*\.jpg"),
    "a folder that is not there": ("{tmp}/none", r"no such file or folder: {tmp}/none$"),
    "a bundle with a changed byte": (
        "{tmp}/photos --bundles {tmp}/spoilt",
        r"{tmp}/spoilt/boot/model\.fp32\.\w+\.onnx was changed after it was built: sha256 ",
    ),
    "a bundle's page edited": (
        "{tmp}/photos --bundles {tmp}/edited",
        r"{tmp}/edited/boot/bundle\.json was changed after it was built: its digest differs$",
    ),
    "bundles that are not there": ("{tmp}/photos --bundles {tmp}/none", r"no bundles folder at {tmp}/none$"),
    "a folder without bundles": ("{tmp}/photos --bundles {tmp}/empty", r"no bundle in {tmp}/empty$"),
    "an engine that is not installed": (f"{{tmp}}/photos --engine {ABSENT}", rf"engine '{ABSENT}' is not installed$"),
    "a category nobody serves": (
        "{tmp}/photos --category Sarees",
        r"no bundle serves category 'Sarees'; have: Boot, Garment, Shirt$",
    ),
    "a precision never built": ("{tmp}/photos --precision int8", r"no int8 artifact in bundle '\w+'; it has: fp32 on "),
    "a folder for a table": ("{tmp}/photos --out {tmp}/empty.csv", r"cannot write {tmp}/empty\.csv: it is not a file$"),
    "a listing and a category": (
        "{tmp}/photos --listing {tmp}/test.csv --category Shirt",
        r"--listing gives every photo its category already$",
    ),
    "a submission without a listing": ("{tmp}/photos --format challenge", r"--format challenge needs to know the ids"),
    "a table over its own listing": (
        "{tmp}/photos --listing {tmp}/test.csv --out {tmp}/empty/../test.csv",
        r"--out {tmp}/empty/\.\./test\.csv is one of the inputs$",
    ),
    "a table over its own input": (
        "{tmp}/test.csv --out {tmp}/empty/../test.csv",
        r"--out {tmp}/empty/\.\./test\.csv is one of the inputs$",
    ),
    "a table over a photo that a list names": (
        "{tmp}/list.txt --out {tmp}/photo.csv",
        r"--out {tmp}/photo\.csv is one of the inputs$",
    ),
    "a page over a photo that a pattern finds": (
        "{tmp}/p*.html --report {tmp}/page.html",
        r"--report {tmp}/page\.html is one of the inputs$",
    ),
    "a page over the listing": (
        "{tmp}/photos --listing {tmp}/page.html --report {tmp}/page.html",
        r"--report {tmp}/page\.html is one of the inputs$",
    ),
    "a table over a photo": (
        "{tmp}/photos --out {tmp}/photos/red.jpg",
        r"--out {tmp}/photos/red\.jpg is named like no table: \.csv \.jsonl \.ndjson \.parquet$",
    ),
    "a table over a bundle's page": (
        "{tmp}/photos --out {tmp}/edited/boot/bundle.json",
        r"--out {tmp}/edited/boot/bundle\.json is named like no table: ",
    ),
    "a table named by no ending": ("{tmp}/photos --out {tmp}/new", r"--out {tmp}/new is named like no table: "),
    "a report over a photo": (
        "{tmp}/photos --report {tmp}/photos/red.jpg",
        r"--report {tmp}/photos/red\.jpg is a page$",
    ),
    "a listing that is not there": (
        "{tmp}/photos --listing {tmp}/none.csv",
        r"cannot read {tmp}/none\.csv: No such file or directory$",
    ),
    "a folder for a listing": ("{tmp}/photos --listing {tmp}/empty", r"cannot read {tmp}/empty: not a file$"),
    "a listing that is a photo": ("{tmp}/photos --listing {tmp}/photos/red.jpg", r"{tmp}/photos/red\.jpg is not UTF-8"),
    "a listing of another shop": (
        "{tmp}/photos --listing {tmp}/test.csv --bundles {tmp}/fleet/garment",
        r"no bundle serves any of the 1 categories listed, 'Shirt' the first; have: Garment$",
    ),
    "a listing and no photos": ("{tmp}/none --listing {tmp}/test.csv", r"no such file or folder: {tmp}/none$"),
    "a table below a file": (
        "{tmp}/photos --out {tmp}/photos/red.jpg/out.csv",
        r"cannot write {tmp}/photos/red\.jpg/out\.csv: (File exists|Not a directory)$",
    ),
}


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line_exit_code_2_and_no_table(
    mistake: str, fleet_root: Path, tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if mistake == "an engine that is not installed" and not ABSENT:
        pytest.skip("every engine is installed here")
    spoilt, edited = (Path(shutil.copytree(fleet_root, tmp_path / name)) for name in ("spoilt", "edited"))
    (graph,) = spoilt.glob("boot/model.*")
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    page = edited / "boot" / "bundle.json"
    page.write_text(page.read_text().replace("flat", "float"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").mkdir()
    (tmp_path / "fleet").symlink_to(fleet_root)
    (tmp_path / "test.csv").write_text("id,Category\n1,Shirt\n")
    (tmp_path / "page.html").write_text("id,Category\n1,Shirt\n")
    shutil.copy(tmp_path / "photos" / "red.jpg", tmp_path / "photo.csv")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/photo.csv\n")
    out.parent.mkdir()
    out.write_text("an earlier table")
    before = sorted(tmp_path.rglob("*"))

    args, said = (text.replace("{tmp}", str(tmp_path)) for text in MISTAKES[mistake])
    assert run("--bundles", fleet_root, "--out", out, *args.split()) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    line, *more = captured.err.splitlines()
    assert re.match(rf"error: {said}", line), line
    assert len(more) <= 1  # what to type next
    assert sorted(tmp_path.rglob("*")) == before
    assert out.read_text() == "an earlier table"


def test_an_empty_name_is_not_the_folder_that_happens_to_be_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        run("")
    assert "an empty name is no folder: the one here is called ." in capsys.readouterr().err


@pytest.mark.parametrize("batch", ["0", "-3"])
def test_a_batch_below_one_is_refused(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        run("photos", "--batch", batch)
    assert f"--batch: must be 1 or more, got {batch}" in capsys.readouterr().err


def test_ctrl_c_leaves_a_whole_table_of_the_rows_done_and_exit_code_130(
    make_photo: Callable[..., Path], bundle_folder: Path, tmp_path: Path, out: Path
) -> None:
    # Seconds of work; the signal comes with the first rows, so this ends as soon as it is heard.
    first = make_photo(tmp_path / "many" / "0000.jpg", "red", height=1000, width=1000)
    for index in range(1, 3000):
        os.link(first, tmp_path / "many" / f"{index:04d}.jpg")
    # A shell that puts a test run in the background makes it deaf to Ctrl-C, and so its children: undone here.
    code = """if True:
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from runtime.predict import main
        raise SystemExit(main())"""
    args = [str(tmp_path / "many"), "--bundles", str(bundle_folder), "--out", str(out), "--batch", "2", "--quiet"]
    process = subprocess.Popen([sys.executable, "-c", code, *args], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        # A header, and then rows.
        while not any(part.read_bytes().count(b"\n") > 2 for part in out.parent.glob(".*.part")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "no row was written within a minute"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert said == f"interrupted: {out} holds the rows that were done\ngo on with the same command and: --resume\n"
    rows = table(out)
    assert 0 < len(rows) < 3000
    assert [Path(row["image"]).name for row in rows] == [f"{index:04d}.jpg" for index in range(len(rows))]
    assert {(row["status"], row["colour"]) for row in rows} == {("ok", "red")}
    # What is done is there to go on from; a run to the end leaves nothing else.
    whole = out.with_name("whole.csv")
    assert main([*args[:4], str(whole), *args[5:]]) == 0
    assert main([*args, "--resume"]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert set(out.parent.iterdir()) == {out, whole}


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    code = f"""if True:
        import sys
        from runtime.predict import main
        try:
            main(["--help"])
        finally:
            print("loaded:", *sorted(set(sys.modules) & set({HEAVY})), file=sys.stderr)"""
    fastest_s = float("inf")
    for _ in range(3):  # the fastest of three: another process may hold the cores
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        fastest_s = min(fastest_s, time.perf_counter() - started)
    assert done.returncode == 0
    assert done.stderr == "loaded:\n"
    assert done.stdout.startswith("usage: python -m runtime.predict")
    assert fastest_s < 0.5


def test_escape_codes_in_a_file_name_do_not_reach_the_terminal(
    make_photo: Callable[..., Path],
    tmp_path: Path,
    fleet_root: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_photo(tmp_path / "odd" / "\x1b[31mred.jpg", "red")
    assert run(tmp_path / "odd", "--bundles", fleet_root, "--out", out) == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    assert table(out)[0]["image"].endswith("\x1b[31mred.jpg")


def test_an_artifact_that_the_engine_cannot_open_is_one_line(
    photos: Path, broken_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, "--bundles", broken_folder, "--out", out) == 2
    said = capsys.readouterr().err
    assert "onnxruntime cannot open" in said
    assert "Traceback" not in said
    assert not out.exists()


def test_an_engine_that_fails_in_the_middle_keeps_the_rows_before_it(
    photos: Path, bundle_folder: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_session = ort.OnnxRuntimeEngine.infer

    def failing(engine: ort.OnnxRuntimeEngine, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        if images_BHWC[0, 0, 0].argmax() == 0:  # the red one, which is the last
            raise RuntimeError("bad allocation\nof 3 GB")
        return run_session(engine, images_BHWC)

    options = ("--bundles", bundle_folder, "--batch", "1", "--engine", "onnxruntime", "--out", out, "--quiet")
    with monkeypatch.context() as patched:
        patched.setattr(ort.OnnxRuntimeEngine, "infer", failing)
        assert run(photos, *options) == 2
    assert capsys.readouterr().err == (
        "error: onnxruntime failed, with 1 photos at a time: bad allocation\n"
        "the rows before it are kept; go on with the same command and: --resume\n"
    )
    assert not out.exists()
    assert run(photos, *options, "--resume") == 0
    assert [row["colour"] for row in table(out)] == ["blue", "green", "red"]


def test_more_labels_than_there_are_make_no_more_columns(photos: Path, bundle_folder: Path, out: Path) -> None:
    assert run(photos, "--bundles", bundle_folder, "--out", out, "--quiet", "--top-k", "1000000") == 0
    assert list(table(out)[0])[6:] == [
        *("colour", "colour_confidence", "colour_2", "colour_2_confidence", "colour_3", "colour_3_confidence"),
        *("warmth", "warmth_confidence", "warmth_2", "warmth_2_confidence", "warmth_3", "warmth_3_confidence"),
    ]


def test_a_table_named_by_a_link_is_written_where_it_leads(photos: Path, bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, there = tmp_path / "out.csv", tmp_path / "elsewhere" / "table.csv"
    link.symlink_to(there)
    assert run(photos, "--bundles", bundle_folder, "--out", link, "--quiet") == 0
    assert link.is_symlink()
    assert len(table(there)) == 3
    assert list(there.parent.iterdir()) == [there]
