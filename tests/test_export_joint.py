"""From photos of two categories to predictions: one bundle for both and their router, a bundle each, a router alone."""

# N photos

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import build, evidence, offers, precision
from runtime import bundle, images, inputs, predict
from runtime.bundle import Routes
from runtime.engines import ENGINES, EngineOptions, open_engine
from runtime.errors import UserError
from runtime.fidelity import LIMITS
from runtime.predictor import Predictor
from tests.train_parts import CATEGORY, TOPS, write_csv, write_two
from train import checkpoint, fit

OUTPUTS = [
    "Router/Category",
    "Cap/colour",
    "Cap/shade",
    "Women Tops & Tunics/colour",
    "Women Tops & Tunics/print or pattern",
]
ROUTES = Routes(attribute="Category", to={"Cap": "Cap", TOPS.name: TOPS.name})
TEMPERATURES = {"Router/Category": 0.7, "Cap/colour": 1.5, f"{TOPS.name}/print or pattern": 0.8}


pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two(tmp_path_factory.mktemp("two") / "data")


@pytest.fixture(scope="module")
def checkpoints(photos: Path) -> Path:
    """Holds `joint`, with temperatures that so few labels fit none of, and `router`. Not to be changed."""
    out = photos.parent / "checkpoints"
    for option in ("--joint", "--router"):
        # Of five seeds four learn every label of these few photos; with 0 one photo in ten stays wrong.
        options = ["--data", str(photos), "--preset", "tiny", "--out", str(out), "--seed", "1", "--quiet"]
        assert fit.main([*options, option]) == 0
    page = out / "joint" / checkpoint.PAGE
    page.write_text(json.dumps(json.loads(page.read_text()) | {"temperatures": TEMPERATURES}))
    return out


def run(checkpoints: Path, out: Path, *options: str) -> int:
    return build.main(["--checkpoints", str(checkpoints), "--out", str(out), "--quiet", *options])


@pytest.fixture(scope="module")
def joint(checkpoints: Path, photos: Path) -> Path:
    """The bundle that answers for all, and a plan in it where tensorrt-rtx is installed. Not to be changed."""
    out = photos.parent / "joint"
    assert run(checkpoints / "joint", out, "--precision", "fp32", "fp16") == 0
    return out / "joint"


@pytest.fixture(scope="module")
def apart(checkpoints: Path, photos: Path) -> Path:
    """Holds a bundle for each category and the router. Not to be changed."""
    out = photos.parent / "apart"
    assert run(checkpoints / "joint", out, "--precision", "fp32", "--split") == 0
    return out


def predicted(bundles: Path, photos: Path, *options: str) -> list[dict[str, str]]:
    """The rows that the command writes for every photo of the data."""
    out = photos.parent / f"{bundles.parent.name}-{bundles.name}.csv"
    folder = photos / "train_images"
    assert predict.main([str(folder), "--bundles", str(bundles), "--out", str(out), "--quiet", *options]) == 0
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def right(rows: list[dict[str, str]], photos: Path) -> float:
    """The share of categories and labels that are as typed; a category's wrong labels count where it is wrong."""
    with (photos / "train.csv").open(newline="") as file:
        typed = list(csv.DictReader(file))
    assert [Path(row["image"]).stem for row in rows] == [f"{int(row['id']):06d}" for row in typed]
    hits = []
    for row, truth in zip(rows, typed, strict=True):
        category = CATEGORY if truth["Category"] == CATEGORY.name else TOPS
        hits.append(row["category"] == category.name)
        hits += [
            row[attribute.name] == truth[f"attr_{index}"]
            for index, attribute in enumerate(category.attributes, 1)
            if truth[f"attr_{index}"]
        ]
    return sum(hits) / len(hits)


# One bundle for all


def test_a_joint_bundle_serves_every_category_and_routes_among_them(joint: Path, checkpoints: Path) -> None:
    page = bundle.verify(joint)
    assert (page.slug, page.routes) == ("joint", ROUTES)
    assert page.categories == checkpoint.read(checkpoints / "joint").categories
    assert [category.name for category in page.products] == ["Cap", TOPS.name]
    assert [a.output for category in page.categories for a in category.attributes] == OUTPUTS
    assert list(page.golden.probabilities) == OUTPUTS


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_slashes_spaces_and_ampersands_in_names_pass_the_gate_on_every_engine(joint: Path, kind: str) -> None:
    (artifact,) = [a for a in bundle.load(joint).artifacts if (a.precision, a.target) == (kind, "")]
    assert [output.name for output in onnx.load(joint / artifact.file).graph.output] == [*OUTPUTS, "features"]
    for verdict in artifact.verdicts:
        assert verdict.state == ("passed" if ENGINES[verdict.engine].installed() else "unrun"), verdict.reason


def test_slashes_spaces_and_ampersands_in_names_pass_the_quantiser_too(
    joint: Path, photos: Path, cpu_engine: str, tmp_path: Path
) -> None:
    """Whether so small a network stands it, photo by photo, is another matter, and hangs on its seed."""
    page = bundle.load(joint)
    (full,) = [artifact for artifact in page.artifacts if artifact.precision == "fp32"]
    paths = inputs.find([photos / "train_images"])
    pixels = np.stack([images.fit(images.decode(path), page.preprocess) for path in paths])
    onnx.save(precision.to_int8(onnx.load(joint / full.file), pixels), tmp_path / "int8.onnx")
    with Predictor.open(joint, engine="onnxruntime", precision="fp32") as predictor:
        expected = predictor.probabilities(pixels)
    with open_engine(cpu_engine, tmp_path / "int8.onnx", EngineOptions()) as engine:
        found = engine.infer(pixels)
    assert list(found) == [*OUTPUTS, "features"]
    for name in OUTPUTS:
        # Were two outputs swapped, a third of their labels would agree.
        assert (found[name].argmax(1) == expected[name].argmax(1)).mean() > 0.7


@pytest.mark.skipif(not ENGINES["tensorrt-rtx"].installed(), reason="tensorrt-rtx is not installed")
def test_a_plan_of_a_joint_graph_is_built(joint: Path) -> None:
    (plan,) = [artifact for artifact in bundle.load(joint).artifacts if artifact.target]
    assert (plan.precision, plan.target) == ("fp16", "sm89")
    # The plan itself opens beside a GPU alone; the names stand in it as they are.
    content = (joint / plan.file).read_bytes()
    assert all(name.encode() in content for name in OUTPUTS)


def test_a_joint_bundle_answers_every_photo_by_its_category(joint: Path, photos: Path) -> None:
    rows = predicted(joint, photos, "--precision", "fp32")
    assert right(rows, photos) >= 0.95  # photos that it was trained on among them
    assert {row["routed_from"] for row in rows} == {"Router"}
    # An attribute of another category is blank.
    assert {row["category"] for row in rows if row["print or pattern"]} == {TOPS.name}
    assert {row["category"] for row in rows if row["shade"]} == {"Cap"}


def test_its_golden_answers_are_calibrated_and_of_photos_of_every_category(joint: Path, checkpoints: Path) -> None:
    page = bundle.load(joint)
    pixels = np.stack([images.fit(images.decode(joint / p.file), page.preprocess) for p in page.golden.photos])
    expected = evidence.reference(*checkpoint.load(checkpoints / "joint"), pixels)
    for name, rows in page.golden.probabilities.items():
        np.testing.assert_allclose(np.array(rows), expected[name], rtol=0, atol=1e-6)  # six decimals are kept
    assert set(expected["Router/Category"].argmax(1)) == {0, 1}
    with Predictor.open(joint, engine="onnxruntime", precision="fp32") as predictor:
        found = predictor.probabilities(pixels)
    assert max(float(np.abs(found[name] - expected[name]).max()) for name in OUTPUTS) <= LIMITS["fp32"].probability


def test_photos_for_calibration_and_gate_are_of_every_category_alike(
    checkpoints: Path, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos, tmp_path / "data")
    with (folder / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Three tops to train on beside eighteen caps.
    few = [row for row in rows if row["Category"] == "Cap" or row["split"] == "val" or int(row["id"]) in (24, 25, 26)]
    write_csv(folder / "train.csv", few)
    model, page = checkpoint.load(checkpoints / "joint")
    taken = evidence.gather(model, page, folder, calibration=10, gate=8)
    assert len(taken.calibration) == 10
    assert np.bincount(taken.table.kinds_N[taken.gate_rows]).tolist() == [0, 4, 4]
    assert taken.evidence.categories == page.categories
    assert list(taken.evidence.reference) == [*OUTPUTS, "features"]


# A bundle for each


def test_split_bundles_name_their_outputs_by_the_attribute_and_the_router_keeps_the_routes(
    apart: Path, checkpoints: Path
) -> None:
    pages = {slug: bundle.verify(folder) for slug, folder in bundle.find(apart).items()}
    assert list(pages) == ["cap", "router", "women-tops-tunics"]
    assert {slug: page.routes for slug, page in pages.items() if page.routes} == {"router": ROUTES}
    assert pages["cap"].categories == (CATEGORY,)
    assert pages["women-tops-tunics"].categories == (TOPS,)
    assert list(pages["router"].golden.probabilities) == ["Category"]
    (joint,) = {page.provenance["checkpoint"] for page in pages.values()}
    assert joint == checkpoint.read(checkpoints / "joint").weights_sha256
    assert len({page.provenance["identity"] for page in pages.values()}) == 3


def test_split_bundles_give_the_rows_of_the_joint_one(joint: Path, apart: Path, photos: Path) -> None:
    together = predicted(joint, photos, "--precision", "fp32")
    separate = predicted(apart, photos)
    assert len(together) == len(separate) == 48
    for one, other in zip(together, separate, strict=True):
        assert one.keys() == other.keys()
        for column, cell in one.items():
            if column.endswith("confidence") and cell:
                # Four decimals of float32 sums in another order: the last of them may round the other way.
                assert float(other[column]) == pytest.approx(float(cell), rel=0, abs=1.01e-4)
            else:
                assert other[column] == cell


def test_a_router_trained_alone_leads_to_the_separate_bundles(
    checkpoints: Path, apart: Path, photos: Path, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    for name in ("cap", "women-tops-tunics"):
        shutil.copytree(apart / name, bundles / name)
    assert run(checkpoints / "router", bundles, "--precision", "fp32") == 0
    page = bundle.verify(bundles / "router")
    assert (page.slug, page.routes, page.products) == ("router", ROUTES, ())
    assert page.provenance["checkpoint"] != bundle.load(apart / "router").provenance["checkpoint"]
    rows = predicted(bundles, photos)
    assert right(rows, photos) >= 0.95
    assert {row["routed_from"] for row in rows} == {"Router"}


# What is asked for


def test_categories_of_a_joint_checkpoint_are_chosen_when_it_is_split(checkpoints: Path) -> None:
    folder = checkpoints / "joint"
    assert offers.asked(checkpoints, ["Women Tops & Tunics", "cap"], split=True) == {
        folder: ["cap", "women-tops-tunics"]
    }
    assert offers.asked(folder, [], split=True) == {folder: ["router", "cap", "women-tops-tunics"]}
    assert offers.asked(checkpoints, [], split=False) == {folder: ["joint"], checkpoints / "router": ["router"]}
    assert offers.asked(checkpoints, ["joint"], split=False) == {folder: ["joint"]}
    assert offers.asked(checkpoints / "router", [], split=True) == {checkpoints / "router": ["router"]}


def test_one_bundle_alone_may_be_split_off(checkpoints: Path, tmp_path: Path) -> None:
    assert run(checkpoints / "joint", tmp_path, "--precision", "fp32", "--split", "--category", "Cap") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cap"]


def test_a_category_of_a_joint_checkpoint_that_is_not_split_is_told_of_the_option(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoints, tmp_path / "out", "--category", "Cap") == 2
    said = f"'cap' is one of the categories of {checkpoints / 'joint'}, a joint checkpoint: one bundle for all\n"
    assert said + "build a bundle for each with: --split" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_category_of_a_split_checkpoint_is_answered_with_those_there_are(checkpoints: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint of 'scarf' in .*; have: router, cap, women-tops-tunics\nname"):
        offers.asked(checkpoints / "joint", ["Scarf"], split=True)


def test_two_checkpoints_that_would_give_one_bundle_are_refused(checkpoints: Path) -> None:
    """The router of the joint checkpoint, and the one that was trained alone."""
    with pytest.raises(UserError, match=r"are checkpoints of one category\nname one: --checkpoints .*router$"):
        offers.asked(checkpoints, [], split=True)
