"""What tests of the command share: it is run in this process, and its table read."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from runtime.predict import main


def run(*args: object) -> int:
    return main([os.fspath(arg) if isinstance(arg, Path) else str(arg) for arg in args])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
