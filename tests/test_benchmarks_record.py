"""A contest's figures, its lines and its file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.record import Agreement, Contest, Result

SAME = Agreement(largest_difference=0.001, mean_difference=0.0001, labels_agree=1.0)
OURS = Result(
    way="facet", what="int8 on openvino bf16", photos=8, images_per_s=(10.0, 5.0, 2.5), answers=SAME, labels_agree=1.0
)
THEIRS = Result(
    way="reference", what="PyTorch", photos=2, images_per_s=(2.5, 2.5, 0.25), answers=SAME, labels_agree=None
)
FOUND = Contest(
    model="demo",
    kind="alone",
    results=[OURS, THEIRS],
    missing={"optimum int8": "not installed"},
    gop=20.0,
    limits=[{"f32_gops": 100.0, "bf16_gops": 200.0, "int8_gops": 400.0}] * 3,
)


def test_a_ratio_is_of_the_two_turns_of_one_round() -> None:
    assert FOUND.ratios(THEIRS) == [4.0, 2.0, 10.0]
    # Not the ratio of the medians, 2: the machine may be slower in one round than in the next.
    ways = FOUND.summary()["ways"]
    assert isinstance(ways, list)
    theirs = ways[1]
    assert theirs["ours_is_times_as_fast"] == 4.0
    assert theirs["range"] == [2.0, 10.0]


def test_the_share_of_the_limit_is_of_the_operations_of_a_photo() -> None:
    # 5 images a second of 20 GOP each are 100 GOP/s.
    assert FOUND.shares() == {"f32": 1.0, "bf16": 0.5, "int8": 0.25}


def test_the_lines_have_each_way_what_reaches_of_the_limit_and_who_is_not_there() -> None:
    assert FOUND.lines() == [
        "facet, 5.00 (2.50-10.00) images/s; 1.0e-04 off, 100.0% of labels agree",
        "reference, 2.50 (0.25-2.50) images/s: ours 4.00 (2.00-10.00) times as fast; "
        "1.0e-04 off, 100.0% of labels agree",
        "of the machine's rate for large products, ours reaches 100% of f32, 50% of bf16, 25% of int8",
        "optimum int8: not installed",
    ]


def test_the_file_says_where_and_with_what_it_was_measured(tmp_path: Path) -> None:
    path = record.save([FOUND, replace(FOUND, kind="whole")], full=False, load_before=0.1, into=tmp_path)
    assert re.fullmatch(r"demo_[a-z0-9-]+-\d+-cores_\d{4}-\d\d-\d\d\.json", path.name)
    page = json.loads(path.read_text())
    assert page["hardware"]["cores"] >= 1 and page["hardware"]["cpu"]
    assert {"facet-edge", "python", "torch", "timm", "onnxruntime", "numpy"} <= page["versions"].keys()
    assert page["what"] == "int8 on openvino bf16"
    assert page["contests"].keys() == {"alone", "whole"}
    ours, theirs = page["contests"]["alone"]["ways"]
    assert ours["rounds"] == [10.0, 5.0, 2.5] and theirs["rounds"] == [2.5, 2.5, 0.25]
    assert theirs["answers"] == {"largest_difference": 0.001, "mean_difference": 0.0001, "labels_agree": 1.0}


def test_a_machines_name_is_fit_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "hardware", lambda: {"cpu": "Intel(R) Xeon(R) CPU E5-2673 v4 @ 2.30GHz", "cores": 8})
    assert record.machine_slug() == "intel-xeon-e5-2673-v4-8-cores"


def test_a_place_that_takes_nothing_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "results"
    assert record.main(record.parser("any", ""), lambda into: pytest.fail("it was measured"), ["--out", str(out)]) == 2
    assert f"cannot write in {out}: Not a directory\nchoose another folder with: --out DIR" in capsys.readouterr().err


def test_a_kill_ends_what_a_benchmark_started(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen(["sleep", "60"]) as process:

        def measure() -> int:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                return 0
            finally:
                process.kill()

        with pytest.raises(SystemExit, match="143"):
            record.run(measure, into=tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
