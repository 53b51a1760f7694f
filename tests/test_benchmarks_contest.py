"""A contest's figures, its lines and its file, and the file that it may not replace."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import contest, rounds
from benchmarks.contest import Agreement, Contest, Result

SAME = Agreement(largest_difference=0.0001, mean_difference=0.0001, labels_agree=1.0)
OURS = Result(
    way="facet",
    what="int8 on openvino bf16",
    how="2 batches of 4 at once",
    exact=False,
    photos=8,
    images_per_s=(10.0, 5.0, 2.5),
    answers=SAME,
    labels_agree=1.0,
)
THEIRS = Result(
    way="reference",
    what="PyTorch",
    how="one photo at a time",
    exact=True,
    photos=2,
    images_per_s=(2.5, 2.5, 0.25),
    answers=SAME,
    labels_agree=None,
)
ALONE = Contest(
    model="demo",
    kind="alone",
    results=[OURS, THEIRS],
    missing={"optimum int8": "not installed"},
    failed={},
    gop=20.0,
    limits=[{"f32_gops": 100.0, "bf16_gops": 200.0, "int8_gops": 400.0}] * 3,
    others=[0.0, 0.01, None],
)
WHOLE = replace(ALONE, kind="whole")


def saved(*contests: Contest, into: Path, full: bool = False, load_before: float = 0.1) -> str:
    return contest.save(contests, full=full, load_before=load_before, into=into)


def page_in(folder: Path) -> dict[str, object]:
    (path,) = folder.glob("*.json")
    page: dict[str, object] = json.loads(path.read_text())
    return page


def test_a_ratio_is_of_the_two_turns_of_one_round() -> None:
    assert ALONE.ratios(THEIRS) == [4.0, 2.0, 10.0]
    # Not the ratio of the medians, 2: the machine may be slower in one round than in the next.
    ways = ALONE.summary()["ways"]
    assert isinstance(ways, list)
    theirs = ways[1]
    assert theirs["ours_is_times_as_fast"] == 4.0
    assert theirs["range"] == [2.0, 10.0]


def test_the_share_of_the_limit_is_of_the_operations_of_a_photo() -> None:
    # 5 images a second of 20 GOP each are 100 GOP/s.
    assert ALONE.shares() == {"f32": 1.0, "bf16": 0.5, "int8": 0.25}


def test_the_lines_say_what_ran_and_how_and_who_is_not_there() -> None:
    assert ALONE.lines() == [
        "facet (int8 on openvino bf16, 2 batches of 4 at once), 5.00 (2.50-10.00) images/s; "
        "1.0e-04 off, 100.0% of labels agree",
        "reference (PyTorch, one photo at a time), 2.50 (0.25-2.50) images/s: ours 4.00 (2.00-10.00) times as fast; "
        "1.0e-04 off, 100.0% of labels agree",
        "of the machine's rate for large products, ours reaches 100% of f32, 50% of bf16, 25% of int8",
        "optimum int8: not installed",
    ]


def test_the_lines_name_who_failed_and_what_others_took_of_the_machine() -> None:
    *_, busy, _, failed = replace(ALONE, others=[0.0, 0.31, 0.0], failed={"openvino int8": "it ended with 1"}).lines()
    assert busy == "others had up to 31% of the cores in a round: run it again on a quiet machine"
    assert failed == "openvino int8 failed: it ended with 1"


@pytest.mark.parametrize(
    ("exact", "answers"),
    [
        (True, replace(SAME, largest_difference=0.002)),
        (False, replace(SAME, largest_difference=0.9, labels_agree=0.89)),
        (False, Agreement(largest_difference=float("inf"), mean_difference=float("inf"), labels_agree=0.0)),
    ],
)
def test_who_answers_otherwise_is_shown_without_a_ratio(exact: bool, answers: Agreement) -> None:
    found = replace(ALONE, results=[OURS, replace(THEIRS, exact=exact, answers=answers)])
    assert ": not compared, it answers otherwise; " in found.lines()[1]
    ways = found.summary()["ways"]
    assert isinstance(ways, list)
    assert ways[1]["ours_is_times_as_fast"] is None and ways[1]["range"] is None
    assert ways[1]["images_per_s"] == 2.5
    json.dumps(found.summary(), allow_nan=False)


def test_int8_that_tells_nearly_all_labels_alike_is_compared() -> None:
    assert replace(OURS, answers=replace(SAME, largest_difference=0.3, labels_agree=0.9)).answers_alike


def test_without_the_machines_own_rates_there_is_no_share_of_them() -> None:
    found = replace(ALONE, limits=[])
    assert found.summary()["share_of_limit"] == {}
    assert not any("large products" in line for line in found.lines())


def test_the_file_says_where_and_with_what_it_was_measured(tmp_path: Path) -> None:
    told = saved(ALONE, WHOLE, into=tmp_path)
    (path,) = tmp_path.iterdir()
    assert told == f"kept in {path}"
    assert re.fullmatch(r"demo_[a-z0-9-]+-\d+-cores_\d{4}-\d\d-\d\d\.json", path.name)
    page = json.loads(path.read_text())
    assert page["hardware"]["cores"] >= 1 and page["hardware"]["cpu"]
    assert {"facet-edge", "python", "torch", "timm", "onnxruntime", "numpy"} <= page["versions"].keys()
    assert page["what"] == "int8 on openvino bf16" and page["quiet"]
    assert page["contests"].keys() == {"alone", "whole"}
    assert page["contests"]["alone"]["others_share"] == [0.0, 0.01, None]
    ours, theirs = page["contests"]["alone"]["ways"]
    assert ours["how"] == "2 batches of 4 at once"
    assert ours["rounds"] == [10.0, 5.0, 2.5] and theirs["rounds"] == [2.5, 2.5, 0.25]
    assert theirs["answers"] == {"largest_difference": 0.0001, "mean_difference": 0.0001, "labels_agree": 1.0}


def test_half_a_run_is_not_kept(tmp_path: Path) -> None:
    assert saved(ALONE, into=tmp_path) == "demo: not kept, since the contest 'whole' was not held"
    failed = replace(WHOLE, failed={"openvino int8": "it ended with 1"})
    assert saved(ALONE, failed, into=tmp_path) == "demo: not kept, since openvino int8 failed"
    assert not any(tmp_path.iterdir())


def test_a_fuller_or_a_quieter_run_of_the_day_stays(tmp_path: Path) -> None:
    noisy = [ALONE, replace(WHOLE, others=[0.0, rounds.SHARE + 0.01, 0.0])]
    saved(*noisy, into=tmp_path)
    assert not page_in(tmp_path)["quiet"]
    assert saved(ALONE, WHOLE, into=tmp_path, load_before=9999.0).startswith("kept in ")
    assert saved(ALONE, WHOLE, into=tmp_path).startswith("kept in ")
    (path,) = tmp_path.iterdir()
    for contests, load in ((noisy, 0.0), ([ALONE, WHOLE], 9999.0)):
        told = saved(*contests, into=tmp_path, load_before=load)
        assert told == f"demo: not kept, since {path} is of a quiet machine"
    assert saved(ALONE, WHOLE, into=tmp_path, full=True).startswith("kept in ")
    assert saved(ALONE, WHOLE, into=tmp_path) == f"demo: not kept, since {path} is of a run with --full"
    assert page_in(tmp_path)["full"]
