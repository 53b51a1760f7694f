"""Where a benchmark's figures are kept, with the machine and the versions that they are of."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import runtime
from runtime import machine
from runtime.bundle import slug_of
from runtime.errors import UserError, exit_code
from runtime.files import probe, replace_file

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "torch",
    "timm",
    "Pillow",
    "onnxruntime",
    "openvino",
    "numpy",
    "opencv-python-headless",
    "onnx",
    "nncf",
    "scikit-learn",
)


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option that says where results go."""
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results/")


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options of a benchmark that is a command of its own, the module of that name: where its results go."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    add_out(made)
    return made


def main(parser: argparse.ArgumentParser, measure: Callable[[Path], int], argv: Sequence[str] | None) -> int:
    """Such a command: its exit code, once `measure` has put its results into the folder asked for."""
    args = parser.parse_args(argv)
    return run(lambda: measure(args.out), into=args.out)


def run(measure: Callable[[], int], *, into: Path) -> int:
    """The exit code of what measures and keeps what it finds there; a place that takes nothing is told beforehand."""

    def command() -> int:
        try:
            probe(into)
        except OSError as err:
            raise UserError(f"cannot write in {into}: {err.strerror}\nchoose another folder with: --out DIR") from None
        return measure()

    before = signal.signal(signal.SIGTERM, _end)
    try:
        return exit_code(command, extra="dev")
    finally:
        signal.signal(signal.SIGTERM, before)


def keep(
    head: Mapping[str, object],
    body: Mapping[str, object],
    *,
    full: bool,
    load_before: float,
    into: Path = RESULTS,
    card: str = "",
) -> Path:
    """Save figures with the date, the machine and the versions between; `model` of the head names the file.

    Args:
        load_before: how many cores others had before the first clock started, by `busy.before`.
        card: the GPU that they are of, which then names the file in the processor's place.
    """
    here = hardware()
    content = {
        **head,
        "date": today(),
        "full": full,
        "machine": f"{here['cpu']}, {here['cores']} cores",
        "hardware": here,
        "load_before": round(load_before, 2),
        "versions": versions(),
        **body,
    }
    path = path_of(str(head["model"]), into, card)
    replace_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return path


def path_of(model: str, into: Path, card: str = "") -> Path:
    """The file of today's figures."""
    return into / f"{model}_{slug_of(card) if card else machine_slug()}_{today()}.json"


def today() -> str:
    return datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()


def hardware() -> dict[str, object]:
    """The processor, its cores, and those of its instruction sets that matter here."""
    found = machine.processor()
    return {
        "cpu": found.name,
        "cores": found.cores,
        "instructions": list(found.instructions),
        "system": platform.system(),
    }


def machine_slug() -> str:
    """The machine in a file's name, such as `amd-epyc-2-cores`."""
    found = hardware()
    cpu = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*", " ", str(found["cpu"]))
    return slug_of(f"{cpu} {found['cores']} cores")


def versions() -> dict[str, str]:
    """Of Python and of each package that had a part in it; those not installed are left out."""
    found = {"facet-edge": runtime.__version__, "python": ".".join(map(str, sys.version_info[:3]))}
    found |= {package: known for package in PACKAGES if (known := machine.version_of(package))}
    return found


def _end(number: int, frame: object) -> None:
    """A kill as an exception: what was started is ended too, and what was made for the while removed."""
    sys.exit(128 + number)


def rounded(value: object) -> object:
    """Figures to four digits, and none for what is no number, as JSON has no word for it."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
