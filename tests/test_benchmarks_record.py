"""A measurement's figures, its line and its file."""

import json
import re
from dataclasses import replace

import pytest

from benchmarks import record
from benchmarks.record import Agreement, Measurement

SAME = Agreement(largest_difference=0.001, labels_agree=1.0)
FOUND = Measurement(
    model="demo",
    precision="int8",
    engine="onnxruntime",
    hint="float",
    artifact="model.int8.12345678.onnx",
    chosen_by_auto=False,
    photos=10,
    batch=16,
    ours_s=(1.0, 2.0, 4.0),
    theirs_s=(4.0, 4.0, 40.0),
    same_pixels=SAME,
    same_network=SAME,
    whole=Agreement(largest_difference=0.1, labels_agree=0.98),
    between_photos=0.9,
)


def test_a_ratio_is_of_the_two_turns_of_one_round():
    assert FOUND.ratios == (4.0, 2.0, 10.0)
    # Not the ratio of the medians, 2: the machine may be slower in one round than in the next.
    assert FOUND.summary()["ratio"] == 4.0


def test_rates_are_of_photos_not_of_rounds():
    assert FOUND.rates(FOUND.ours_s) == [10.0, 5.0, 2.5]


def test_the_line_has_both_rates_their_ratio_and_the_agreement():
    assert FOUND.line() == (
        "demo, int8 on onnxruntime: 5.00 (2.50-10.00) images/s, the reference's way 2.50 (0.25-2.50): "
        "4.00 (2.00-10.00) times as fast; 98.0% of labels agree"
    )


@pytest.mark.parametrize("auto", [0, 1])
def test_what_predict_would_choose_heads_the_file(tmp_path, auto):
    two = [replace(FOUND, engine=f"engine{index}", chosen_by_auto=index == auto) for index in range(2)]
    page = json.loads(record.save(two, full=True, load_before=0.1, into=tmp_path).read_text())
    assert page["what"] == f"int8 on engine{auto}"
    assert [found["engine"] for found in page["measurements"]] == ["engine0", "engine1"]


def test_the_file_says_where_and_with_what_it_was_measured(tmp_path):
    path = record.save([FOUND], full=False, load_before=0.1, into=tmp_path)
    assert re.fullmatch(r"demo_[a-z0-9-]+-\d+-cores_\d{4}-\d\d-\d\d\.json", path.name)
    page = json.loads(path.read_text())
    assert page["hardware"]["cores"] >= 1 and page["hardware"]["cpu"]
    assert {"facet-edge", "python", "torch", "timm", "onnxruntime", "numpy"} <= page["versions"].keys()
    [kept] = page["measurements"]
    assert kept["ours_s"] == [1.0, 2.0, 4.0] and kept["theirs_s"] == [4.0, 4.0, 40.0]
    assert kept["whole"] == {"largest_difference": 0.1, "labels_agree": 0.98}


def test_a_machines_name_is_fit_for_a_file(monkeypatch):
    monkeypatch.setattr(record, "hardware", lambda: {"cpu": "Intel(R) Xeon(R) CPU E5-2673 v4 @ 2.30GHz", "cores": 8})
    assert record.machine_slug() == "intel-xeon-e5-2673-v4-8-cores"
