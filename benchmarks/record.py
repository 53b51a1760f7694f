"""What one benchmark found, on which machine, and how it is printed and kept."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import runtime
from runtime import machine
from runtime.bundle import slug_of
from runtime.errors import exit_code
from runtime.files import replace_file

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


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near two ways of answering the same photos are."""

    largest_difference: float
    """Of any class probability of any photo."""
    labels_agree: float
    """Share of the labels, 0-1."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One artifact on one engine beside the reference's way, over the same photos, in turns."""

    model: str
    precision: str
    engine: str
    hint: str
    artifact: str
    chosen_by_auto: bool
    photos: int
    batch: int
    ours_s: tuple[float, ...]
    """Seconds from folder to table, a round each; the reference's of the same place came just before."""
    theirs_s: tuple[float, ...]
    same_pixels: Agreement
    """The artifact against PyTorch, on our pixels."""
    same_network: Agreement
    """Our pixels against the reference's, both through PyTorch."""
    whole: Agreement
    """The two ways from photo to answer."""
    between_photos: float
    """Largest difference of a probability from one photo to another, in PyTorch: what differences are to be held to."""

    @property
    def what(self) -> str:
        return f"{self.precision} on {self.engine}"

    @property
    def ratios(self) -> tuple[float, ...]:
        """Round by round, how many times as fast as the reference's way."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours_s, self.theirs_s, strict=True))

    def rates(self, seconds: Sequence[float]) -> list[float]:
        """Images a second in each round."""
        return [self.photos / each for each in seconds]

    def line(self) -> str:
        """The measurement in one line: both rates and their ratio, each the median and, in brackets, its range."""
        return (
            f"{self.model}, {self.what}: {_ranged(self.rates(self.ours_s))} images/s, "
            f"the reference's way {_ranged(self.rates(self.theirs_s))}: {_ranged(self.ratios)} times as fast; "
            f"{self.whole.labels_agree:.1%} of labels agree"
        )

    def summary(self) -> dict[str, object]:
        """What is kept of it: the medians, then everything they were taken from."""
        return {
            "what": self.what,
            "ours_images_per_s": round(statistics.median(self.rates(self.ours_s)), 3),
            "theirs_images_per_s": round(statistics.median(self.rates(self.theirs_s)), 3),
            "ratio": round(statistics.median(self.ratios), 3),
            "ratio_range": [round(min(self.ratios), 3), round(max(self.ratios), 3)],
            **{name: rounded(value) for name, value in asdict(self).items()},
        }


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
    return exit_code(lambda: measure(args.out), extra="dev")


def save(measurements: Sequence[Measurement], *, full: bool, load_before: float, into: Path = RESULTS) -> Path:
    """Write one model's file: what a plain `predict` serves at the top, every measurement beneath it.

    Args:
        load_before: processes that wanted a core in the minute before the session: more than a few tenths of one,
            and others shared the machine.
    """
    first = next((found for found in measurements if found.chosen_by_auto), measurements[0]).summary()
    head = {name: first[name] for name in ("model", "what", "ours_images_per_s", "theirs_images_per_s", "ratio")}
    found = [measurement.summary() for measurement in measurements]
    return keep(head, {"measurements": found}, full=full, load_before=load_before, into=into)


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
        card: the GPU that they are of, which then names the file in the processor's place.
    """
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    here = hardware()
    content = {
        **head,
        "date": today,
        "full": full,
        "machine": f"{here['cpu']}, {here['cores']} cores",
        "hardware": here,
        "load_before": round(load_before, 2),
        "versions": versions(),
        **body,
    }
    path = into / f"{head['model']}_{slug_of(card) if card else machine_slug()}_{today}.json"
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


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


def _ranged(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
