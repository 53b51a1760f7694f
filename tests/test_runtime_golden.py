"""Golden photos: what a bundle's own photos say of its artifacts, on any machine, without torch or data."""

# N photos, K classes

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest

from runtime import bundle, fidelity, files, golden
from runtime.bundle import Artifact, Bundle, Verdict
from runtime.engines.cuda import why_no_gpu
from runtime.errors import UserError
from runtime.fidelity import LIMITS

HINTS = {"onnxruntime": "", "openvino": "f32"}
HONEST = {"colour": {"blue": "B", "green": "G", "red": "R"}, "warmth": {"cold": "B", "warm": "R"}}


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle to change: Shirt, three golden photos, one graph."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundles" / bundle_folder.name))


def check(folder: Path, engine: str = "onnxruntime") -> Verdict:
    page = bundle.load(folder)
    return golden.check(folder, page, page.artifacts[0], engine, HINTS.get(engine, ""))


def changed(folder: Path, **changes: object) -> Path:
    """The bundle with its page changed and saved."""
    bundle.save(folder, msgspec.structs.replace(bundle.load(folder), **changes))
    return folder


def with_graph(folder: Path, graph: Path, precision: str = "fp32") -> Path:
    """The bundle with another graph, as a build would have named it."""
    sha256 = files.sha256_of(graph)
    graph = graph.rename(folder / f"model.{precision}.{sha256[:8]}.onnx")
    (before,) = bundle.load(folder).artifacts
    artifact = msgspec.structs.replace(
        before, file=graph.name, sha256=sha256, bytes=graph.stat().st_size, precision=precision
    )
    return changed(folder, artifacts=(artifact,))


def test_a_bundle_s_own_graph_passes_with_its_figures(folder: Path, cpu_engine: str) -> None:
    verdict = check(folder, cpu_engine)
    assert (verdict.engine, verdict.hint) == (cpu_engine, HINTS[cpu_engine])
    assert (verdict.state, verdict.reason) == ("passed", "")
    # Means of 256 pixels in float32, times eight.
    assert verdict.figures["probability_difference"] < 1e-5
    assert verdict.figures["slot_difference"] < 1e-5
    assert (verdict.figures["agreement"], verdict.figures["golden_photos"]) == (1, 3)
    assert verdict.images_per_s


def test_a_joint_bundle_is_checked_in_every_category(joint_folder: Path) -> None:
    assert check(joint_folder).state == "passed"


def test_the_shipped_bundles_pass() -> None:
    root = Path(__file__).resolve().parent.parent / "examples" / "bundles"
    for folder in bundle.find(root).values():
        page = bundle.load(folder)
        verdict = golden.check(folder, page, page.artifacts[0], "onnxruntime")
        assert verdict.state == "passed", f"{folder}: {verdict.reason}"


def test_golden_answers_kept_to_six_digits_move_nothing_near_the_narrowest_limit(folder: Path) -> None:
    kept = bundle.load(folder).golden
    rounded = {
        name: tuple(tuple(round(value, 6) for value in row) for row in rows)
        for name, rows in kept.probabilities.items()
    }
    changed(folder, golden=msgspec.structs.replace(kept, probabilities=rounded))
    verdict = check(folder)
    assert verdict.state == "passed"
    # Half of the last digit, and a rounding of float32.
    assert verdict.figures["probability_difference"] < 0.5e-6 + 1e-6 < LIMITS["fp32"].probability / 50


WRONG = {
    "two classes swapped": HONEST | {"colour": {"blue": "G", "green": "B", "red": "R"}},
    "BGR for RGB": {"colour": {"blue": "R", "green": "G", "red": "B"}, "warmth": {"cold": "R", "warm": "B"}},
}


@pytest.mark.parametrize("precision", list(LIMITS))
@pytest.mark.parametrize("fault", list(WRONG))
def test_a_graph_that_answers_wrongly_is_refused(
    folder: Path, make_graph: Callable[..., Path], cpu_engine: str, precision: str, fault: str
) -> None:
    with_graph(folder, make_graph(folder / "new.onnx", WRONG[fault]), precision)
    verdict = check(folder, cpu_engine)
    assert verdict.state == "refused"
    assert verdict.reason.startswith("a probability differs by ")


def test_a_graph_of_another_taxonomy_is_refused(folder: Path, make_graph: Callable[..., Path]) -> None:
    four = {"blue": "B", "green": "G", "red": "R", "pink": "R"}
    with_graph(folder, make_graph(folder / "new.onnx", HONEST | {"colour": four}))
    assert check(folder).reason == "output 'colour' is [3, 4], expected [3, 3]"
    with_graph(folder, make_graph(folder / "new.onnx", {"warmth": HONEST["warmth"]}))
    assert check(folder).reason == "output 'colour' is missing, expected [3, 3]"


def test_a_graph_of_another_size_is_refused(folder: Path, make_graph: Callable[..., Path], cpu_engine: str) -> None:
    with_graph(folder, make_graph(folder / "new.onnx", HONEST, side=24))
    verdict = check(folder, cpu_engine)
    assert verdict.state == "refused"
    assert verdict.reason.startswith("cannot be run: ")


def test_photos_that_leak_between_slots_are_refused(folder: Path, make_graph: Callable[..., Path]) -> None:
    """Half of each photo's features are those of its batch: near enough by int8's limit on probabilities alone."""

    path = make_graph(folder / "new.onnx", HONEST)
    model = onnx.load(path)
    (mean,) = (node for node in model.graph.node if node.op_type == "ReduceMean")
    mean.output[0] = "own"
    whole = onnx.helper.make_node("ReduceMean", ["own", "batch_axis"], ["whole"], keepdims=1)
    half = onnx.helper.make_node("Mean", ["own", "whole"], ["features"])
    at = list(model.graph.node).index(mean) + 1
    for node in (half, whole):
        model.graph.node.insert(at, node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "batch_axis"))
    onnx.save(model, path)
    with_graph(folder, path, "int8")
    verdict = check(folder)
    assert verdict.figures["probability_difference"] < LIMITS["int8"].probability
    assert verdict.state == "refused"
    assert verdict.reason.endswith("between batch slots, limit 0.05")


# What cannot be tried


def plan(**changes: object) -> Artifact:
    made = Artifact(
        file="model.fp16.sm89.00c0ffee.plan",
        sha256="",
        bytes=6,
        precision="fp16",
        target="sm89",
        engines=("tensorrt-rtx",),
        built_with={},
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def with_plan(folder: Path) -> Callable[..., tuple[Bundle, Artifact]]:
    """Adds what is called a plan to the bundle, and gives its page and the plan."""

    def add(**changes: object) -> tuple[Bundle, Artifact]:
        path = folder / "model.fp16.sm89.00c0ffee.plan"
        path.write_bytes(b"a plan")
        artifact = plan(sha256=files.sha256_of(path), **changes)
        changed(folder, artifacts=(*bundle.load(folder).artifacts, artifact))
        return bundle.load(folder), artifact

    return add


def test_a_plan_without_its_gpu_is_unrun_with_the_reason(
    folder: Path, with_plan: Callable[..., tuple[Bundle, Artifact]]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    verdict = golden.check(folder, *with_plan(), "tensorrt-rtx")
    assert (verdict.state, verdict.figures) == ("unrun", {})
    assert "no NVIDIA driver" in verdict.reason


def test_a_plan_of_another_version_or_gpu_is_unrun_before_anything_opens_it(
    folder: Path, with_plan: Callable[..., tuple[Bundle, Artifact]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setattr("runtime.plans.gpu_here", lambda: "sm120")
    page, artifact = with_plan()
    verdict = golden.check(folder, page, artifact, "tensorrt-rtx")
    assert (verdict.state, verdict.reason) == ("unrun", "built for a GPU of kind sm89, here is sm120")
    older = msgspec.structs.replace(artifact, built_with={"tensorrt-rtx": "1.0.0"})
    reason = golden.check(folder, page, older, "tensorrt-rtx").reason
    assert reason == f"built with tensorrt-rtx 1.0.0, here is {trt.__version__}"


# What is damaged


@pytest.mark.parametrize("pattern", ["model.*", "golden/red.png"])
def test_a_file_that_was_changed_is_named_before_anything_opens_it(folder: Path, pattern: str) -> None:
    (path,) = folder.glob(pattern)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match=rf"{path.name} was changed after it was built: [\s\S]*\nrebuild it with: "):
        check(folder)


def test_a_golden_photo_that_this_machine_cannot_decode_is_named(folder: Path) -> None:
    """As where OpenCV was built without its format: its bytes are as they were."""
    (folder / "golden" / "red.png").write_bytes(b"a format of its own")
    kept = bundle.load(folder).golden
    photos = tuple(msgspec.structs.replace(photo, sha256=files.sha256_of(folder / photo.file)) for photo in kept.photos)
    changed(folder, golden=msgspec.structs.replace(kept, photos=photos))
    with pytest.raises(UserError, match=r"golden photo \S+red\.png: not an image[\s\S]*\nrebuild it with: python -m"):
        check(folder)


def test_a_bundle_without_golden_photos_says_so(folder: Path) -> None:
    kept = bundle.load(folder).golden
    changed(folder, golden=msgspec.structs.replace(kept, photos=(), probabilities={}))
    with pytest.raises(UserError, match=r"shirt has no golden photos to check it by\nrebuild it with: python -m"):
        check(folder)


# Few labels


@pytest.mark.parametrize(
    ("precision", "labels", "changed"),
    [("fp32", 8, 1), ("fp32", 16, 1), ("fp16", 16, 2), ("int8", 16, 6), ("int8", 80, 20), ("fp32", 336, 2)],
)
def test_a_few_labels_may_change_as_chance_would_have_it(precision: str, labels: int, changed: int) -> None:
    """Against draws: at the limit's own rate, more than so many change once in a hundred times or less."""
    limits = LIMITS[precision]
    few = golden._for_few(limits, labels)
    # To the last digit: what is allowed must not be refused.
    stayed = np.arange(labels) >= changed
    assert few.agreement == np.mean(stayed)
    assert (few.probability, few.slot) == (limits.probability, limits.slot)
    drawn = np.random.default_rng(0).binomial(labels, 1 - limits.agreement, 100_000)
    # 0.1 points: thrice the deviation of a share of 0.01 in so many draws.
    assert (drawn > changed).mean() <= 0.01 + 0.001


def test_a_label_that_hangs_on_the_last_digit_refuses_nothing(folder: Path) -> None:
    """Grey: three colours are equally likely but for the digits that are not kept."""
    grey_HWC = np.full((24, 20, 3), 120, np.uint8)
    photos, probabilities = [], {"colour": [], "warmth": []}
    for index in range(4):
        path = folder / "golden" / f"grey{index}.png"
        cv2.imwrite(str(path), grey_HWC if index else np.full((24, 20, 3), (30, 30, 220), np.uint8))
        photos.append(bundle.GoldenPhoto(file=f"golden/{path.name}", sha256=files.sha256_of(path)))
    page = bundle.load(folder)
    with fidelity.open_engine("onnxruntime", folder / page.artifacts[0].file, fidelity.EngineOptions()) as engine:
        answers = engine.infer(np.stack([np.full((16, 16, 3), (220, 30, 30), np.uint8)] + 3 * [grey_HWC[:16, :16]]))
    for name, rows_NK in (("colour", answers["colour"]), ("warmth", answers["warmth"])):
        probabilities[name] = [tuple(map(float, row)) for row in rows_NK]
    # One label turned by the smallest step there is.
    probabilities["warmth"][1] = (0.499999, 0.500001)
    kept = bundle.Golden(
        photos=tuple(photos), probabilities={name: tuple(rows) for name, rows in probabilities.items()}
    )
    changed(folder, golden=kept)
    verdict = check(folder)
    assert (verdict.state, verdict.figures["agreement"]) == ("passed", 7 / 8)
