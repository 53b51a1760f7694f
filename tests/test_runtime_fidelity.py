"""An artifact's answers beside the reference's, photo by photo and slot by slot, on each engine of the CPU."""

# N photos, K classes

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export.parity import Evidence
from runtime import fidelity
from runtime.bundle import Attribute, Verdict
from runtime.engines import Engine, EngineOptions
from runtime.engines.cuda import why_no_gpu
from runtime.fidelity import LIMITS, Limits
from tests.gate_parts import CLASSES, LATE, LEAK, NAN, evidence, write

COLOUR = Attribute(name="colour", classes=CLASSES, output="colour")
HINTS = {"onnxruntime": "", "openvino": "f32"}


@pytest.fixture(scope="module")
def seen() -> Evidence:
    """Two batches of photos and a smaller one."""
    found = evidence(37)
    assert all(len(set(labels_N)) == 3 for labels_N in found.labels_NL.T)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "graph.onnx"


def judge(path: Path, precision: str, engine: str, seen: Evidence) -> Verdict:
    """The verdict by the differences alone."""
    return fidelity.judge(
        path,
        precision,
        engine,
        HINTS.get(engine, ""),
        seen.photos_NHWC,
        lambda answers: fidelity.compared(answers, seen.reference, seen.attributes, LIMITS[precision]),
    )


def test_the_honest_graph_passes_with_its_figures_and_its_speed(path: Path, seen: Evidence, cpu_engine: str) -> None:
    verdict = judge(write(path), "fp32", cpu_engine, seen)
    assert (verdict.engine, verdict.hint) == (cpu_engine, HINTS[cpu_engine])
    assert (verdict.state, verdict.reason) == ("passed", "")
    # A mean of 4096 pixels in float32, times seven.
    assert verdict.figures["probability_difference"] < 1e-5
    assert verdict.figures["slot_difference"] < 1e-5
    assert verdict.figures["agreement"] == 1.0
    assert verdict.images_per_s is not None
    assert verdict.images_per_s > 0


@pytest.mark.parametrize("fault", [NAN, LEAK], ids=["NaN", "a leak"])
def test_a_verdict_is_written_and_read_as_it_was(path: Path, seen: Evidence, fault: str) -> None:
    """JSON has no infinity: one figure that is none would make the whole page unreadable."""
    verdict = judge(write(path, fault=fault), "fp32", "onnxruntime", seen)
    assert verdict.state == "refused"
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


@pytest.mark.parametrize("precision", list(LIMITS))
def test_an_answer_that_is_no_number_is_the_largest_difference(
    path: Path, seen: Evidence, cpu_engine: str, precision: str
) -> None:
    verdict = judge(write(path, fault=NAN), precision, cpu_engine, seen)
    assert verdict.reason == f"a probability differs by 1, limit {LIMITS[precision].probability:g}"


def test_a_leak_between_slots_is_refused_even_where_every_answer_is_near_enough(path: Path, seen: Evidence) -> None:
    verdict = judge(write(path, fault=LEAK, leak=0.3), "int8", "onnxruntime", seen)
    assert verdict.figures["probability_difference"] < LIMITS["int8"].probability
    assert verdict.figures["agreement"] >= LIMITS["int8"].agreement
    assert verdict.state == "refused"
    assert verdict.reason.startswith("a photo differs by 0.")
    assert verdict.reason.endswith("between batch slots, limit 0.05")


def test_every_slot_that_predict_fills_is_tried_however_few_the_photos_are(path: Path, cpu_engine: str) -> None:
    verdict = judge(write(path, fault=LATE), "fp32", cpu_engine, evidence(5))
    # OpenVINO is given one photo at a time: it has no ninth slot.
    assert verdict.state == ("refused" if cpu_engine == "onnxruntime" else "passed")
    if cpu_engine == "onnxruntime":
        assert verdict.figures["probability_difference"] < 1e-5
        assert verdict.reason.endswith("between batch slots, limit 0.0001")


def test_what_answers_otherwise_where_several_batches_are_answered_at_once_is_refused(
    path: Path, tmp_path: Path, seen: Evidence, cpu_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO did, which compiles a graph anew for several streams: here it is another graph that is opened."""
    wrong, opened = write(tmp_path / "wrong.onnx", fault=NAN), fidelity.open_engine

    def open_engine(name: str, graph: Path, options: EngineOptions) -> Engine:
        return opened(name, wrong if options.streams > 1 else graph, options)

    monkeypatch.setattr(fidelity, "open_engine", open_engine)
    verdict = judge(write(path), "int8", cpu_engine, seen)
    assert verdict.figures["probability_difference"] < 1e-5
    assert verdict.reason == "a photo differs by 1 between batch slots, limit 0.05"


def test_so_is_every_slot_of_the_largest_batch_that_is_named(path: Path) -> None:
    seen = evidence(5)

    def measured(answers: fidelity.Answers) -> tuple[dict[str, float], str]:
        return fidelity.compared(answers, seen.reference, seen.attributes, LIMITS["fp32"])

    late = write(path, fault=LATE)
    for batch, state in ((8, "passed"), (9, "refused")):
        verdict = fidelity.judge(late, "fp32", "onnxruntime", "", seen.photos_NHWC, measured, batch=batch)
        assert verdict.state == state, batch


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("CUDA: out of memory")], ids=repr
)
def test_what_the_machine_lacks_is_no_refusal(
    path: Path, seen: Evidence, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def lacking(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(fidelity, "_run", lacking)
    verdict = judge(write(path), "fp32", "onnxruntime", seen)
    assert verdict.state == "unrun"
    assert verdict.reason.startswith("could not be tried: ")


def test_features_that_are_another_s_are_refused_though_every_probability_is_right() -> None:
    rng = np.random.default_rng(0)
    reference = {"colour": np.tile(np.array([0.9, 0.1, 0.0]), (4, 1)), "features": rng.normal(size=(4, 6))}
    for features, figure in (
        (reference["features"], 0.0),
        (np.roll(reference["features"], 1, axis=0), None),
        (np.full((4, 6), np.nan), fidelity.NOT_THERE),
        (np.zeros((4, 5)), fidelity.NOT_THERE),
    ):
        answers = reference | {"features": features}
        figures, reason = fidelity.compared(answers, reference, [COLOUR], LIMITS["int8"])
        assert figure is None or figures["features_nrmse"] == figure
        assert reason == (
            ""
            if figure == 0.0
            else f"features stray by {figures['features_nrmse']:.2g} of what sets photos apart, limit 0.5"
        )


def test_an_engine_that_is_not_installed_is_unrun(path: Path, seen: Evidence) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed")
    verdict = judge(path, "fp16", "tensorrt", seen)
    assert (verdict.state, verdict.reason) == ("unrun", "not installed where it was built")
    assert (verdict.figures, verdict.images_per_s) == ({}, None)


def test_an_engine_without_its_gpu_is_unrun_with_the_reason(path: Path, seen: Evidence) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    path.write_bytes(b"a plan, which is not even opened")
    verdict = judge(path, "fp16", "tensorrt-rtx", seen)
    assert verdict.state == "unrun"
    assert "no NVIDIA driver" in verdict.reason
    assert "\n" not in verdict.reason


def test_a_graph_that_an_engine_cannot_open_is_refused_and_does_not_end_the_build(
    path: Path, seen: Evidence, cpu_engine: str
) -> None:
    path.write_bytes(b"no graph at all")
    verdict = judge(path, "fp32", cpu_engine, seen)
    assert verdict.state == "refused"
    assert verdict.reason.startswith("cannot be run: ")
    assert "\n" not in verdict.reason


@pytest.mark.parametrize("count", [1, 3, 16, 17])
def test_any_number_of_photos_is_enough_to_run(path: Path, seen: Evidence, count: int) -> None:
    reference = {name: rows[:count] for name, rows in seen.reference.items()}
    few = replace(seen, photos_NHWC=seen.photos_NHWC[:count], reference=reference)
    assert judge(write(path), "fp32", "onnxruntime", few).state == "passed"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lining": np.zeros((37, 3), np.float32)}, "output 'colour' is missing, expected [37, 3]"),
        ({"colour": np.zeros((37, 2), np.float32)}, "output 'colour' is [37, 2], expected [37, 3]"),
        # Would be spread over all three classes, and compared.
        ({"colour": np.zeros((37, 1), np.float32)}, "output 'colour' is [37, 1], expected [37, 3]"),
        ({"colour": np.zeros((1, 3), np.float32)}, "output 'colour' is [1, 3], expected [37, 3]"),
    ],
)
def test_answers_of_another_shape_are_refused_and_not_compared(
    seen: Evidence, wrong: dict[str, np.ndarray], said: str
) -> None:
    assert fidelity.compared(wrong, seen.reference, seen.attributes, LIMITS["int8"]) == ({}, said)


def test_a_graph_that_answers_another_question_is_refused_without_figures(path: Path, seen: Evidence) -> None:
    asked = msgspec.structs.replace(COLOUR, output="sleeve")
    reference = {"sleeve": np.zeros((37, 2), np.float32)}
    verdict = fidelity.judge(
        write(path),
        "fp32",
        "onnxruntime",
        "",
        seen.photos_NHWC,
        lambda answers: fidelity.compared(answers, reference, [asked], LIMITS["fp32"]),
    )
    assert (verdict.state, verdict.figures) == ("refused", {})
    assert verdict.reason == "output 'sleeve' is missing, expected [37, 2]"


# Figures and limits


def test_figures_are_those_counted_by_hand() -> None:
    reference_NK = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]], np.float32)
    found_NK = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.0, 0.1, 0.9]], np.float32)
    figures = fidelity.differences({"colour": found_NK}, {"colour": reference_NK}, [COLOUR])
    assert figures["probability_difference"] == pytest.approx(0.1)
    assert figures["agreement"] == 3 / 4
    assert figures["changed"] == 1
    # Squares of the differences: four of 0.1; of what sets each class's answers apart: 0.4475 + 0.24 + 0.4875.
    assert figures["nrmse"] == pytest.approx((0.04 / 1.175) ** 0.5)


def test_where_photos_have_the_same_answers_nothing_sets_them_apart() -> None:
    reference_NK = np.tile(np.array([0.9, 0.1, 0.0], np.float32), (4, 1))
    assert "nrmse" not in fidelity.differences({"colour": reference_NK + 0.1}, {"colour": reference_NK}, [COLOUR])


def test_answers_of_narrow_range_are_held_to_it() -> None:
    """As of random weights: every probability is near, no label turns, and yet the answers are another's."""
    rng = np.random.default_rng(0)
    reference_NK = np.array([0.5, 0.3, 0.2]) + rng.normal(0, 0.005, (20, 3))
    found_NK = np.roll(reference_NK, 1, axis=0)
    figures = fidelity.differences({"colour": found_NK}, {"colour": reference_NK}, [COLOUR])
    for limits in LIMITS.values():
        assert fidelity.complaint(figures, replace(limits, probability=1.0)).startswith("answers stray by 1.")


def test_the_labels_that_agree_are_those_that_are_served() -> None:
    """Without the offset both photos would keep their label."""
    served = msgspec.structs.replace(COLOUR, offsets=(0.0, 1.0, 0.0))
    reference = {"colour": np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], np.float32)}
    found = {"colour": np.array([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05]], np.float32)}
    # log 0.5 - log 0.25 is 0.7, log 0.7 - log 0.2 is 1.25: an offset of 1 turns the first alone.
    assert fidelity.labels(reference["colour"], served).tolist() == [1, 0]
    assert fidelity.differences(found, reference, [served])["agreement"] == 0.5
    assert fidelity.differences(found, reference, [COLOUR])["agreement"] == 1.0


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, ""),
        ({"probability_difference": 0.5}, "a probability differs by 0.5, limit 0.01"),
        ({"agreement": 0.9, "changed": 2.0}, "90.0% of labels agree, limit 98.0%"),
        ({"agreement": 0.9, "changed": 1.0}, ""),
        ({"nrmse": 0.25}, "answers stray by 0.25 of what sets photos apart, limit 0.1"),
    ],
)
def test_a_complaint_names_the_limit_that_is_broken_and_by_how_much(figures: dict[str, float], said: str) -> None:
    assert fidelity.complaint({"probability_difference": 0.01, "agreement": 0.99} | figures, LIMITS["fp16"]) == said


def test_a_lower_precision_never_has_a_narrower_limit() -> None:
    def wideness(limits: Limits) -> tuple[float, ...]:
        return limits.probability, -limits.agreement, limits.nrmse, limits.slot

    full, half, int8 = (wideness(LIMITS[name]) for name in ("fp32", "fp16", "int8"))
    assert all(a <= b <= c for a, b, c in zip(full, half, int8, strict=True))
