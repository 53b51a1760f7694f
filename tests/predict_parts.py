"""What tests of the command share: it is run in this process, and its table read."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime import output
from runtime.errors import UserError
from runtime.fleet import Row
from runtime.predict import main


def run(*args: object) -> int:
    return main([os.fspath(arg) if isinstance(arg, Path) else str(arg) for arg in args])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@contextmanager
def stopped_after(rows: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The runs inside end with an error once so many rows are written, as on a full disk."""
    write = output.Unfinished.write

    def full(unfinished: output.Unfinished, row: Row) -> None:
        if unfinished.rows == rows:
            raise UserError("no room")
        write(unfinished, row)

    with monkeypatch.context() as patch:
        patch.setattr(output.Unfinished, "write", full)
        yield
