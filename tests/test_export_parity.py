"""The gate: it passes the honest artifact, refuses each planted fault, and judges accuracy where labels are enough."""

# N photos, K classes, S resamples

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import graph, parity, precision
from export.evidence import reference
from export.parity import ACCURACY, Accuracy, Evidence
from runtime.bundle import Category
from runtime.engines import ENGINES
from runtime.fidelity import LIMITS, hints
from tests.gate_parts import CATEGORY, COLOUR_CK, LEAK, LINING_CK, NAN, evidence, write
from tests.train_parts import full_graph, network, photos
from train import intervals
from train.config import MISSING

HINTS = {"onnxruntime": "", "openvino": "f32"}


@pytest.fixture(scope="module")
def seen() -> Evidence:
    return evidence(37)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "graph.onnx"


def test_the_honest_graph_passes_with_the_figures_of_its_accuracy(path: Path, seen: Evidence, cpu_engine: str) -> None:
    verdict = parity.judge(write(path), "fp32", cpu_engine, HINTS[cpu_engine], seen)
    assert (verdict.engine, verdict.hint, verdict.state) == (cpu_engine, HINTS[cpu_engine], "passed"), verdict.reason
    # Two attributes of 37 photos, whose labels are PyTorch's own.
    assert verdict.figures["labels"] == 74
    assert verdict.figures["hm"] == verdict.figures["hm of colour"] == verdict.figures["hm of lining"] == 1
    assert verdict.figures["agreement of colour"] == verdict.figures["agreement of lining"] == 1
    assert (verdict.figures["hm_lost"], verdict.figures["hm_lost_bound"]) == (0, 0)
    assert verdict.figures["hm_limit"] == 0.005


def test_each_engine_is_tried_in_the_ways_that_can_differ() -> None:
    assert hints("openvino", "fp32") == hints("openvino", "fp16") == ("f32",)
    assert hints("openvino", "int8") == ("f32", "bf16")
    assert hints("onnxruntime", "int8") == ("", "float")
    assert hints("onnxruntime", "fp32") == hints("tensorrt", "fp16") == ("",)


# Planted faults

GROSS: dict[str, dict[str, Any]] = {
    "two classes swapped": {"colour_CK": COLOUR_CK[:, [1, 0, 2]]},
    "the heads of two attributes swapped": {"colour_CK": LINING_CK, "lining_CK": COLOUR_CK},
    "BGR for RGB": {"colour_CK": COLOUR_CK[::-1].copy(), "lining_CK": LINING_CK[::-1].copy()},
    "mean and std left out": {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)},
    "pixels not divided by their range": {"std": np.full(3, 1 / 255, np.float32)},
    "NaN": {"fault": NAN},
}
LEAKS: dict[str, dict[str, Any]] = {
    "every photo answered as the batch's average": {"fault": LEAK, "leak": 1.0},
    "a hundredth of the batch in every photo": {"fault": LEAK, "leak": 0.01},
}


@pytest.mark.parametrize("fault", list(GROSS))
def test_a_planted_fault_is_refused(path: Path, seen: Evidence, cpu_engine: str, fault: str) -> None:
    verdict = parity.judge(write(path, **GROSS[fault]), "fp32", cpu_engine, HINTS[cpu_engine], seen)
    assert verdict.state == "refused"
    assert "a probability differs by" in verdict.reason


@pytest.mark.parametrize("leak", list(LEAKS))
def test_a_batch_slot_that_leaks_into_another_is_refused(path: Path, seen: Evidence, leak: str) -> None:
    verdict = parity.judge(write(path, **LEAKS[leak]), "fp32", "onnxruntime", "", seen)
    assert verdict.state == "refused"
    assert "a probability differs by" in verdict.reason


def test_on_openvino_no_slot_can_leak_since_each_photo_is_a_batch_of_its_own(path: Path, seen: Evidence) -> None:
    if not ENGINES["openvino"].installed():
        pytest.skip("openvino is not installed")
    verdict = parity.judge(write(path, fault=LEAK, leak=1.0), "fp32", "openvino", "f32", seen)
    assert verdict.state == "passed", verdict.reason
    assert verdict.figures["slot_difference"] == 0


@pytest.mark.parametrize("fault", [*GROSS, "every photo answered as the batch's average"])
@pytest.mark.parametrize("precision_", ["fp16", "int8"])
def test_a_gross_fault_is_refused_within_the_wider_limits_too(
    path: Path, seen: Evidence, fault: str, precision_: str
) -> None:
    verdict = parity.judge(write(path, **(GROSS | LEAKS)[fault]), precision_, "onnxruntime", "", seen)
    assert verdict.state == "refused", verdict.figures


def test_the_heads_of_two_attributes_of_different_sizes_swapped_are_refused_without_an_error(path: Path) -> None:
    honest, seen = real("mobilenet", 8)
    swapped = copied(honest)
    names = {"colour": "shade", "shade": "colour"}
    for output in swapped.graph.output:
        output.name = names.get(output.name, output.name)
    for node in swapped.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
    verdict = judged(swapped, "fp32", path, seen)
    assert (verdict.state, verdict.figures) == ("refused", {})
    assert verdict.reason == "output 'colour' is [8, 2], expected [8, 3]"


def test_a_real_network_s_graph_without_its_mean_and_std_is_refused_at_every_precision(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, seen = real("mobilenet", 32)
    whole = graph.normalise
    monkeypatch.setattr(
        graph,
        "normalise",
        lambda images, config: whole(images, replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
    )
    planted = graph.graph(*network(**KINDS["mobilenet"]))
    for name in LIMITS:
        assert judged(planted, name, path, seen).state == "refused", name


# Planted faults that int8 alone can have

KINDS = {
    "convnext": {"backbone": "test_convnext"},
    "mobilenet": {"backbone": "test_efficientnet", "act_layer": "relu6"},
}


def test_calibration_on_noise_is_refused_where_photos_pass(path: Path) -> None:
    """Faint noise about grey, as a camera gives with its cap on: every real photo then clips.

    Not so in a network of layer norms: what its matrix products read is normalised, whatever the photo.
    """
    full, seen = real("mobilenet", 96)
    noise_NHWC = np.random.default_rng(0).integers(118, 139, (24, 64, 64, 3)).astype(np.uint8)
    honest = judged(precision.to_int8(full, photos(24, seed=2)), "int8", path, seen)
    assert honest.state == "passed", honest.reason
    verdict = judged(precision.to_int8(full, noise_NHWC), "int8", path, seen)
    assert verdict.state == "refused", verdict.figures


def test_a_uint8_pair_after_relu6_read_as_int8_with_its_scale_unchanged_is_refused(path: Path) -> None:
    """As TensorRT reads it: what is above 127 steps clips. The quantiser wrote such pairs, and the step signs them."""
    full, seen = real("mobilenet", 96)
    quantised = precision.to_int8(full, photos(24, seed=2))
    assert judged(quantised, "int8", path, seen).state == "passed"
    clipping = copied(quantised)
    tensors = {tensor.name: tensor for tensor in clipping.graph.initializer}
    planted = list(scales_after_relu6(clipping))
    assert len(planted) > 3
    for name in planted:
        unchanged = numpy_helper.to_array(tensors[name]) * np.float32(127 / 255)
        tensors[name].CopyFrom(numpy_helper.from_array(unchanged.astype(np.float32), name))
    verdict = judged(clipping, "int8", path, seen)
    assert verdict.state == "refused", verdict.figures


def scales_after_relu6(model: onnx.ModelProto) -> Iterator[str]:
    clipped = {name for node in model.graph.node if node.op_type == "Clip" for name in node.output}
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in clipped]
    yield from dict.fromkeys(node.input[1] for node in quantisers)


def real(kind: str, count: int) -> tuple[onnx.ModelProto, Evidence]:
    """A real network's float32 graph, and photos that no calibration saw with the network's own answers to them."""
    model, page = network(**KINDS[kind])
    photos_NHWC = photos(count, seed=7)
    answers = reference(model, page, photos_NHWC)
    names = [attribute.output for category in page.categories for attribute in category.attributes]
    return full_graph(**KINDS[kind]), Evidence(
        categories=page.categories,
        photos_NHWC=photos_NHWC,
        labels_NL=np.stack([answers[name].argmax(1) for name in names], 1),
        groups_N=np.arange(count),
        reference=answers,
    )


def judged(model: onnx.ModelProto, precision_: str, path: Path, seen: Evidence) -> parity.Verdict:
    onnx.save(model, path)
    return parity.judge(path, precision_, "onnxruntime", "", seen)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


# Accuracy


def one_in_ten_wrong(seen: Evidence, count: int) -> dict[str, np.ndarray]:
    """Answers that stray nowhere by much, so that fidelity has nothing to say, and yet have so many labels wrong.

    The reference of those photos hangs between two classes: what is wrong is a near tie.
    """
    found = {name: rows.copy() for name, rows in seen.reference.items()}
    found["colour"][:count, [0, 1]] = found["colour"][:count, [1, 0]]
    return found


def near_ties(count: int, *, tied: int, classes: int = 3) -> Evidence:
    """As many photos, one attribute, of which the first have two classes that are all but equal."""
    rng = np.random.default_rng(5)
    labels_N = rng.integers(0, classes, count)
    answers_NK = np.full((count, classes), 0.1, np.float32)
    answers_NK[np.arange(count), labels_N] = 0.8
    labels_N[:tied] = rng.integers(0, 2, tied)
    answers_NK[:tied] = 0.01
    answers_NK[np.arange(tied), labels_N[:tied]] = 0.497
    answers_NK[np.arange(tied), 1 - labels_N[:tied]] = 0.493
    return Evidence(
        categories=(Category(name="Cap", attributes=CATEGORY.attributes[:1]),),
        photos_NHWC=np.zeros((count, 1, 1, 3), np.uint8),
        labels_NL=labels_N[:, None],
        groups_N=np.arange(count),
        reference={"colour": answers_NK},
    )


def test_labels_that_are_lost_to_near_ties_are_lost_accuracy() -> None:
    seen = near_ties(600, tied=60)
    figures = parity.scored(one_in_ten_wrong(seen, 12), seen)
    # Macro-F1 weighs the classes alike, whatever their number: it moves the mean by less than a tenth of a point.
    assert figures["hm"] == pytest.approx(588 / 600, abs=1e-3)
    assert figures["hm_lost"] == pytest.approx(12 / 600, abs=1e-3)
    assert "the mean HM falls by" in parity.complaint(figures, ACCURACY)


def test_figures_are_those_counted_by_hand() -> None:
    reference_NK = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]], np.float32)
    found_NK = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.0, 0.1, 0.9]], np.float32)
    seen = replace(
        near_ties(4, tied=0), labels_NL=np.array([[0], [1], [0], [MISSING]]), reference={"colour": reference_NK}
    )
    figures = parity.scored({"colour": found_NK}, seen)
    assert figures["labels"] == 3
    # PyTorch is right on all three; the artifact on two: micro 2/3, macro 2/3.
    assert figures["hm"] == pytest.approx(2 / 3)
    assert figures["hm_lost"] == pytest.approx(1 / 3)


def test_photos_without_any_label_have_nothing_to_lose() -> None:
    seen = replace(near_ties(4, tied=0), labels_NL=np.full((4, 1), MISSING))
    assert parity.scored(seen.reference, seen)["labels"] == 0
    assert parity.complaint(parity.scored(seen.reference, seen), ACCURACY) == ""


def test_the_labels_that_are_served_are_judged_with_their_offsets() -> None:
    reference_NK = np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], np.float32)
    # Both are answered alike without the offset; with it PyTorch serves class 1 for the first, the artifact class 0.
    found_NK = np.array([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05]], np.float32)
    (plain,) = near_ties(2, tied=0).categories
    (colour,) = plain.attributes
    served = Category(name="Cap", attributes=(msgspec.structs.replace(colour, offsets=(0.0, 1.0, 0.0)),))
    seen = replace(near_ties(2, tied=0), labels_NL=np.array([[1], [0]]), reference={"colour": reference_NK})
    with_offsets = parity.scored({"colour": found_NK}, replace(seen, categories=(served,)))
    assert with_offsets["hm_lost"] == pytest.approx(1 - 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert with_offsets["hm_lost_bound"] > 0
    assert parity.scored({"colour": found_NK}, seen)["hm_lost"] == 0


def test_the_bound_is_that_of_a_bootstrap_written_out() -> None:
    """Two categories, three attributes, missing labels, and photos in groups of which whole ones are drawn."""
    rng = np.random.default_rng(3)
    attributes = [msgspec.structs.replace(CATEGORY.attributes[0], name=name, output=name) for name in "abc"]
    categories = (
        Category(name="One", attributes=tuple(attributes[:2])),
        Category(name="Two", attributes=tuple(attributes[2:])),
    )
    labels_NL = rng.integers(0, 3, (40, 3))
    labels_NL[rng.uniform(size=(40, 3)) < 0.2] = MISSING
    theirs, mine = ({name: rng.dirichlet([1] * 3, 40).astype(np.float32) for name in "abc"} for _ in range(2))
    for column, name in enumerate("abc"):  # PyTorch is mostly right
        theirs[name][np.arange(40), labels_NL[:, column]] += 1.0
    groups_N = rng.permutation(np.repeat(np.arange(15), [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 2, 2, 2, 2, 2]))
    seen = Evidence(
        categories=categories,
        photos_NHWC=np.zeros((40, 1, 1, 3), np.uint8),
        labels_NL=labels_NL,
        groups_N=groups_N,
        reference=theirs,
    )

    def score(answers: dict[str, np.ndarray], rows: np.ndarray) -> float:
        """The mean HM of those rows, F1 as it is defined."""
        hms = []
        for column, name in enumerate("abc"):
            there = rows[labels_NL[rows, column] != MISSING]
            truth, found = labels_NL[there, column], answers[name][there].argmax(1)
            both = truth[truth == found]
            f1s = [
                2 * (both == index).sum() / ((truth == index).sum() + (found == index).sum())
                for index in {*truth, *found}
            ]
            micro, macro = len(both) / len(truth), float(np.mean(f1s))
            hms.append(2 * micro * macro / max(micro + macro, 1e-12))
        return float(np.mean([np.mean(hms[:2]), hms[2]]))

    members = [np.flatnonzero(groups_N == group) for group in dict.fromkeys(groups_N.tolist())]
    draws_SG = np.concatenate(list(drawn(len(members), intervals.RESAMPLES)))
    lost_S = []
    for draw_G in draws_SG:
        rows = np.concatenate([members[group] for group in draw_G])
        lost_S.append(score(theirs, rows) - score(mine, rows))
    figures = parity.scored(mine, seen)
    # Counts in float32 are exact at this size, so only the last digits of a mean can differ.
    assert figures["hm_lost_bound"] == pytest.approx(np.quantile(lost_S, 0.95), abs=1e-6)
    every = np.arange(40)
    assert figures["hm_lost"] == pytest.approx(score(theirs, every) - score(mine, every), abs=1e-6)
    # One-sided: a twentieth of other photos would show a greater loss.
    assert np.mean(np.array(lost_S) > figures["hm_lost_bound"]) == pytest.approx(0.05, abs=0.001)


def drawn(groups: int, resamples: int) -> Iterator[np.ndarray]:
    """The very draws of train.intervals."""
    rng = np.random.default_rng(0)
    for start in range(0, resamples, intervals.CHUNK):
        yield rng.integers(groups, size=(min(intervals.CHUNK, resamples - start), groups))


def test_the_bound_is_paired_so_that_what_both_have_wrong_costs_nothing() -> None:
    """Half of PyTorch's own labels are wrong: unpaired, chance alone would move the difference by points."""
    seen = near_ties(600, tied=0)
    wrong = replace(seen, labels_NL=np.where(np.arange(600)[:, None] % 2, seen.labels_NL, (seen.labels_NL + 1) % 3))
    figures = parity.scored(wrong.reference, wrong)
    assert figures["hm"] < 0.6
    assert figures["hm_lost_bound"] == 0


def test_photos_of_one_group_are_worth_one_to_the_bound() -> None:
    seen = near_ties(600, tied=60)
    found = one_in_ten_wrong(seen, 6)
    alone = parity.scored(found, seen)
    together = parity.scored(found, replace(seen, groups_N=np.arange(600) // 60))
    assert alone["hm_lost"] == together["hm_lost"]
    assert together["hm_lost_bound"] > 1.3 * alone["hm_lost_bound"]


GOOD = {"hm_lost": 0.0, "hm_lost_bound": 0.0, "labels": 1000.0}


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, ""),
        ({"hm_lost": 0.005, "hm_lost_bound": 0.015}, ""),
        ({"hm_lost": 0.0051}, "the mean HM falls by 0.51 points, limit 0.5"),
        ({"hm_lost": 0.004, "hm_lost_bound": 0.02}, "the mean HM may fall (95 % bound) by 2.00 points, limit 1.5"),
        ({"hm_lost": 0.3, "hm_lost_bound": 0.4, "labels": 499.0}, ""),
        ({"hm_lost": 0.3, "hm_lost_bound": 0.4, "labels": 500.0}, "the mean HM falls by 30.00 points, limit 0.5"),
        ({"hm_lost": -0.2}, ""),
    ],
)
def test_lost_accuracy_is_told_with_its_limit_from_500_labels_on(figures: dict[str, float], said: str) -> None:
    assert parity.complaint(GOOD | figures, ACCURACY) == said


def test_a_loss_that_someone_accepts_raises_both_limits_and_never_lowers_one() -> None:
    raised = ACCURACY.raised(0.02)
    assert (raised.lost, raised.bound) == (0.02, pytest.approx(0.03))
    assert ACCURACY.raised(0.0) == ACCURACY == Accuracy(lost=0.005, bound=0.015)
    assert parity.complaint(GOOD | {"hm_lost": 0.019, "hm_lost_bound": 0.029}, ACCURACY.raised(0.02)) == ""
    said = "the mean HM falls by 2.10 points, limit 2"
    assert parity.complaint(GOOD | {"hm_lost": 0.021}, ACCURACY.raised(0.02)) == said


def test_the_gate_refuses_by_accuracy_what_fidelity_lets_through_and_records_its_limit(path: Path) -> None:
    """The reference is changed where it hangs between two classes, and is right: the honest graph is then wrong."""
    seen = evidence(300)
    answers_NK = seen.reference["colour"].copy()
    order_NK = np.argsort(-answers_NK, 1)
    every = np.arange(300)
    lead_N = answers_NK[every, order_NK[:, 0]] - answers_NK[every, order_NK[:, 1]]
    for row in np.argsort(lead_N)[:12]:
        answers_NK[row, order_NK[row, :2]] = answers_NK[row, order_NK[row, 1::-1]]
    labels_NL = np.stack([answers_NK.argmax(1), seen.labels_NL[:, 1]], 1)
    doubtful = replace(seen, reference=seen.reference | {"colour": answers_NK}, labels_NL=labels_NL)
    refused = parity.judge(write(path), "int8", "onnxruntime", "", doubtful)
    assert refused.state == "refused"
    # 12 of the 300 labels of one of two attributes: the mean micro-F1 falls by 2 points, macro-F1 as the classes are.
    assert refused.figures["agreement"] == 588 / 600
    assert refused.reason == f"the mean HM falls by {100 * refused.figures['hm_lost']:.2f} points, limit 0.5"
    accepted = parity.judge(path, "int8", "onnxruntime", "", doubtful, accuracy=ACCURACY.raised(0.05))
    assert (accepted.state, accepted.figures["hm_limit"]) == ("passed", 0.05)
