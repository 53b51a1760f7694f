"""Small real things that tests share: photos of one colour, bundles whose right answers are known, a data folder."""

# H height, W width, C channels, N photos, K classes

from __future__ import annotations

import csv
import hashlib
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import msgspec
import numpy as np
import pytest

from runtime import bundle, files, images
from runtime.bundle import Artifact, Attribute, Bundle, Category, Golden, GoldenPhoto, Preprocess, Routes, Verdict
from runtime.engines import ENGINES

if TYPE_CHECKING:
    import onnx

    from train.checkpoint import Checkpoint
    from train.network import FacetModel

# An attribute of these graphs is its classes and the channel that speaks for each: {"red": "R", "blue": "B"}.
Attributes = Mapping[str, Mapping[str, str]]

RGB = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220), "grey": (120, 120, 120)}
# Logit of a channel at full strength: these colours then lie 6 apart, so no label hangs on a rounding.
SHARPNESS = 8.0
PASSED = (
    Verdict(engine="onnxruntime", state="passed", images_per_s=200.0),
    Verdict(engine="openvino", hint="f32", state="passed", images_per_s=100.0),
)
HEAD = """
    logits_{index} = Gemm(features, weight_{index})
    output_{index} = Softmax(logits_{index})
"""
GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[B, {side}, {side}, 3] images) => ({outputs}, float[B, 3] features) {{
    pixels = Cast<to = 1>(images)
    nchw = Transpose<perm = [0, 3, 1, 2]>(pixels)
    scaled = Div(nchw, full)
    features = ReduceMean<keepdims = 0>(scaled, axes)
    {heads}
}}
"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `tune` found on this machine is not the tests' to take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The same additions in the same order, whatever else the machine does."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny_preset(one_thread: None) -> Iterator[None]:
    """`--preset tiny`, on one thread."""
    from tests.train_parts import TINY
    from train.config import PRESETS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", TINY)
        yield


@pytest.fixture(scope="session")
def exported_before() -> dict[bytes, bytes]:
    """By weights and page, the graphs that PyTorch's exporter has made."""
    return {}


@pytest.fixture(scope="module")
def exported_once(exported_before: dict[bytes, bytes]) -> Iterator[None]:
    """PyTorch's exporter, the longest part of building a tiny bundle, runs once for the same network."""
    import msgspec
    import onnx

    from export import graph

    plain = graph.plain

    def kept(model: FacetModel, page: Checkpoint) -> onnx.ModelProto:
        digest = hashlib.sha256(msgspec.json.encode(page))
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        key = digest.digest()
        if key not in exported_before:
            exported_before[key] = plain(model, page).SerializeToString()
        return onnx.ModelProto.FromString(exported_before[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "plain", kept)
        yield


@pytest.fixture(scope="session")
def export_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests.export_parts keeps what it makes."""
    return tmp_path_factory.mktemp("export")


@pytest.fixture(params=["onnxruntime", "openvino"])
def cpu_engine(request: pytest.FixtureRequest) -> str:
    """Each engine of the CPU in turn, where it is installed."""
    name = str(request.param)
    if not ENGINES[name].installed():
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., Path]:
    """Writes a photo of one colour, in the format of its suffix, and gives its path."""

    def make(path: Path, colour: str, *, height: int = 24, width: int = 20) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image_HWC = np.full((height, width, 3), RGB[colour][::-1], np.uint8)
        done, encoded = cv2.imencode(path.suffix, image_HWC)
        assert done
        path.write_bytes(encoded.tobytes())  # not imwrite, which takes no name that is not UTF-8
        return path

    return make


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., Path]:
    """Writes an ONNX graph in which the mean of a photo's channels decides every attribute."""
    import onnx
    from onnx import numpy_helper, parser

    def make(path: Path, attributes: Attributes, *, side: int = 16) -> Path:
        outputs = ", ".join(f"float[B, {len(classes)}] output_{i}" for i, classes in enumerate(attributes.values()))
        heads = "".join(HEAD.format(index=index) for index in range(len(attributes)))
        model = parser.parse_model(GRAPH.format(side=side, outputs=outputs, heads=heads))
        # The parser takes no name with a slash in it.
        names = {f"output_{index}": name for index, name in enumerate(attributes)}
        for output in model.graph.output:
            output.name = names.get(output.name, output.name)
        for node in model.graph.node:
            node.output[0] = names.get(node.output[0], node.output[0])
        weights = {"full": np.array(255, np.float32), "axes": np.array([2, 3])}
        weights |= {f"weight_{index}": channel_weights(classes) for index, classes in enumerate(attributes.values())}
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path

    return make


@pytest.fixture(scope="session")
def make_joint(make_photo: Callable[..., Path], make_graph: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a bundle of several categories that share a graph, as `make_bundle` writes that of one."""

    def make(
        folder: Path,
        categories: Mapping[str, Attributes],
        *,
        side: int = 16,
        routes: Routes | None = None,
        offsets: Mapping[str, tuple[float, ...]] | None = None,
        verdicts: Sequence[Verdict] = PASSED,
    ) -> Path:
        def output(category: str, name: str) -> str:
            return f"{category}/{name}" if len(categories) > 1 else name

        heads = {
            output(category, name): classes
            for category, attributes in categories.items()
            for name, classes in attributes.items()
        }
        photos = [make_photo(folder / "golden" / f"{colour}.png", colour) for colour in ("red", "green", "blue")]
        means_NC = np.stack([images.decode(photo).mean((0, 1)) / 255 for photo in photos])
        graph = make_graph(folder / "new.onnx", heads, side=side)
        sha256 = files.sha256_of(graph)
        graph = graph.rename(folder / f"model.fp32.{sha256[:8]}.onnx")
        page = Bundle(
            slug=folder.name,
            categories=tuple(
                Category(
                    name=category,
                    attributes=tuple(
                        Attribute(
                            name=name,
                            classes=tuple(classes),
                            output=output(category, name),
                            offsets=(offsets or {}).get(output(category, name), ()),
                        )
                        for name, classes in attributes.items()
                    ),
                )
                for category, attributes in categories.items()
            ),
            preprocess=Preprocess(height=side, width=side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            routes=routes,
            provenance={"data": "photos of one colour"},
            golden=Golden(
                photos=tuple(
                    GoldenPhoto(file=f"golden/{photo.name}", sha256=files.sha256_of(photo)) for photo in photos
                ),
                probabilities={
                    name: tuple(map(tuple, softmax(means_NC @ channel_weights(classes)).tolist()))
                    for name, classes in heads.items()
                },
            ),
            artifacts=(
                Artifact(
                    file=graph.name,
                    sha256=sha256,
                    bytes=graph.stat().st_size,
                    precision="fp32",
                    engines=tuple(dict.fromkeys(verdict.engine for verdict in verdicts)),
                    built_with={"onnx": version("onnx")},
                    verdicts=tuple(verdicts),
                ),
            ),
        )
        bundle.save(folder, page)
        return folder

    return make


@pytest.fixture(scope="session")
def make_bundle(make_joint: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a bundle whose every answer is the class of the photo's strongest channel, and gives its folder."""

    def make(root: Path, category: str, attributes: Attributes, **options: Any) -> Path:
        return make_joint(root / bundle.slug_of(category), {category: attributes}, **options)

    return make


@pytest.fixture(scope="session")
def bundle_folder(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of category Shirt, 16 px: colour (blue, green, red) and warmth (cold, warm). Not to be changed."""
    attributes = {"colour": {"blue": "B", "green": "G", "red": "R"}, "warmth": {"cold": "B", "warm": "R"}}
    return make_bundle(tmp_path_factory.mktemp("bundle"), "Shirt", attributes)


@pytest.fixture
def broken_folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of `bundle_folder` whose files are as its page says, and no graphs."""
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "broken"))
    page = bundle.load(folder)
    artifacts = []
    for artifact in page.artifacts:
        (folder / artifact.file).write_bytes(b"no graph")
        artifacts.append(msgspec.structs.replace(artifact, sha256=files.sha256_of(folder / artifact.file)))
    bundle.save(folder, msgspec.structs.replace(page, artifacts=tuple(artifacts)))
    return folder


@pytest.fixture(scope="session")
def fleet_root(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The router Garment, 16 px, that sends red to Shirt, 24 px, and blue to Boot; no bundle serves Hat, green.

    Not to be changed.
    """
    root = tmp_path_factory.mktemp("fleet")
    kinds = {"Boot": "B", "Hat": "G", "Shirt": "R"}
    routes = Routes(attribute="kind", to={kind: kind for kind in kinds})
    make_bundle(root, "Garment", {"kind": kinds, "warmth": {"cold": "B", "warm": "R"}}, routes=routes)
    make_bundle(root, "Shirt", {"colour": {"blue": "B", "green": "G", "red": "R"}}, side=24)
    make_bundle(root, "Boot", {"sole": {"flat": "R", "high": "B"}})
    return root


@pytest.fixture(scope="session")
def joint_folder(make_joint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a router, Category, and Boot and T-Shirt, which share its graph and have a colour each, 16 px.

    Blue is a Boot, red a T-Shirt, and green a Hat, which no bundle serves. Not to be changed.
    """
    kinds = {"Boot": "B", "Hat": "G", "T-Shirt": "R"}
    categories = {
        "Router": {"Category": kinds},
        "Boot": {"colour": {"navy": "B", "oxblood": "R"}, "sole": {"flat": "R", "high": "B"}},
        "T-Shirt": {"neck": {"round": "R", "v": "B"}, "colour": {"blue": "B", "green": "G", "red": "R"}},
    }
    routes = Routes(attribute="Category", to={kind: kind for kind in kinds})
    return make_joint(tmp_path_factory.mktemp("joint") / "everything", categories, routes=routes)


@pytest.fixture(scope="session")
def make_data_folder() -> Callable[..., Path]:
    """Writes a data folder in the challenge's layout: 24 photos of 32 px, half of Garment, a router, half of Shirt.

    A photo is of the colour that it is labelled with. `edit`, where given, changes the rows before they are written.
    """

    def make(folder: Path, *, edit: Callable[[list[dict[str, str]]], None] | None = None) -> Path:
        (folder / "train_images").mkdir(parents=True)
        rows = data_rows()
        rng = np.random.default_rng(0)
        for row in rows:
            colour = row["attr_2"] if row["Category"] == "Garment" else row["attr_1"]
            noise_HWC = rng.integers(-20, 21, (32, 32, 3))
            image_HWC = np.clip(np.array(RGB[colour]) + noise_HWC, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "train_images" / f"{int(row['id']):06d}.jpg"), image_HWC[:, :, ::-1])
        if edit:
            edit(rows)
        write_csv(folder / "train.csv", rows)
        names = {"Garment": '["kind", "colour"]', "Shirt": '["colour", "neck"]'}
        write_csv(
            folder / "category_attributes.csv",
            [{"Category": name, "No_of_attribute": "2", "Attribute_list": listed} for name, listed in names.items()],
        )
        return folder

    return make


@pytest.fixture(scope="session")
def data_folder(make_data_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder as `make_data_folder` writes it. Not to be changed."""
    return make_data_folder(tmp_path_factory.mktemp("data") / "clothing")


@pytest.fixture(scope="session")
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """Under it no file of this process grows past so many bytes: a full disk, as the writer meets it."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


def data_rows() -> list[dict[str, str]]:
    """24 rows in groups of two; every third group is val, where every class occurs; two necks are missing."""
    rows = []
    for index in range(24):
        garment, turn = index < 12, index % 12
        colour = ("red", "blue")[turn % 2]
        labels = (
            (("Dress", "Shirt")[turn // 2 % 2], colour)
            if garment
            else (colour, ("round", "v", "", "v", "round")[turn % 5])
        )
        rows.append(
            {
                "id": str(index),
                "Category": "Garment" if garment else "Shirt",
                "len": "2",
                "attr_1": labels[0],
                "attr_2": labels[1],
                "split": "val" if index // 2 % 3 == 2 else "train",
                "group": f"sender{index // 2}",
            }
        )
    return rows


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def channel_weights(classes: Mapping[str, str]) -> np.ndarray:
    """Float32 [3, K]: SHARPNESS where a class and its channel meet."""
    return np.array([[SHARPNESS * (of == channel) for of in classes.values()] for channel in "RGB"], np.float32)


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    raised_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    return np.asarray(raised_NK / raised_NK.sum(1, keepdims=True))
