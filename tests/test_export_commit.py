"""What a later build adds to a bundle or replaces, and what one that fails on the way leaves of it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export import artifacts, build, commit, parity
from runtime import bundle, locks
from tests import export_parts
from tests.export_parts import graphs, run
from train import checkpoint
from train.config import MISSING

pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")

ROOT = Path(__file__).resolve().parents[1]
KILLS = 10


@pytest.fixture(scope="module")
def checkpoints(export_folder: Path) -> Path:
    return export_parts.checkpoints(export_folder)


@pytest.fixture(scope="module")
def other_checkpoints(export_folder: Path) -> Path:
    return export_parts.other_checkpoints(export_folder)


@pytest.fixture(scope="module")
def built(export_folder: Path) -> Path:
    return export_parts.built(export_folder)


@pytest.fixture(scope="module")
def pair(checkpoints: Path, other_checkpoints: Path) -> list[Path]:
    """One category, trained from two seeds: each build over the other's bundle replaces it whole."""
    return [checkpoints, other_checkpoints]


def options(checkpoints: Path, out: Path) -> list[str]:
    named = ["--checkpoints", str(checkpoints), "--out", str(out), "--engine", "onnxruntime", "--quiet"]
    return [*named, "--precision", "fp32"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(folder: Path) -> set[str]:
    page = bundle.verify(folder)
    return {bundle.PAGE, *(one.file for one in page.artifacts), *(photo.file for photo in page.golden.photos)}


# What later builds do


def test_a_later_build_adds_to_the_bundle_and_another_checkpoint_starts_it_anew(
    checkpoints: Path, other_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    first = bundle.verify(tmp_path / "cap")
    assert list(graphs(first)) == ["fp32"]
    assert "Cap: 6 photos at the gate" in capsys.readouterr().out

    assert run(checkpoints, tmp_path, "--precision", "fp16") == 0
    second = bundle.verify(tmp_path / "cap")
    assert graphs(second).keys() == {"fp32", "fp16"}
    assert graphs(second)["fp32"] == graphs(first)["fp32"]
    assert second.golden == first.golden

    assert run(other_checkpoints, tmp_path, "--precision", "fp32") == 0
    third = bundle.verify(tmp_path / "cap")
    assert list(graphs(third)) == ["fp32"]
    assert graphs(third)["fp32"].sha256 != graphs(first)["fp32"].sha256
    left = {path.name for path in (tmp_path / "cap").iterdir()}
    assert third.validation and third.validation != second.validation
    assert left == {graphs(third)["fp32"].file, third.validation.file, "bundle.json", "golden"}


def test_a_bundle_of_another_taxonomy_is_replaced_and_said_to_be(
    checkpoints: Path, other_checkpoints: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(built, tmp_path / "cap")
    page = bundle.load(folder)
    (category,) = page.categories
    shorter = msgspec.structs.replace(category, attributes=category.attributes[:1])
    first = category.attributes[0].output
    golden = msgspec.structs.replace(page.golden, probabilities={first: page.golden.probabilities[first]})
    bundle.save(folder, msgspec.structs.replace(page, categories=(shorter,), golden=golden, provenance={}))
    assert run(other_checkpoints, tmp_path, "--precision", "fp32") == 0
    said = f"{folder} had other attributes or classes (Cap: {category.attributes[0].name}): it is replaced whole"
    assert said in capsys.readouterr().err
    assert list(graphs(bundle.verify(folder))) == ["fp32"]
    # The same attributes from another training are nothing to remark on.
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    assert "other attributes" not in capsys.readouterr().err


def test_a_graph_takes_the_place_of_an_earlier_one_that_other_engines_judged(checkpoints: Path, tmp_path: Path) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    assert run(checkpoints, tmp_path, "--precision", "fp32", "--engine", "onnxruntime") == 0
    (artifact,) = bundle.verify(tmp_path / "cap").artifacts
    assert artifact.engines == ("onnxruntime",)


@pytest.mark.parametrize("change", ["temperatures", "offsets"])
def test_the_same_weights_with_another_page_start_the_bundle_anew(
    checkpoints: Path, tmp_path: Path, change: str
) -> None:
    (source,) = checkpoint.find(checkpoints).values()
    folder = shutil.copytree(source, tmp_path / "checkpoints" / "cap")
    assert run(folder, tmp_path, "--precision", "fp32") == 0
    first = bundle.verify(tmp_path / "cap")
    page = json.loads((folder / checkpoint.PAGE).read_text())
    if change == "temperatures":
        page["temperatures"] = {"colour": 1.5}
    else:
        page["categories"][0]["attributes"][1]["offsets"] = [0.0, 0.5]
    (folder / checkpoint.PAGE).write_text(json.dumps(page))
    assert run(folder, tmp_path, "--precision", "fp16") == 0
    second = bundle.verify(tmp_path / "cap")
    assert second.provenance["checkpoint"] == first.provenance["checkpoint"]
    assert list(graphs(second)) == ["fp16"]
    # The golden answers are calibrated, as the graph's are; offsets move no probability.
    changed = [name for name, rows in first.golden.probabilities.items() if rows != second.golden.probabilities[name]]
    assert changed == (["colour"] if change == "temperatures" else [])


def test_an_interrupted_build_leaves_the_earlier_bundle_as_it_was(
    checkpoints: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in built.rglob("*"):
        if path.is_file():
            copy = tmp_path / "cap" / path.relative_to(built)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    before = {path: path.read_bytes() for path in (tmp_path / "cap").rglob("*") if path.is_file()}

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "judge", interrupt)
    assert run(checkpoints, tmp_path, "--precision", "fp32", "--gate-photos", "5") == 130
    after = {path: path.read_bytes() for path in (tmp_path / "cap").rglob("*") if path.is_file()}
    assert after == before
    assert json.loads((tmp_path / "cap" / "bundle.json").read_text())["slug"] == "cap"


# What a failure or a kill leaves


def test_a_full_disk_is_one_clear_line_and_the_bundle_as_it_was(
    pair: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    assert build.main(options(pair[0], tmp_path)) == 0
    before = contents(tmp_path / "cap")
    capsys.readouterr()
    with largest_file(bundle.load(tmp_path / "cap").artifacts[0].bytes // 2):
        assert build.main(options(pair[1], tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: cannot write in {tmp_path / 'cap'}: File too large\n")
    assert contents(tmp_path / "cap") == before


def test_a_bundle_takes_one_build_at_a_time(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    with locks.locked(tmp_path / "cap", "build"):
        assert build.main(options(pair[0], tmp_path)) == 2
    assert f"error: another build is writing to {tmp_path / 'cap'}\nwait for it, or" in capsys.readouterr().err
    assert not (tmp_path / "cap").exists()


@pytest.mark.slow
def test_killed_ten_times_it_leaves_the_bundle_whole_and_after_the_next_build_nothing_else(
    pair: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "cap"
    assert build.main(options(pair[0], tmp_path)) == 0
    started = time.monotonic()
    assert wait_for_work(process := begin(pair[1], tmp_path), folder)
    began = time.monotonic()
    assert process.wait() == 0
    works_s = time.monotonic() - began
    print(f"a build takes {began - started:.1f} s to begin and {works_s:.1f} s to write")
    chance = random.Random(0)
    interrupted = left = 0
    for turn in range(KILLS):
        before = bundle.verify(folder)
        process = begin(other(pair, before), tmp_path)
        assert wait_for_work(process, folder)
        # A share each of the time that it works, the last of them about when it commits.
        time.sleep(works_s * (turn + chance.random()) / KILLS)
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        left += bool(set(folder.glob(".build.*")))
        after = bundle.verify(folder)
        # The old page or the new one: never half of one.
        assert after == before or after.provenance["checkpoint"] != before.provenance["checkpoint"]
    # One that had ended by itself met no kill.
    assert min(interrupted, left) >= KILLS // 2
    assert build.main(options(other(pair, bundle.load(folder)), tmp_path)) == 0
    assert set(contents(folder)) == named(folder)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"golden"}


def other(pair: list[Path], page: bundle.Bundle) -> Path:
    """The one that the bundle is not made of; of its own there would be nothing to build."""
    return next(folder for seed, folder in enumerate(pair) if page.provenance["seed"] != str(seed))


def begin(checkpoints: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "export.build", *options(checkpoints, out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_work(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait until a build has begun to write beside the bundle; False where it ended before."""
    already = set(folder.glob(".build.*"))
    while process.poll() is None:
        if set(folder.glob(".build.*")) - already:
            return True
        time.sleep(0.005)
    return False


# Golden photos


def labels(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows)


def test_golden_rows_show_every_label_that_so_many_rows_can_show() -> None:
    rng = np.random.default_rng(0)
    # A class of which there is one photo in 400, in each of three attributes.
    labels_NL = rng.integers(0, 3, (400, 3))
    for attribute in range(3):
        labels_NL[17 * (attribute + 1), attribute] = 3
    chosen = commit.golden_rows(labels_NL, np.zeros(400, int), 8)
    assert len(set(chosen)) == 8
    assert all(set(labels_NL[list(chosen), attribute]) == {0, 1, 2, 3} for attribute in range(3))


def test_the_first_golden_row_shows_the_most_labels_and_a_tie_goes_to_the_earlier() -> None:
    found = labels((0, MISSING, MISSING), (1, 1, 0), (0, 0, 1), (MISSING, MISSING, MISSING))
    assert list(commit.golden_rows(found, np.zeros(4, int), 2)) == [1, 2]


def test_golden_rows_show_every_category_before_one_twice() -> None:
    """However many attributes one has, and however few another."""
    found = labels((0, 0, 0, MISSING), (1, 1, 1, MISSING), (MISSING, MISSING, MISSING, 0), (2, 2, 2, MISSING))
    assert list(commit.golden_rows(found, np.array([0, 0, 1, 0]), 3)) == [0, 2, 1]


def test_of_a_damaged_bundle_the_next_build_keeps_what_is_whole(
    checkpoints: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "cap"))
    damaged = folder / graphs(bundle.load(folder))["int8"].file
    damaged.write_bytes(b"damaged")
    assert build.main([*options(checkpoints, tmp_path), "--gate-photos", "5"]) == 0
    assert f"{damaged} was changed after it was built" in capsys.readouterr().err
    kept = {artifact.precision for artifact in bundle.verify(folder).artifacts}
    assert kept == {"fp32", "fp16"}
    assert not damaged.exists()


def test_plans_whose_page_was_lost_are_told_of_as_they_go(
    checkpoints: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(built, tmp_path / "cap")
    for path in (folder / bundle.PAGE, *folder.glob("*.plan")):
        path.unlink()
    (folder / "model.fp32.sm89.00c0ffee.plan").write_bytes(b"a plan")
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    said = (
        "plans that no page describes any more go: model.fp32.sm89.00c0ffee.plan\n"
        f"build them anew with: python -m export.engine {folder}\n"
    )
    assert said in capsys.readouterr().err
    assert not list(folder.glob("*.plan"))


def test_what_a_killed_build_left_is_gone_though_nothing_is_to_be_made(
    checkpoints: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "cap"))
    before = contents(folder)
    (folder / ".build.x").mkdir()
    (folder / ".build.x" / "int8.onnx").write_bytes(b"half")
    (folder / "model.int8.0123abcd.onnx").write_bytes(b"of no page")
    # As it was built but for --quiet.
    assert build.main([*options(checkpoints, tmp_path)[:-3], "--engine", *artifacts.GRAPH_ENGINES]) == 0
    assert "unchanged" in capsys.readouterr().err
    assert contents(folder) == before
    assert not (folder / ".build.x").exists()


@pytest.mark.parametrize(("rows", "count"), [(3, 8), (8, 8), (20, 8), (20, 1)])
def test_there_are_as_many_golden_rows_as_asked_for_or_as_there_are(rows: int, count: int) -> None:
    chosen = commit.golden_rows(np.zeros((rows, 2), np.int64), np.zeros(rows, int), count)
    assert len(chosen) == len(set(chosen)) == min(rows, count)
