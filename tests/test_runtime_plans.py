"""A plan that is of another library version or another GPU is known by its page, before anything opens it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from runtime import bundle, plans, predict
from runtime.bundle import Artifact, Verdict
from runtime.engines import ENGINES
from runtime.engines.cuda import gpu_here, why_no_gpu
from runtime.errors import UserError
from runtime.predictor import Predictor

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def plan(*, target: str = "sm89", version: str = "", state: str = "unrun", engine: str = "tensorrt-rtx") -> Artifact:
    return Artifact(
        file=".".join(filter(None, ("model.fp16", target, "00c0ffee.plan"))),
        sha256="0" * 64,
        bytes=1,
        precision="fp16",
        target=target,
        engines=(engine,),
        built_with={engine: version or trt.__version__},
        verdicts=(Verdict(engine=engine, state=state),),  # type: ignore[arg-type]
    )


@pytest.fixture
def with_plans(bundle_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Adds plans to a copy of the bundle, whose files are not there, and gives its folder."""

    def make(*artifacts: Artifact, folder: str = "bundles/shirt") -> Path:
        copy = Path(shutil.copytree(bundle_folder, tmp_path / folder))
        page = bundle.load(copy)
        bundle.save(copy, msgspec.structs.replace(page, artifacts=(*page.artifacts, *artifacts)))
        return copy

    return make


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says that the machine's GPU is of a kind, which this one has not."""

    def be(kind: str) -> None:
        for module in ("plans", "predictor"):
            monkeypatch.setattr(f"runtime.{module}.gpu_here", lambda: kind)

    return be


def test_a_plan_of_this_library_for_this_gpu_fits(gpu: Callable[[str], None]) -> None:
    gpu("sm89")
    assert plans.misfit(plan(), "tensorrt-rtx") == ""


def test_where_no_gpu_tells_its_kind_opening_the_plan_says_why(gpu: Callable[[str], None]) -> None:
    gpu("")
    assert plans.misfit(plan(), "tensorrt-rtx") == ""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_fits_everywhere(bundle_folder: Path, engine: str) -> None:
    (graph,) = bundle.load(bundle_folder).artifacts
    assert plans.misfit(graph, engine) == ""


def test_a_plan_of_another_library_version_is_told_from_its_page(gpu: Callable[[str], None]) -> None:
    gpu("sm89")
    said = f"built with tensorrt-rtx 1.0.0.21, here is {trt.__version__}"
    assert plans.misfit(plan(version="1.0.0.21"), "tensorrt-rtx") == said


def test_a_plan_for_another_gpu_is_told_from_its_page(gpu: Callable[[str], None]) -> None:
    gpu("sm120")
    assert plans.misfit(plan(), "tensorrt-rtx") == "built for a GPU of kind sm89, here is sm120"


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("10.12.0.36", "10.12.0.36", True),
        # Version-compatible, it may be; the library will say.
        ("10.12.0.36", "10.13.2.6", True),
        ("10.13.2.6", "10.12.0.36", False),
        ("10.13.2.6", "11.0.0.114", False),
        ("11.0.0.114", "10.13.2.6", False),
    ],
)
def test_of_tensorrt_only_a_later_minor_version_may_read_the_plan(
    monkeypatch: pytest.MonkeyPatch, built: str, here: str, fits: bool
) -> None:
    monkeypatch.setattr("runtime.plans.version_here", lambda engine: here)
    said = plans.misfit(plan(target="", version=built, engine="tensorrt"), "tensorrt")
    assert said == ("" if fits else f"built with tensorrt {built}, here is {here}")


def test_a_library_that_cannot_be_loaded_speaks_against_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the plan will tell, with its reason."""
    monkeypatch.setitem(ENGINES, "tensorrt", replace(ENGINES["tensorrt"], package="no_such_library"))
    assert plans.misfit(plan(target="", engine="tensorrt", version="10.12"), "tensorrt") == ""


def test_predicting_with_a_plan_of_another_version_names_both_and_the_command(
    with_plans: Callable[..., Path], gpu: Callable[[str], None]
) -> None:
    gpu("")
    folder = with_plans(plan(version="1.0.0.21"))
    named = re.escape(str(folder / "model.fp16.sm89.00c0ffee.plan"))
    command = re.escape(f"python -m export.engine {folder} --precision fp16 --target sm89 --rebuild")
    said = rf"^{named} was built with tensorrt-rtx 1\.0\.0\.21, here is {trt.__version__}\nrebuild it with: {command}$"
    with pytest.raises(UserError, match=said):
        Predictor.open(folder, engine="tensorrt-rtx")


def test_predicting_with_a_plan_for_another_gpu_names_both_and_the_command_for_this_one(
    with_plans: Callable[..., Path],
    gpu: Callable[[str], None],
    make_photo: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu("sm120")
    folder = with_plans(plan(), folder="my bundles/shirt")
    photo = make_photo(tmp_path / "red.png", "red")
    options = ["--bundles", str(folder), "--engine", "tensorrt-rtx", "--out", str(tmp_path / "out.csv"), "--quiet"]
    assert predict.main([str(photo), *options]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}/model.fp16.sm89.00c0ffee.plan was built for a GPU of kind sm89, here is sm120\n"
        f"rebuild it with: python -m export.engine '{folder}' --precision fp16 --target sm120 --rebuild\n"
    )


def test_of_plans_for_several_gpus_the_one_for_this_gpu_is_chosen(
    with_plans: Callable[..., Path], gpu: Callable[[str], None]
) -> None:
    gpu("sm89")
    folder = with_plans(plan(target="sm86", state="passed"), plan(target="sm89"), plan(target="sm120"))
    with pytest.raises(UserError, match=r"cannot read \S+sm89\S+: No such file"):
        Predictor.open(folder, engine="tensorrt-rtx")


def test_a_gpu_that_tensorrt_rtx_builds_nothing_for_is_sent_to_tensorrt(
    with_plans: Callable[..., Path], gpu: Callable[[str], None]
) -> None:
    gpu("sm90")
    folder = with_plans(plan())
    said = (
        f"{folder}/model.fp16.sm89.00c0ffee.plan was built for a GPU of kind sm89, here is sm90\n"
        "tensorrt-rtx builds for sm75, sm80, sm86, sm89, sm120, sm121, and this GPU is sm90\n"
        "TensorRT builds for it: pip install tensorrt cuda-bindings\n"
        f"then: python -m export.engine {folder} --precision fp16"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        Predictor.open(folder, engine="tensorrt-rtx")


def test_a_bundle_of_plans_for_other_gpus_alone_is_not_served_unasked_either(
    with_plans: Callable[..., Path], gpu: Callable[[str], None]
) -> None:
    gpu("sm120")
    folder = with_plans(plan(state="passed"))
    page = bundle.load(folder)
    bundle.save(folder, msgspec.structs.replace(page, artifacts=page.artifacts[1:]))
    with pytest.raises(UserError, match="was built for a GPU of kind sm89, here is sm120"):
        Predictor.open(folder)


def test_a_damaged_or_missing_plan_is_rebuilt_by_its_own_command_and_for_its_own_gpu(
    with_plans: Callable[..., Path],
) -> None:
    folder = with_plans(plan())
    command = re.escape(f"python -m export.engine {folder} --precision fp16 --target sm89 --rebuild")
    with pytest.raises(UserError, match=rf"plan: No such file or directory\nrebuild it with: {command}$"):
        bundle.verify(folder)
    (folder / "model.fp16.sm89.00c0ffee.plan").write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"plan was changed after it was built: sha256.*\nrebuild it with: {command}$"):
        bundle.verify(folder)


def test_a_bundle_without_a_plan_is_answered_with_the_command_that_makes_one(
    bundle_folder: Path, gpu: Callable[[str], None]
) -> None:
    gpu("sm86")
    # Its one graph is fp32: what is asked for by name is named, else what there is.
    command = re.escape(f"python -m export.engine {bundle_folder} --precision fp32 --target sm86")
    with pytest.raises(
        UserError, match=rf"no passed artifact for tensorrt-rtx in bundle .*\nbuild one with: {command}$"
    ):
        Predictor.open(bundle_folder, engine="tensorrt-rtx")


@pytest.mark.parametrize(
    ("file", "command"),
    [
        (
            "model.int8.sm120.00c0ffee.plan",
            "python -m export.engine bundles/cap --precision int8 --target sm120 --rebuild",
        ),
        ("model.fp16.00c0ffee.plan", "python -m export.engine bundles/cap --precision fp16 --rebuild"),
        ("plan of some other name.plan", "python -m export.engine bundles/cap --rebuild"),
        ("model.fp16.00c0ffee.onnx", "python -m export.build --category cap --precision fp16 --out bundles"),
        ("golden/00c0ffee.jpg", "python -m export.build --category cap --out bundles"),
        ("", "python -m export.build --category cap --out bundles"),
    ],
)
def test_each_file_is_rebuilt_by_the_command_that_makes_it(file: str, command: str) -> None:
    assert bundle.rebuild(Path("bundles/cap"), file) == f"rebuild it with: {command}"


@pytest.mark.gpu
def test_the_gpu_here_is_named_as_targets_are() -> None:
    if reason := why_no_gpu():
        pytest.skip(f"needs an NVIDIA GPU: {reason}")
    assert re.fullmatch(r"sm\d{2,3}", gpu_here())


def test_without_a_gpu_none_is_named() -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    assert gpu_here() == ""
