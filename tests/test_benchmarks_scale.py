"""The way from a synthetic folder to a checked submission: whole, and what is found wrong on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scale, synthetic
from benchmarks.scale import Found
from runtime.challenge import DUMMY

GOOD = Found(
    photos=70_213,
    joint=True,
    write_s=None,
    first_step_s=8.0,
    steps=933,
    batch=64,
    step_photos_per_s=1000.0,
    train_s=100.0,
    resident_mb=2000.0,
    own_mb=900.0,
    growth_mb=-1.0,
    page_bytes=900_000,
    hm=0.6,
    baseline_hm=0.4,
    export_s=20.0,
    test_photos=30_205,
    predict_s=30.0,
    rates=(),
)
Rows = list[list[str]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    synthetic.write(folder, photos=300, test_photos=50)
    return folder / "sample_submission.csv"


def test_a_good_run_has_nothing_to_complain_of() -> None:
    assert GOOD.complaints() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"first_step_s": 12.3}, "the first step came after 12.3 s: 10 at most"),
        ({"growth_mb": 100.0}, "memory grew by 100 MB: 16 at most"),
        ({"hm": 0.4}, "HM is 0.400: a constant has 0.400"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(change: dict[str, float], complaint: str) -> None:
    assert replace(GOOD, **change).complaints() == [complaint]


def test_the_sample_itself_passes_the_check(sample: Path) -> None:
    scale.check(sample, sample)


def swap_two(rows: Rows) -> None:
    rows[1], rows[2] = rows[2], rows[1]


def leave_one_out(rows: Rows) -> None:
    rows.pop()


def put(column: int, text: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[1][column] = text

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (swap_two, "where the sample has"),
        (leave_one_out, "50 lines, expected 51"),
        (lambda rows: rows[0].reverse(), "columns: "),
        (put(1, "Sarees"), "where the sample has"),
        (put(2, "6"), "where the sample has"),
        (put(3, DUMMY), "'dummy_value' in "),  # of Men Tshirts, which have five attributes
        (put(4, "white"), "'white' in "),
        (put(12, "white"), "'white' in "),
        (put(12, ""), "'' in "),
    ],
    ids=["order", "short", "columns", "category", "len", "no answer", "another's class", "beyond", "blank"],
)
def test_a_submission_that_the_challenge_would_not_take_is_found(
    sample: Path, tmp_path: Path, change: Callable[[Rows], None], complaint: str
) -> None:
    rows = [*csv.reader(sample.read_text().splitlines())]
    change(rows)
    with (tmp_path / "submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(AssertionError, match=complaint):
        scale.check(tmp_path / "submission.csv", sample)


def test_a_photo_that_cannot_be_read_has_the_dummy_everywhere_and_no_other_has(sample: Path, tmp_path: Path) -> None:
    rows = [*csv.reader(sample.read_text().splitlines())]
    submission = tmp_path / "submission.csv"

    def write() -> None:
        with submission.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    write()
    with pytest.raises(AssertionError, match="an answer without a photo: "):
        scale.check(submission, sample, unanswered={rows[1][0]})
    rows[1][3:] = [DUMMY] * 10
    write()
    scale.check(submission, sample, unanswered={rows[1][0]})


def test_data_is_written_once_for_a_size_and_what_a_run_left_is_cleared(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "work" / "data"
    assert scale.write(work, folder, 300, 20) is not None
    (work / "checkpoints").mkdir()
    assert scale.write(work, folder, 300, 20) is None
    assert sorted(path.name for path in work.iterdir()) == ["data", "size.txt"]
    assert scale.write(work, folder, 301, 20) is not None
    assert len(list((folder / "train_images").iterdir())) == 301


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert scale.main(["--work", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} holds other things than this command's\nchoose another" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-steps", "1"], "argument --max-steps: must be 2 or more, for a pace between two steps, got 1"),
        (["--max-steps", "-3"], "argument --max-steps: must be 1 or more, got -3"),
        (["--photos", "127"], "argument --photos: must be 128 or more, for a pace between two steps, got 127"),
    ],
)
def test_a_training_of_one_step_is_refused_since_it_has_no_pace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        scale.main([*options, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")])
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("options", "models"), [([], 1), (["--apart"], 5)], ids=["joint", "apart"])
def test_two_thousand_photos_go_the_whole_way_to_a_submission(tmp_path: Path, options: list[str], models: int) -> None:
    # 0 or 1: on so few photos, in so few steps, nothing is asked of memory or of what was learnt.
    size = ["--photos", "2000", "--test-photos", "500", "--max-steps", "20"]
    assert scale.main([*size, *options, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]) in (0, 1)
    (result,) = (tmp_path / "results").iterdir()
    page = json.loads(result.read_text())
    assert len(list((tmp_path / "work" / "bundles").iterdir())) == models
    assert (page["model"], page["photos"], page["test_photos"], page["full"]) == ("scale", 2000, 500, False)
    assert page["steps"] == models * 20
    assert page["first_step_s"] > 0 and page["own_mb"] > 100
    assert len(page["rates"]) == 12 and all(rate["photos_per_s"] > 0 for rate in page["rates"])
    assert page["hardware"]["cores"] and page["versions"]["torch"]
    scale.check(tmp_path / "work" / "submission.csv", tmp_path / "work" / "data" / "sample_submission.csv")
