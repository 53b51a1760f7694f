"""The table of predictions: a row for each photo, in a file and on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from runtime.errors import UserError
from runtime.fleet import Row
from runtime.output import Sheet, Value
from runtime.terminal import print_table

FIXED = ("image", "category", "category_confidence", "routed_from", "status", "error")


def sheet(attributes: Sequence[str], *, top: int = 1, least: float = 0.0) -> Sheet:
    """The columns of every row, then each attribute and its confidence; blank where it does not apply.

    Args:
        top: how many labels an attribute has, the likeliest first, the others in columns with a number behind the name.
        least: a label of less confidence is left blank, and its confidence kept.
    """
    names = columns(attributes, top=top)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"two columns of the table would be called {repeated[0]!r}\nrename that attribute, and train anew"
        )
    return Sheet(
        columns=names,
        # They come in pairs, a label and its confidence.
        numbers=frozenset(["category_confidence", *names[len(FIXED) + 1 :: 2]]),
        values=lambda row: values(row, attributes, top=top, least=least),
        status=lambda texts, row: texts[FIXED.index("status")],
    )


def columns(attributes: Sequence[str], *, top: int = 1) -> list[str]:
    """The header."""
    names = [f"{name}_{rank}" if rank > 1 else name for name in attributes for rank in range(1, top + 1)]
    return [*FIXED, *(column for name in names for column in (name, f"{name}_confidence"))]


def values(row: Row, attributes: Sequence[str], *, top: int = 1, least: float = 0.0) -> list[Value]:
    """A row's values in the header's order."""
    found: list[Value] = [
        str(row.image),
        row.category,
        row.category_confidence,
        row.routed_from,
        row.status,
        row.error,
    ]
    for name in attributes:
        answer = row.answers.get(name)
        ranked = [answer, *answer.others] if answer else []
        for each in ranked[:top]:
            found += [each.label if each.confidence >= least else None, each.confidence]
        found += [None, None] * (top - len(ranked[:top]))
    return found


def show(rows: Sequence[Row], *, least: float = 0.0) -> None:
    """The rows on the terminal: photo, category, and the answers or the error in one cell that wraps."""

    def told(row: Row) -> str:
        if row.status != "ok":
            return f"{row.status}: {row.error}"
        sure = ((name, answer) for name, answer in row.answers.items() if answer.confidence >= least)
        return " · ".join(f"{name} {answer.label} {answer.confidence:.2f}" for name, answer in sure)

    names = Counter(row.image.name for row in rows)
    called = [row.image.name if names[row.image.name] == 1 else str(row.image) for row in rows]
    cells = [(name, row.category, told(row)) for name, row in zip(called, rows, strict=True)]
    print_table("", ("photo", "category", "attributes, with confidence"), cells)
