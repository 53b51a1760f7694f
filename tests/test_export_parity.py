"""The gate on graphs of a few nodes: it passes the honest one and refuses each planted fault."""

# N photos, K classes, C channels

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import parity
from export.parity import LIMITS, Evidence, Limits
from runtime.bundle import Attribute, Category, Verdict
from runtime.engines import ENGINES
from runtime.engines.cuda import why_no_gpu
from tests.train_parts import photos
from train.config import MISSING

CLASSES = ("blue", "green", "red")
CATEGORY = Category(name="Cap", attributes=(Attribute(name="colour", classes=CLASSES, output="colour"),))
# The three channels' means decide among three classes; no symmetry hides a swap.
WEIGHT_CK = np.array([[12, 1, 2], [0, 11, 2], [1, 2, 9]], np.float32)
HONEST = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[B, 64, 64, 3] images) => (float[B, 3] colour, float[B, 3] features) {{
    pixels = Cast<to = 1>(images)
    nchw = Transpose<perm = [0, 3, 1, 2]>(pixels)
    scaled = Div(nchw, full)
    means = ReduceMean<keepdims = 0>(scaled, axes)
    {fault}
    logits = Gemm(features, weight)
    colour = Softmax(logits)
}}
"""
# Each photo's features become `leak` parts of the whole batch's.
LEAK = """
    together = ReduceMean<keepdims = 1>(means, batch_axis)
    own = Mul(means, kept)
    others = Mul(together, leak)
    features = Add(own, others)
"""


def write(path: Path, *, weight_CK: np.ndarray = WEIGHT_CK, fault: str = "", leak: float = 0.0) -> Path:
    model = onnx.parser.parse_model(HONEST.format(fault=fault or "features = Identity(means)"))
    weights = {"full": np.array(255, np.float32), "axes": np.array([2, 3]), "weight": weight_CK}
    if leak:
        weights |= {"batch_axis": np.array([0])}
        weights |= {"kept": np.array(1 - leak, np.float32), "leak": np.array(leak, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    tint_NC = np.random.default_rng(0).uniform(0.1, 1.0, (37, 3))  # two batches of the gate's and a smaller one
    photos_NHWC = (photos(37) * tint_NC[:, None, None]).astype(np.uint8)
    logits_NK = photos_NHWC.mean((1, 2)) / 255 @ WEIGHT_CK
    raised_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    answers_NK = (raised_NK / raised_NK.sum(1, keepdims=True)).astype(np.float32)
    assert len(set(answers_NK.argmax(1))) == 3
    return Evidence(
        categories=(CATEGORY,),
        photos_NHWC=photos_NHWC,
        labels_NL=answers_NK.argmax(1)[:, None],
        reference={"colour": answers_NK, "features": np.zeros((37, 3), np.float32)},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "graph.onnx"


CPU_ENGINES = [
    pytest.param(
        name,
        hint,
        marks=pytest.mark.skipif(not ENGINES[name].installed(), reason=f"{name} is not installed"),
        id=name,
    )
    for name, hint in (("onnxruntime", ""), ("openvino", "f32"))
]


@pytest.mark.parametrize(("engine", "hint"), CPU_ENGINES)
def test_the_honest_graph_passes_with_its_figures_and_its_speed(
    path: Path, evidence: Evidence, engine: str, hint: str
) -> None:
    verdict = parity.judge(write(path), "fp32", engine, hint, evidence)
    assert (verdict.engine, verdict.hint, verdict.state, verdict.reason) == (engine, hint, "passed", "")
    assert verdict.images_per_s is not None
    assert verdict.images_per_s > 0
    # A mean of 4096 pixels in float32, times nine.
    assert verdict.figures["probability_difference"] < 1e-5
    assert verdict.figures["slot_difference"] < 1e-5
    assert (verdict.figures["agreement"], verdict.figures["hm_lost"], verdict.figures["labels"]) == (1.0, 0.0, 37.0)


FAULTS = {
    "two classes swapped": {"weight_CK": WEIGHT_CK[:, [1, 0, 2]]},
    "BGR for RGB": {"weight_CK": WEIGHT_CK[::-1].copy()},
    "every photo answered as the batch's average": {"fault": LEAK, "leak": 1.0},
    "a hundredth of the batch in every photo": {"fault": LEAK, "leak": 0.01},
    "pixels not divided by their range": {"weight_CK": WEIGHT_CK * 255},
    "NaN": {"fault": "below = Neg(full)\nroot = Sqrt(below)\nfeatures = Add(means, root)"},
}


@pytest.mark.parametrize(("engine", "hint"), CPU_ENGINES)
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_refused(path: Path, evidence: Evidence, engine: str, hint: str, fault: str) -> None:
    verdict = parity.judge(write(path, **FAULTS[fault]), "fp32", engine, hint, evidence)  # type: ignore[arg-type]
    assert verdict.state == "refused"
    assert "a probability differs by" in verdict.reason


@pytest.mark.parametrize("fault", ["two classes swapped", "BGR for RGB", "NaN"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_gross_fault_is_refused_within_the_wider_limits_too(
    path: Path, evidence: Evidence, fault: str, precision: str
) -> None:
    verdict = parity.judge(write(path, **FAULTS[fault]), precision, "onnxruntime", "", evidence)  # type: ignore[arg-type]
    assert verdict.state == "refused"


def test_a_leak_between_slots_is_refused_even_where_every_answer_is_near_enough(path: Path, evidence: Evidence) -> None:
    verdict = parity.judge(write(path, fault=LEAK, leak=0.25), "int8", "onnxruntime", "", evidence)
    assert verdict.figures["probability_difference"] < LIMITS["int8"].probability
    assert verdict.figures["agreement"] >= LIMITS["int8"].agreement
    assert verdict.state == "refused"
    assert verdict.reason.startswith("a photo differs by 0.")
    assert verdict.reason.endswith("between batch slots, limit 0.05")


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_verdict_is_written_and_read_as_it_was(path: Path, evidence: Evidence, fault: str) -> None:
    """JSON has no infinity: one figure that is none would make the whole page unreadable."""
    verdict = parity.judge(write(path, **FAULTS[fault]), "fp32", "onnxruntime", "", evidence)  # type: ignore[arg-type]
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_an_engine_that_is_not_installed_is_unrun(path: Path, evidence: Evidence) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed")
    verdict = parity.judge(path, "fp16", "tensorrt", "", evidence)
    assert (verdict.state, verdict.reason) == ("unrun", "not installed where it was built")
    assert (verdict.figures, verdict.images_per_s) == ({}, None)


def test_an_engine_without_its_gpu_is_unrun_with_the_reason(path: Path, evidence: Evidence) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    path.write_bytes(b"a plan, which is not even opened")
    verdict = parity.judge(path, "fp16", "tensorrt-rtx", "", evidence)
    assert verdict.state == "unrun"
    assert "no NVIDIA driver" in verdict.reason
    assert "\n" not in verdict.reason


@pytest.mark.parametrize(("engine", "hint"), CPU_ENGINES)
def test_a_graph_that_an_engine_cannot_open_is_refused_and_does_not_end_the_build(
    path: Path, evidence: Evidence, engine: str, hint: str
) -> None:
    path.write_bytes(b"no graph at all")
    verdict = parity.judge(path, "fp32", engine, hint, evidence)
    assert verdict.state == "refused"
    assert verdict.reason
    assert "\n" not in verdict.reason


def test_a_single_photo_is_evidence_enough_to_run(path: Path, evidence: Evidence) -> None:
    one = Evidence(
        categories=(CATEGORY,),
        photos_NHWC=evidence.photos_NHWC[:1],
        labels_NL=evidence.labels_NL[:1],
        reference={"colour": evidence.reference["colour"][:1]},
    )
    assert parity.judge(write(path), "fp32", "onnxruntime", "", one).state == "passed"


def test_each_engine_is_tried_in_the_ways_that_can_differ() -> None:
    assert parity.hints("openvino", "int8") == parity.hints("openvino", "fp32") == ("f32",)
    assert parity.hints("onnxruntime", "int8") == ("", "float")
    assert parity.hints("onnxruntime", "fp32") == parity.hints("tensorrt", "fp16") == ("",)


# Figures and limits


def test_figures_are_those_counted_by_hand() -> None:
    reference_NK = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]], np.float32)
    found_NK = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.0, 0.1, 0.9]], np.float32)
    evidence = Evidence(
        categories=(CATEGORY,),
        photos_NHWC=np.zeros((4, 1, 1, 3), np.uint8),
        labels_NL=np.array([[0], [1], [0], [MISSING]]),
        reference={"colour": reference_NK},
    )
    figures = parity.measure({"colour": found_NK}, evidence)
    assert figures["probability_difference"] == pytest.approx(0.1)
    assert figures["mean_difference"] == pytest.approx(0.4 / 12)
    assert figures["agreement"] == 3 / 4
    assert figures["labels"] == 3
    # PyTorch is right on all three; the artifact on two: micro 2/3, macro 2/3.
    assert figures["hm"] == pytest.approx(2 / 3)
    assert figures["hm_lost"] == pytest.approx(1 / 3)


GOOD = {
    "probability_difference": 0.01,
    "agreement": 0.99,
    "slot_difference": 0.001,
    "hm_lost": 0.0,
    "labels": 1000.0,
}


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, ""),
        ({"probability_difference": 0.5}, "a probability differs by 0.5, limit 0.02"),
        ({"agreement": 0.9}, "90.0% of labels agree, limit 98.0%"),
        ({"slot_difference": 0.01}, "a photo differs by 0.01 between batch slots, limit 0.005"),
        ({"hm_lost": 0.02}, "the mean HM falls by 2.00 points, limit 1.5"),
        ({"hm_lost": 0.02, "labels": 499.0}, ""),
        ({"hm_lost": -0.2}, ""),
    ],
)
def test_a_complaint_names_the_limit_that_is_broken_and_by_how_much(figures: dict[str, float], said: str) -> None:
    assert parity.complaint(GOOD | figures, LIMITS["fp16"]) == said


def test_a_lower_precision_never_has_a_narrower_limit() -> None:
    def wideness(limits: Limits) -> tuple[float, float, float]:
        return limits.probability, -limits.agreement, limits.slot

    full, half, int8 = (wideness(LIMITS[name]) for name in ("fp32", "fp16", "int8"))
    assert all(a <= b <= c for a, b, c in zip(full, half, int8, strict=True))


# Golden photos


def labels(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows)


def test_golden_rows_show_every_label_that_so_many_rows_can_show() -> None:
    rng = np.random.default_rng(0)
    # A class of which there is one photo in 400, in each of three attributes.
    labels_NL = rng.integers(0, 3, (400, 3))
    for attribute in range(3):
        labels_NL[17 * (attribute + 1), attribute] = 3
    chosen = parity.golden_rows(labels_NL, np.zeros(400, int), 8)
    assert len(set(chosen)) == 8
    assert all(set(labels_NL[list(chosen), attribute]) == {0, 1, 2, 3} for attribute in range(3))


def test_the_first_golden_row_shows_the_most_labels_and_a_tie_goes_to_the_earlier() -> None:
    found = labels((0, MISSING, MISSING), (1, 1, 0), (0, 0, 1), (MISSING, MISSING, MISSING))
    assert list(parity.golden_rows(found, np.zeros(4, int), 2)) == [1, 2]


def test_golden_rows_show_every_category_before_one_twice() -> None:
    """However many attributes one has, and however few another."""
    found = labels((0, 0, 0, MISSING), (1, 1, 1, MISSING), (MISSING, MISSING, MISSING, 0), (2, 2, 2, MISSING))
    assert list(parity.golden_rows(found, np.array([0, 0, 1, 0]), 3)) == [0, 2, 1]


@pytest.mark.parametrize(("rows", "count"), [(3, 8), (8, 8), (20, 8), (20, 1)])
def test_there_are_as_many_golden_rows_as_asked_for_or_as_there_are(rows: int, count: int) -> None:
    chosen = parity.golden_rows(np.zeros((rows, 2), np.int64), np.zeros(rows, int), count)
    assert len(chosen) == len(set(chosen)) == min(rows, count)
