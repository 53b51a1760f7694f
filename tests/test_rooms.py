"""The rooms keep to themselves: who imports whom, what comes late, and that the runtime alone is enough."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {"runtime": {"runtime"}, "train": {"runtime", "train"}, "export": {"runtime", "train", "export"}}
OURS = {*MAY_IMPORT, "benchmarks", "examples", "tests"}
# An edge box builds its own plan from a bundle's graph, and checks it: there is no torch, and nothing of train, on it.
RUNTIME_ALONE = {"export/engine.py", "export/plan.py", "export/table.py", "export/verify.py"}
# What the runtime asks for, all of it inside functions but msgspec, which makes the bundle's types.
RUNTIME_NEEDS = {"msgspec", "numpy", "cv2", "rich"}
# For one thing each, and asked for by name where it is missing: pyarrow for Parquet.
RUNTIME_MAY_USE = {"pyarrow"}
ENGINE_LIBRARIES = {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda", "pycuda"}
HEAVY = {"numpy", "cv2", "torch", "torchvision", "timm", "safetensors", "pandas", "pyarrow", "sklearn", "rich"}
HEAVY |= {"onnx", "onnxscript", "nncf", "jinja2", "tensorboard", *ENGINE_LIBRARIES}

SOURCES = sorted(path.relative_to(ROOT) for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))
TREES = {source: ast.parse((ROOT / source).read_text(), str(source)) for source in SOURCES}
MODULES = [".".join(source.with_suffix("").parts).removesuffix(".__init__") for source in SOURCES]
COMMANDS = [
    module
    for module, tree in zip(MODULES, TREES.values(), strict=True)
    if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
]


def imported(tree: ast.AST, *, at_import: bool) -> Iterator[str]:
    """The top-level package of everything imported in a module, or only of what its import itself imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "modules are imported by their full name"
            yield (node.module or "").partition(".")[0]
        elif not at_import:
            yield from imported(node, at_import=False)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not is_type_checking(node):
            yield from imported(node, at_import=True)


def parts_of(room: str, tree: ast.AST) -> set[str]:
    """The files of one room that a module imports, at any time."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names = {node.module or "" for node in froms}
    names |= {f"{node.module}.{alias.name}" for node in froms if node.module == room for alias in node.names}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {f"{name.replace('.', '/')}.py" for name in names if name.startswith(f"{room}.")}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def interpreter(code: str, *args: str, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds modules in `path` and no other checkout."""
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_rooms_and_commands_are_all_seen() -> None:
    assert {"runtime.bundle", "runtime.engines", "runtime.engines.trt", "train.fit", "export.engine"} <= set(MODULES)
    assert {"runtime.predict", "train.fit", "train.evaluate", "export.build", "export.engine", "export.verify"} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_module_imports_of_ours_only_what_its_room_may(source: Path) -> None:
    room, *_ = source.parts
    allowed = {"runtime", room} if source.as_posix() in RUNTIME_ALONE else MAY_IMPORT[room]
    assert set(imported(TREES[source], at_import=False)) & OURS <= allowed
    if source.as_posix() in RUNTIME_ALONE:
        assert parts_of(room, TREES[source]) <= RUNTIME_ALONE


@pytest.mark.parametrize("source", [source for source in SOURCES if source.parts[0] == "runtime"], ids=str)
def test_the_runtime_imports_what_its_box_has_and_all_but_msgspec_late(source: Path) -> None:
    everything, at_import = (set(imported(TREES[source], at_import=which)) for which in (False, True))
    typing_only = {"typing_extensions"}
    assert (
        everything - sys.stdlib_module_names
        <= {"runtime"} | RUNTIME_NEEDS | RUNTIME_MAY_USE | ENGINE_LIBRARIES | typing_only
    )
    assert at_import - sys.stdlib_module_names <= {"runtime", "msgspec"}
    assert "msgspec" not in at_import or source.name == "bundle.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        from {command} import main
        try:
            main(["--help"])
        finally:
            print(*sorted(set(sys.modules) & {HEAVY}), file=sys.stderr)"""
    done = interpreter(code, cwd=tmp_path)
    assert (done.returncode, done.stderr.split()) == (0, [])
    assert done.stdout.startswith(f"usage: python -m {command} ")


def test_building_a_plan_loads_nothing_of_train(tmp_path: Path) -> None:
    code = "import sys, export.engine; print(*sorted(sys.modules))"
    done = interpreter(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not loaded & {"train", *HEAVY}
    assert {name for name in loaded if name.startswith("export.")} == {"export.engine", "export.plan"}


def test_every_module_imports_bare_and_leaves_logging_and_warnings_as_they_were(tmp_path: Path) -> None:
    # One interpreter for all, our own modules forgotten before each, so that none leans on another's import. Twice:
    # the first time the libraries load, and what they do to logging is not ours. Then every setting is made one that
    # nobody would choose, since an import that sets what is set already would go unseen.
    code = """if True:
        import importlib, json, logging, sys, traceback, warnings

        def loggers():
            named = logging.root.manager.loggerDict.values()
            return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]

        def settings(made):
            return warnings.filters[:], [(logger.level, logger.disabled, logger.handlers[:]) for logger in made]

        complaints = {}
        for turn in range(2):
            for name in sys.argv[1:]:
                for module in list(sys.modules):
                    if module.split(".")[0] in ("runtime", "train", "export"):
                        del sys.modules[module]
                if turn:
                    warnings.resetwarnings()
                    for logger in loggers():
                        logger.setLevel(99)
                        logger.handlers.clear()
                made = loggers()
                before = settings(made)
                try:
                    importlib.import_module(name)
                except Exception:
                    complaints[name] = traceback.format_exc()
                if turn and settings(made) != before:
                    complaints[name] = "touches logging or the warnings filters"
        print(json.dumps(complaints))"""
    done = interpreter(code, *MODULES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """An edge box: the runtime folder and nothing else of ours."""
    shutil.copytree(ROOT / "runtime", tmp_path / "box" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "box"


PREDICT = """if True:
    import sys
    import runtime.predict
    code = runtime.predict.main()
    print(runtime.predict.__file__, *sorted(sys.modules), file=sys.stderr)
    raise SystemExit(code)"""


def test_the_runtime_folder_copied_alone_predicts_without_torch(
    box: Path, tmp_path: Path, fleet_root: Path, make_photo: Callable[..., Path]
) -> None:
    make_photo(tmp_path / "photos" / "red.png", "red")
    args = ("photos", "--bundles", str(fleet_root), "--out", "out.csv", "--quiet")
    done = interpreter(PREDICT, *args, cwd=tmp_path, path=box)
    assert done.returncode == 0, done.stderr
    file, *modules = done.stderr.split()
    assert Path(file).is_relative_to(box)
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("photos/red.png,Shirt,0.99")
    loaded = {module.partition(".")[0] for module in modules}
    assert not loaded & {
        "torch",
        "torchvision",
        "timm",
        "pandas",
        "sklearn",
        "onnx",
        "nncf",
        "train",
        "export",
        "openvino",
    }


VERIFY = """if True:
    import sys
    import export.verify
    code = export.verify.main()
    print(export.verify.__file__, *sorted(sys.modules), file=sys.stderr)
    raise SystemExit(code)"""


def test_the_runtime_and_one_file_more_verify_bundles_without_torch_onnx_or_train(
    box: Path, tmp_path: Path, fleet_root: Path
) -> None:
    (box / "export").mkdir()
    for name in ("__init__.py", "verify.py"):
        shutil.copy(ROOT / "export" / name, box / "export")
    shutil.copytree(fleet_root, tmp_path / "bundles")
    done = interpreter(VERIFY, "bundles/", "--quiet", cwd=tmp_path, path=box)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 golden photos") == 3
    file, *modules = done.stderr.split()
    assert Path(file).is_relative_to(box)
    loaded = {module.partition(".")[0] for module in modules}
    assert not loaded & {"torch", "torchvision", "timm", "pandas", "sklearn", "onnx", "nncf", "train"}


def test_without_bundles_the_shipped_ones_serve_and_are_named(
    box: Path, tmp_path: Path, fleet_root: Path, make_photo: Callable[..., Path]
) -> None:
    make_photo(tmp_path / "photos" / "red.png", "red")
    args = ("photos", "--out", "out.csv")
    done = interpreter(PREDICT, *args, cwd=tmp_path, path=box)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no bundles/ folder here, and none is shipped with this copy of runtime/\n")
    assert "--bundles DIR" in done.stderr
    assert "python -m export.build" in done.stderr
    shipped = shutil.copytree(fleet_root, box / "runtime" / "shipped")
    done = interpreter(PREDICT, *args, cwd=tmp_path, path=box)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"no bundles/ folder here: using the example bundles in {shipped}\n")
