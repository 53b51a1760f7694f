"""What one benchmark found, on which machine, and how it is printed and kept."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near two ways of answering the same photos are."""

    largest_difference: float
    """Of any class probability of any photo."""
    mean_difference: float
    labels_agree: float
    """Share of the labels, 0-1."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one way reached, in turns with the others."""

    way: str
    what: str
    photos: int
    """Of a turn."""
    images_per_s: tuple[float, ...]
    """Of each round."""
    answers: Agreement
    """Beside PyTorch's in float32, on the same pixels."""
    labels_agree: float | None
    """Share of the labels of its table that are the reference's, where it made one."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The ways to answer one model's photos, ours first."""

    model: str
    kind: str
    """`alone`, the network by itself, or `whole`, from folder to table."""
    results: Sequence[Result]
    missing: Mapping[str, str]
    """The ways that are not installed here, and why."""
    gop: float
    """10^9 operations for a photo, a multiplication and an addition counting two."""
    limits: Sequence[Mapping[str, float]]
    """The machine's own rates, by their name, measured in each round."""

    def ratios(self, other: Result) -> list[float]:
        """Round by round, how many times as fast as the other way ours is."""
        return [ours / theirs for ours, theirs in zip(self.results[0].images_per_s, other.images_per_s, strict=True)]

    def shares(self) -> dict[str, float]:
        """Of the rate that the machine has for large products of each precision, what ours reaches: its median."""
        rates = self.results[0].images_per_s
        return {
            name: statistics.median(
                rate * self.gop / limit[f"{name}_gops"] for rate, limit in zip(rates, self.limits, strict=True)
            )
            for name in ("f32", "bf16", "int8")
        }

    def lines(self) -> list[str]:
        """A line a way: its rate and how many times as fast ours is, the median of each and, in brackets, its range."""
        told = []
        for result in self.results:
            beside = "" if result is self.results[0] else f": ours {_ranged(self.ratios(result))} times as fast"
            near = f"{result.answers.mean_difference:.1e} off, {result.answers.labels_agree:.1%} of labels agree"
            told.append(f"{result.way}, {_ranged(result.images_per_s)} images/s{beside}; {near}")
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in self.shares().items())
        told.append(f"of the machine's rate for large products, ours reaches {shares}")
        return told + [f"{way}: {why}" for way, why in self.missing.items()]

    def summary(self) -> dict[str, object]:
        """What is kept of it: the medians, then everything they were taken from."""
        ways = [
            {
                "way": result.way,
                "what": result.what,
                "photos": result.photos,
                "images_per_s": rounded(statistics.median(result.images_per_s)),
                "ours_is_times_as_fast": rounded(statistics.median(self.ratios(result))),
                "range": rounded((min(self.ratios(result)), max(self.ratios(result)))),
                "answers": rounded(asdict(result.answers)),
                "labels_agree": rounded(result.labels_agree),
                "rounds": rounded(result.images_per_s),
            }
            for result in self.results
        ]
        return {
            "gop": rounded(self.gop),
            "share_of_limit": rounded(self.shares()),
            "limits": [rounded(dict(limit)) for limit in self.limits],
            "ways": ways,
            "missing": dict(self.missing),
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


def save(contests: Sequence[Contest], *, full: bool, load_before: float, into: Path = RESULTS) -> Path:
    """Write one model's file: what a tuned `predict` serves, and each contest by its kind.

    Args:
        load_before: processes that wanted a core in the minute before the session: more than a few tenths of one,
            and others shared the machine.
    """
    head = {"model": contests[0].model, "what": contests[0].results[0].what}
    body = {contest.kind: contest.summary() for contest in contests}
    return keep(head, {"contests": body}, full=full, load_before=load_before, into=into)


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


def _end(number: int, frame: object) -> None:
    """A kill as an exception: what was started is ended too, and what was made for the while removed."""
    sys.exit(128 + number)


def _ranged(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
