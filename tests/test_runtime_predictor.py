"""One bundle's answers are right by construction, alone and in a batch, and only what the gate allows is chosen."""

# B batch, H height, W width, C channels

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtime import images, machine
from runtime.bundle import Artifact, Bundle, Verdict, load, save
from runtime.engines import ENGINES
from runtime.errors import UserError
from runtime.files import sha256_of
from runtime.headers import PhotoError
from runtime.predictor import Predictor, choose, decide

# Float32 sums over 256 pixels, in an order that may change with the batch, differ in the seventh digit.
ROUNDING = 1e-6
RIGHT = {"red": ("red", "warm"), "green": ("green", None), "blue": ("blue", "cold")}


@pytest.fixture
def page(bundle_folder: Path) -> Bundle:
    return load(bundle_folder)


def test_every_photo_is_answered_by_its_strongest_channel(
    bundle_folder: Path, make_photo: Callable[..., Path], tmp_path: Path, cpu_engine: str
) -> None:
    photos = [make_photo(tmp_path / f"{colour}.png", colour) for colour in RIGHT]
    with Predictor.open(bundle_folder, engine=cpu_engine) as predictor:
        rows = predictor(photos)
    assert [row["colour"].label for row in rows] == list(RIGHT)
    assert (rows[0]["warmth"].label, rows[2]["warmth"].label) == ("warm", "cold")
    # Channels of 220, 30 and 30, at sharpness 8: the softmax by hand.
    odds = np.exp(8 * (220 - 30) / 255)
    assert rows[0]["colour"].confidence == pytest.approx(odds / (odds + 2), abs=ROUNDING)
    assert rows[1]["warmth"].confidence == pytest.approx(0.5, abs=ROUNDING)


def test_the_golden_photos_have_their_golden_probabilities(bundle_folder: Path, page: Bundle) -> None:
    photos = [images.decode(bundle_folder / photo.file) for photo in page.golden.photos]
    batch_BHWC = np.stack([images.fit(photo, page.preprocess) for photo in photos])
    with Predictor.open(bundle_folder) as predictor:
        probabilities = predictor.probabilities(batch_BHWC)
    for name, expected in page.golden.probabilities.items():
        assert np.abs(probabilities[name] - np.array(expected)).max() < ROUNDING


def test_paths_text_and_arrays_of_any_size_are_all_photos(
    bundle_folder: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_photo(tmp_path / "red.png", "red")
    large_HWC = np.full((300, 200, 3), (220, 30, 30), np.uint8)
    with Predictor.open(str(bundle_folder), threads=1) as predictor:
        rows = predictor([path, str(path), large_HWC, large_HWC[:16, :16], images.decode(path)[::-1, ::-1]])
    assert rows == [rows[0]] * 5
    assert rows[0]["colour"].label == "red"


def test_no_photos_give_no_rows(bundle_folder: Path) -> None:
    with Predictor.open(bundle_folder) as predictor:
        assert predictor([]) == []


def test_a_photo_that_cannot_be_read_is_refused_by_its_reason(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with Predictor.open(bundle_folder) as predictor, pytest.raises(PhotoError, match="the file is empty"):
        predictor([tmp_path / "empty.jpg"])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((16, 16, 3), np.float32),
        np.zeros((16, 16), np.uint8),
        np.zeros((16, 16, 4), np.uint8),
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros((0, 16, 3), np.uint8),
    ],
    ids=["floats", "grey", "with alpha", "a batch", "no pixels"],
)
def test_an_array_that_is_no_rgb_photo_is_refused_on_every_engine(
    bundle_folder: Path, image: np.ndarray, cpu_engine: str
) -> None:
    seen = re.escape(f"{image.dtype} {list(image.shape)}")
    with (
        Predictor.open(bundle_folder, engine=cpu_engine) as predictor,
        pytest.raises(UserError, match=rf"must be uint8 RGB \[H, W, 3\], got {seen}$"),
    ):
        predictor([image])


def test_a_photo_alone_is_answered_as_in_every_slot_of_a_batch(bundle_folder: Path, cpu_engine: str) -> None:
    rng = np.random.default_rng(0)
    # One colour a photo: noise has the same mean in every slot, and slots mixed up would go unseen.
    photos_BHWC = np.tile(rng.integers(0, 256, (7, 1, 1, 3), dtype=np.uint8), (1, 16, 16, 1))
    with Predictor.open(bundle_folder, engine=cpu_engine) as predictor:
        alone = [predictor.probabilities(photos_BHWC[index : index + 1]) for index in range(7)]
        for batch in (2, 3, 7):
            together = predictor.probabilities(photos_BHWC[:batch])
            for name in together:
                gaps = [np.abs(together[name][slot] - alone[slot][name][0]).max() for slot in range(batch)]
                assert max(gaps) < ROUNDING, f"{name} at batch {batch}: largest difference {max(gaps)}"


@pytest.mark.parametrize("streams", [1, 2])
def test_threads_may_share_a_predictor(bundle_folder: Path, cpu_engine: str, streams: int) -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)] * 20
    photos = [np.full((16, 16, 3), colour, np.uint8) for colour in colours]
    with (
        Predictor.open(bundle_folder, engine=cpu_engine, streams=streams) as predictor,
        ThreadPoolExecutor(5) as threads,
    ):
        found = [answers[0]["colour"].label for answers in threads.map(lambda photo: predictor([photo]), photos)]
    assert found == ["red", "green", "blue"] * 20


def test_a_predictor_may_be_left_twice_and_entered_again(bundle_folder: Path) -> None:
    predictor = Predictor.open(bundle_folder)
    image_HWC = np.full((16, 16, 3), (0, 0, 200), np.uint8)
    for _ in range(2):
        with predictor:
            assert predictor([image_HWC])[0]["colour"].label == "blue"
        predictor.__exit__(None, None, None)


def test_outside_of_with_a_predictor_says_so(bundle_folder: Path, cpu_engine: str) -> None:
    predictor = Predictor.open(bundle_folder, engine=cpu_engine)
    image_HWC = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match=r"^the predictor is not open\nuse it inside of: with "):
        predictor([image_HWC])
    with predictor:
        predictor([image_HWC])
    with pytest.raises(UserError, match=r"^the predictor is not open\n"):
        predictor([image_HWC])


@pytest.mark.parametrize("streams", [1, 2])
def test_leaving_a_predictor_waits_for_the_threads_that_it_answers(
    bundle_folder: Path, cpu_engine: str, streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.open(bundle_folder, engine=cpu_engine, streams=streams)
    inside, infer = threading.Event(), predictor._engine.infer

    def slowly(images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        inside.set()
        time.sleep(0.2)
        return infer(images_BHWC)

    monkeypatch.setattr(predictor._engine, "infer", slowly)
    with ThreadPoolExecutor(1) as threads:
        with predictor:
            answer = threads.submit(predictor, [np.full((16, 16, 3), (0, 0, 200), np.uint8)])
            assert inside.wait(20)
        assert answer.result()[0]["colour"].label == "blue"


@pytest.mark.parametrize("options", [{"streams": 0}, {"streams": 2.5}, {"threads": -1}, {"threads": 10**6}])
def test_a_number_of_threads_that_no_machine_has_is_refused(bundle_folder: Path, options: dict[str, int]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=rf"^{name} must be a whole number from 1 to \d+, got {value}$"):
        Predictor.open(bundle_folder, **options)  # type: ignore[arg-type]


def test_what_is_no_list_of_photos_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    with Predictor.open(bundle_folder) as predictor:
        for photo in ("a.jpg", tmp_path / "a.jpg"):
            with pytest.raises(UserError, match=r"^photos are given as a list, got .+\npass it as: \['.*a\.jpg'\]$"):
                predictor(photo)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"^top_k must be a whole number, 1 or more, got 0$"):
            predictor([], top_k=0)


@pytest.mark.parametrize("what", ["an output less", "a class more", "no number"])
def test_a_graph_that_does_not_fit_its_page_is_told_and_answers_nothing(
    bundle_folder: Path, make_graph: Callable[..., Path], tmp_path: Path, cpu_engine: str, what: str
) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "shirt"))
    page = load(folder)
    made = {attribute.output: dict.fromkeys(attribute.classes, "R") for attribute in page.categories[0].attributes}
    if what == "an output less":
        made.popitem()
    if what == "a class more":
        made["colour"]["more"] = "B"
    graph = make_graph(folder / "new.onnx", made)
    if what == "no number":
        model = onnx.load(graph)
        (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight_0")
        weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
        onnx.save(model, graph)
    artifact = msgspec.structs.replace(
        page.artifacts[0], file=graph.name, sha256=sha256_of(graph), bytes=graph.stat().st_size
    )
    save(folder, msgspec.structs.replace(page, artifacts=(artifact,)))
    said = {
        "an output less": "has no output 'warmth', which its page names",
        "a class more": r"answers colour with \[1, 4\] where its page has 3 classes",
        "no number": "answers colour with what is no number",
    }
    refused = rf"^new\.onnx of bundle 'shirt' {said[what]}\nrebuild it with: "
    with Predictor.open(folder, engine=cpu_engine) as predictor, pytest.raises(UserError, match=refused):
        predictor([np.zeros((16, 16, 3), np.uint8)])


@pytest.mark.parametrize("photos", [None, 5, [None], [5], b"a.jpg"])
def test_what_is_no_photo_is_refused(bundle_folder: Path, photos: object) -> None:
    with Predictor.open(bundle_folder) as predictor, pytest.raises(UserError, match=r" given as .+, got "):
        predictor(photos)  # type: ignore[arg-type]


def test_of_several_photos_the_one_that_cannot_be_read_is_named(
    bundle_folder: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    good = make_photo(tmp_path / "red.png", "red")
    with (
        Predictor.open(bundle_folder) as predictor,
        pytest.raises(PhotoError, match=rf"^{tmp_path}/gone\.jpg: cannot be opened: No such file or directory$"),
    ):
        predictor([good, tmp_path / "gone.jpg"])


def test_what_a_library_says_went_wrong_is_told_without_where_in_its_source(
    broken_folder: Path, cpu_engine: str
) -> None:
    with pytest.raises(UserError) as refused, Predictor.open(broken_folder, engine=cpu_engine):
        pytest.fail("it was opened")
    said, remedy = str(refused.value).split("\n")
    assert said.startswith(f"{cpu_engine} cannot open ")
    assert "Exception from" not in said and len(said.split(": ", 1)[1]) > 10
    assert "export.build" in remedy


def test_offsets_move_the_choice_and_never_the_probability(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    colours = {"blue": "B", "red": "R"}
    # Grey makes both equally likely; e^0.1 then decides for the second.
    folder = make_bundle(tmp_path, "Sock", {"colour": colours}, offsets={"colour": (0.0, 0.1)})
    with Predictor.open(folder) as predictor:
        grey, blue = predictor([np.full((16, 16, 3), colour, np.uint8) for colour in ((90, 90, 90), (90, 90, 110))])
    assert (grey["colour"].label, blue["colour"].label) == ("red", "blue")
    assert grey["colour"].confidence == pytest.approx(0.5, abs=ROUNDING)
    assert blue["colour"].confidence > 0.5


def test_decide_gives_the_class_after_offsets_and_its_own_probability() -> None:
    # Sums of powers of two, which float32 holds exactly.
    probabilities_BK = np.array([[0.625, 0.25, 0.125], [0.125, 0.25, 0.625], [1.0, 0.0, 0.0]], np.float32)
    assert decide(probabilities_BK) == [(0, 0.625), (2, 0.625), (0, 1.0)]
    # log 0.625 - log 0.25 is 0.92: an offset of 1 turns it, but no certainty.
    assert decide(probabilities_BK, (0.0, 1.0, 0.0)) == [(1, 0.25), (1, 0.25), (0, 1.0)]
    assert decide(probabilities_BK[:0]) == []


def test_a_changed_graph_is_refused_before_any_engine_sees_it(bundle_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "shirt"))
    (graph,) = folder.glob("model.*")
    graph.write_bytes(graph.read_bytes() + b"\x00")
    with pytest.raises(UserError, match=rf"{graph.name} was changed after it was built"):
        Predictor.open(folder)


@pytest.mark.parametrize("category", ["T-Shirt", "t-shirt"])
def test_of_a_joint_bundle_the_category_asked_for_answers_alone(
    joint_folder: Path, make_photo: Callable[..., Path], tmp_path: Path, category: str, cpu_engine: str
) -> None:
    photos = [make_photo(tmp_path / f"{colour}.png", colour) for colour in RIGHT]
    with Predictor.open(joint_folder, engine=cpu_engine) as predictor:
        rows = predictor(photos, category)
        assert predictor.answers(np.stack([images.decode(photo)[:16, :16] for photo in photos]), category) == rows
        boots = predictor(photos, category="Boot")
    assert [list(row) for row in rows] == [["neck", "colour"]] * 3
    assert [row["colour"].label for row in rows] == list(RIGHT)
    # Both have a colour, with classes of their own.
    assert [list(row) for row in boots] == [["colour", "sole"]] * 3
    assert (boots[0]["colour"].label, boots[2]["colour"].label) == ("oxblood", "navy")


@pytest.mark.parametrize(
    ("category", "wrong"), [(None, "serves several categories"), ("Saree", "serves no category 'Saree'")]
)
def test_of_a_joint_bundle_a_category_that_is_unclear_is_answered_with_those_it_has(
    joint_folder: Path, category: str | None, wrong: str
) -> None:
    asked = rf"^bundle 'everything' {wrong}\ngive category=NAME, one of: Router, Boot, T-Shirt$"
    with Predictor.open(joint_folder) as predictor:
        with pytest.raises(UserError, match=asked):
            predictor([], category)
        with pytest.raises(UserError, match=asked):
            predictor.answers(np.zeros((1, 16, 16, 3), np.uint8), category)


def test_a_bundle_s_only_category_may_be_asked_for_and_no_other(bundle_folder: Path) -> None:
    image_HWC = np.full((16, 16, 3), (0, 0, 200), np.uint8)
    with Predictor.open(bundle_folder) as predictor:
        assert predictor([image_HWC], "shirt") == predictor([image_HWC])
        with pytest.raises(UserError, match=r"'shirt' serves no category 'Boot'\n.* one of: Shirt$"):
            predictor([image_HWC], "Boot")


def test_of_a_joint_bundle_offsets_move_the_choice_of_their_own_category_alone(
    make_joint: Callable[..., Path], tmp_path: Path
) -> None:
    colours = {"colour": {"blue": "B", "red": "R"}}
    offsets = {"Sock/colour": (0.0, 0.1)}
    folder = make_joint(tmp_path / "both", {"Shoe": colours, "Sock": colours}, offsets=offsets)
    grey_HWC = np.full((16, 16, 3), (90, 90, 90), np.uint8)
    with Predictor.open(folder) as predictor:
        found = {name: predictor([grey_HWC], name)[0]["colour"] for name in ("Shoe", "Sock")}
    assert {name: answer.label for name, answer in found.items()} == {"Shoe": "blue", "Sock": "red"}


def test_outputs_are_found_by_names_with_spaces_and_slashes_on_every_engine(
    make_joint: Callable[..., Path], tmp_path: Path, cpu_engine: str
) -> None:
    colours = {"print or pattern/type": {"blue": "B", "red": "R"}}
    folder = make_joint(tmp_path / "both", {"Women Tops & Tunics": colours, "Men Tshirts": colours})
    with Predictor.open(folder, engine=cpu_engine) as predictor:
        (row,) = predictor([np.full((16, 16, 3), (200, 0, 0), np.uint8)], "women-tops-tunics")
    assert row["print or pattern/type"].label == "red"


def with_artifacts(page: Bundle, *artifacts: tuple[str, Sequence[Verdict]]) -> Bundle:
    """The page with these artifacts, each a precision and its verdicts."""
    return msgspec.structs.replace(
        page,
        artifacts=tuple(
            Artifact(
                file=f"model.{precision}.{index}",
                sha256="0" * 64,
                bytes=1,
                precision=precision,
                engines=tuple(verdict.engine for verdict in verdicts),
                built_with={},
                verdicts=tuple(verdicts),
            )
            for index, (precision, verdicts) in enumerate(artifacts)
        ),
    )


def passed(engine: str, images_per_s: float | None = None, hint: str = "") -> Verdict:
    return Verdict(engine=engine, hint=hint, state="passed", images_per_s=images_per_s)


def unrun(engine: str) -> Verdict:
    return Verdict(engine=engine, state="unrun", reason="not installed where it was built")


def refused(engine: str) -> Verdict:
    return Verdict(
        engine=engine, state="refused", reason="a probability differs by 0.4, limit 0.02", images_per_s=900.0
    )


def test_auto_chooses_the_fastest_of_the_first_engine_that_passed(page: Bundle) -> None:
    page = with_artifacts(
        page,
        ("fp32", [passed("onnxruntime", 30.0), passed("openvino", 90.0)]),
        ("int8", [passed("onnxruntime", 20.0), passed("onnxruntime", 40.0, "float"), refused("openvino")]),
    )
    choice = choose(page, engine="auto", precision=None)
    assert (choice.engine, choice.artifact.precision, choice.verdict.hint) == ("onnxruntime", "int8", "float")
    assert choose(page, engine="auto", precision="fp32").artifact.precision == "fp32"


def test_an_engine_asked_for_by_name_gets_the_fastest_that_passed_on_it(page: Bundle, cpu_engine: str) -> None:
    tried = [
        ("fp32", [passed(cpu_engine, 30.0)]),
        ("int8", [refused(cpu_engine)]),
        ("fp16", [passed(cpu_engine, 60.0)]),
    ]
    page = with_artifacts(page, *tried)
    choice = choose(page, engine=cpu_engine, precision=None)
    assert (choice.engine, choice.artifact.precision) == (cpu_engine, "fp16")


def test_artifacts_never_timed_are_chosen_in_the_usual_order_of_speed(
    page: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "saturates_int8", lambda: False)
    graphs = [(precision, [passed("onnxruntime")]) for precision in ("fp16", "fp32", "int8")]
    assert choose(with_artifacts(page, *graphs), engine="auto", precision=None).artifact.precision == "int8"
    assert choose(with_artifacts(page, *graphs[:2]), engine="auto", precision=None).artifact.precision == "fp32"


def test_int8_kernels_that_saturate_here_give_way_to_float_unless_they_are_all_there_is(
    page: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = with_artifacts(page, ("int8", [passed("onnxruntime", 90.0), passed("onnxruntime", 40.0, "float")]))
    alone = with_artifacts(page, ("int8", [passed("onnxruntime", 90.0)]))
    monkeypatch.setattr(machine, "saturates_int8", lambda: False)
    assert choose(both, engine="auto", precision=None).verdict.hint == ""
    monkeypatch.setattr(machine, "saturates_int8", lambda: True)
    assert choose(both, engine="auto", precision=None).verdict.hint == "float"
    assert choose(alone, engine="auto", precision=None).verdict.hint == ""
    precisions = with_artifacts(page, ("int8", [passed("onnxruntime", 90.0)]), ("fp32", [passed("onnxruntime", 40.0)]))
    assert choose(precisions, engine="auto", precision=None).artifact.precision == "fp32"
    assert choose(precisions, engine="auto", precision="int8").artifact.precision == "int8"


@pytest.mark.parametrize(
    ("kind", "instructions", "saturates"),
    [
        ("x86_64", ("avx2",), True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("AMD64", ("avx2", "avx_vnni"), False),
        ("aarch64", ("asimddp",), False),
    ],
)
def test_x86_saturates_int8_before_vnni(
    monkeypatch: pytest.MonkeyPatch, kind: str, instructions: tuple[str, ...], saturates: bool
) -> None:
    processor = machine.Processor(name="any", cores=2, instructions=instructions)
    monkeypatch.setattr(machine, "processor", lambda: processor)
    monkeypatch.setattr("platform.machine", lambda: kind)
    assert machine.saturates_int8() == saturates


@pytest.mark.skipif(not ENGINES["openvino"].installed(), reason="openvino is not installed")
def test_what_this_processor_does_not_compute_in_is_not_chosen(page: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.engines import ov

    page = with_artifacts(page, ("int8", [passed("openvino", 60.0, "f32"), passed("openvino", 90.0, "bf16")]))
    best = "bf16" if ov.computes_in("bf16") else "f32"
    assert choose(page, engine="openvino", precision=None).verdict.hint == best
    monkeypatch.setattr(ov, "computes_in", lambda hint: hint != "bf16")
    assert choose(page, engine="openvino", precision=None).verdict.hint == "f32"


def test_what_no_gate_has_run_is_chosen_only_for_an_engine_asked_for_by_name(page: Bundle) -> None:
    page = with_artifacts(page, ("fp32", [unrun("onnxruntime")]))
    with pytest.raises(
        UserError, match=r"no passed artifact in bundle 'shirt'; it has: fp32 on onnxruntime \(unrun\)\n"
    ):
        choose(page, engine="auto", precision=None)
    assert choose(page, engine="onnxruntime", precision=None).verdict.state == "unrun"


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_what_the_gate_refused_is_never_chosen(page: Bundle, engine: str) -> None:
    page = with_artifacts(page, ("int8", [refused("onnxruntime")]), ("fp32", [passed("onnxruntime", 1.0)]))
    assert choose(page, engine=engine, precision=None).artifact.precision == "fp32"
    with pytest.raises(UserError, match=r"it has: int8 on onnxruntime \(refused\), fp32 on onnxruntime \(passed\)\n"):
        choose(page, engine=engine, precision="int8")


@pytest.mark.parametrize(
    ("engine", "precision", "wanted"),
    [
        ("auto", "int8", "no int8 artifact in bundle 'shirt'"),
        ("onnxruntime", "int8", "no int8 artifact for onnxruntime in bundle 'shirt'"),
        ("onnxruntime", None, "no passed artifact for onnxruntime in bundle 'shirt'"),
    ],
)
def test_a_precision_or_engine_that_is_not_there_is_answered_with_those_that_are_and_the_build_line(
    page: Bundle, engine: str, precision: str | None, wanted: str
) -> None:
    page = with_artifacts(page, ("fp32", [refused("onnxruntime")]), ("fp16", [refused("onnxruntime")]))
    held = r"it has: fp32 on onnxruntime \(refused\), fp16 on onnxruntime \(refused\)"
    build = (
        rf"build one with: python -m export\.build --precision {precision or 'fp16'} --category shirt --out bundles$"
    )
    with pytest.raises(UserError, match=rf"^{wanted}; {held}\n{build}"):
        choose(page, engine=engine, precision=precision)


def test_a_bundle_without_artifacts_says_so(page: Bundle) -> None:
    with pytest.raises(UserError, match=r"it has: none\nbuild one with: python -m export\.build"):
        choose(with_artifacts(page), engine="auto", precision=None)


def test_an_engine_that_is_not_installed_is_answered_with_its_install_line(bundle_folder: Path) -> None:
    missing = [name for name, kind in ENGINES.items() if not kind.installed()]
    if not missing:
        pytest.skip("every engine is installed here")
    install = ENGINES[missing[0]].install
    with pytest.raises(UserError, match=rf"engine '{missing[0]}' is not installed\ninstall it with: {install}$"):
        Predictor.open(bundle_folder, engine=missing[0])


def test_an_engine_that_nobody_knows_is_answered_with_those_that_are_known(bundle_folder: Path) -> None:
    with pytest.raises(UserError, match=r"no engine 'abacus'; have: onnxruntime, openvino, tensorrt-rtx, tensorrt$"):
        Predictor.open(bundle_folder, engine="abacus")
