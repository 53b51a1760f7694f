"""The results files that the README is made of, and how a table is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DATED = "????-??-??"


@contextmanager
def figures(path: Path) -> Iterator[Any]:
    """A results file's content; what is wrong with it, even if only its use shows it, is told in its name."""
    try:
        text = path.read_text(encoding="utf-8")
        yield json.loads(text) if path.suffix == ".json" else text
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as err:
        name = path.relative_to(ROOT)
        raise SystemExit(
            f"{name} is not as its benchmark writes it: {err!r}\nremove it, or put it back with: git checkout {name}"
        ) from None


def latest(name: str, *, command: str = "python -m benchmarks.{}") -> Path:
    """The newest file of that benchmark, whichever machine it is of."""
    found = by_date(f"{name}_*")
    if not found:
        raise SystemExit(f"no benchmarks/results/{name}_*_{DATED}.json\nmake it with: {command.format(name)}")
    return found[-1]


def by_date(pattern: str) -> list[Path]:
    """The files of that name and any date, the newest last: the date stands behind the machine."""
    return sorted(RESULTS.glob(f"{pattern}_{DATED}.json"), key=lambda path: (path.stem[-len(DATED) :], path.name))


def table(header: Sequence[str], lines: Sequence[str], path: Path | None = None) -> str:
    """In Markdown, with a link to the one file that it is of."""
    below = [f"[file](benchmarks/results/{path.name})\n"] if path else []
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines, "", *below])
