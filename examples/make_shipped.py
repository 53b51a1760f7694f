"""Command: train and export the models that ship with the project, from the public photos.

    python examples/make_shipped.py --source DIR

DIR is what make_examples.py reads. Every step is one of the project's own commands, printed before it runs. The
test split is read once, at the end, by the bundles that ship; calib alone chose the epochs. A data folder and
checkpoints that stand in build/shipped are used as they are: remove it to start afresh.
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
RESULTS = Path("benchmarks/results")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python examples/make_shipped.py", description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="labels.csv, attributes.csv, images/")
    source = parser.parse_args(argv).source.resolve()
    from train import out_of_fold

    data, checkpoints = BUILD / "clothing", BUILD / "checkpoints"
    if not (ROOT / data / "train.csv").exists():
        run("examples/make_examples.py", "--source", source, "--full", data)
    if not (ROOT / checkpoints).exists():
        run("-m", "train.fit", "--data", data, "--out", checkpoints)
    if not (ROOT / checkpoints / "garment" / out_of_fold.FILE).exists():
        # The others have too few photos, training photos included, for an audit to promise much.
        run("-m", "train.crossfit", "--data", data, "--checkpoints", checkpoints / "garment", "--resume")
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
    figures = []
    for folder in sorted((ROOT / "examples" / "bundles").iterdir()):
        # Garment's labels are published with the photos, test split included; the others' end with validation.
        split = "test" if folder.name == "garment" else "val"
        report = BUILD / "reports" / folder.name
        run(
            "-m", "train.evaluate", f"examples/bundles/{folder.name}", "--data", data, "--split", split, "--out", report
        )
        ((category, found),) = json.loads((ROOT / report / "metrics.json").read_text()).items()
        figures.append({"category": category, "split": split, "scores": found["scores"]})
    (ROOT / RESULTS / "shipped_models.json").write_text(json.dumps(figures, indent=1) + "\n")
    run(
        "-m",
        "runtime.predict",
        "examples/photos/",
        "--bundles",
        "examples/bundles",
        "--out",
        RESULTS / "example_predictions.csv",
    )
    return 0


def run(*arguments: object) -> None:
    """One command of the project, in its root; its failure ends this one."""
    words = [str(argument) for argument in arguments]
    print("$ python", *words, flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def halve(source: Path, target: Path) -> None:
    """A copy of a checkpoint with its weight matrices stored as float16, and with what is beside it."""
    from train import checkpoint, out_of_fold

    model, page = checkpoint.load(ROOT / source)
    checkpoint.save(ROOT / target, model.state_dict(), page, half=True)
    beside = out_of_fold.read(ROOT / source, page)
    if beside:
        page = checkpoint.read(ROOT / target)
        out_of_fold.write(ROOT / target, page, beside.labels_NL, beside.probabilities, made_of=beside.made_of)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
