"""The table that every way but the project's writes: a photo's name, then each attribute's label and probability."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from train.checkpoint import Checkpoint

    Write = Callable[[Path, Sequence[np.ndarray]], None]


@contextmanager
def opened(out: Path, page: Checkpoint) -> Iterator[Write]:
    """What writes a photo's row, given its probabilities [K] of each attribute, in the page's order."""
    attributes = page.attributes
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = (attribute.name for attribute in attributes)
        writer.writerow(["image", *(column for name in names for column in (name, f"{name}_confidence"))])

        def write(path: Path, answers: Sequence[np.ndarray]) -> None:
            row = [str(path)]
            for attribute, answer_K in zip(attributes, answers, strict=True):
                best = int(answer_K.argmax())
                row += [attribute.classes[best], f"{answer_K[best]:.4f}"]
            writer.writerow(row)

        yield write
