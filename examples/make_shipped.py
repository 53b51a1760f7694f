"""Command: train and export the models that ship with the project, from the public photos.

    python examples/make_shipped.py --source DIR

DIR is what make_examples.py reads. Every step is one of the project's own commands, printed before it runs. The
test split is read once, at the end, by the bundles that ship; calib alone chose the epochs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Relative, and the commands run in ROOT: this path is written into checkpoints and bundles.
BUILD = Path("build/shipped")
FIGURES = Path("benchmarks/results/shipped_models.json")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python examples/make_shipped.py", description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="labels.csv, attributes.csv, images/")
    source = parser.parse_args(argv).source.resolve()
    data, checkpoints = BUILD / "clothing", BUILD / "checkpoints"
    run("examples/make_examples.py", "--source", source, "--full", data)
    run("-m", "train.fit", "--data", data, "--out", checkpoints)
    run(
        "-m",
        "export.build",
        "--precision",
        "int8",
        "--checkpoints",
        checkpoints,
        "--gate-photos",
        1000,
        "--out",
        "examples/bundles",
    )
    halve(checkpoints / "garment", Path("examples/checkpoints/garment"))
    run(
        "-m",
        "train.evaluate",
        "examples/bundles/garment",
        "--data",
        data,
        "--split",
        "test",
        "--out",
        BUILD / "test.json",
    )
    figures = {
        "int8 bundle, 722 test photos, published labels": json.loads((ROOT / BUILD / "test.json").read_text()),
        "float model, validation photos": {
            page["category"]["name"]: page["metrics"]
            for page in (
                json.loads(path.read_text()) for path in sorted((ROOT / checkpoints).glob("*/checkpoint.json"))
            )
        },
    }
    (ROOT / FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def run(*arguments: object) -> None:
    """One command of the project, in its root; its failure ends this one."""
    words = [str(argument) for argument in arguments]
    print("$ python", *words, flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def halve(source: Path, target: Path) -> None:
    """A copy of a checkpoint with its weight matrices stored as float16."""
    from train import checkpoint

    model, page = checkpoint.load(ROOT / source)
    checkpoint.save(ROOT / target, model, page, half=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
