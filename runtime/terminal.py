"""What a person meets at the terminal: options checked, progress on stderr, tables on stdout."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


def positive(text: str) -> int:
    """An option's whole number, 1 or more; argparse shows what it raises."""
    try:
        number = int(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if number < 1:
        raise ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


@contextmanager
def progress(label: str, total: float | None, *, quiet: bool = False) -> Iterator[Callable[[float], None]]:
    """A bar with the time left on stderr; call what it gives with the amount done since the last call."""
    if quiet:
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeLeft(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; off a terminal it is as wide as its content, so that nothing is cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    table = Table(title=title or None, title_justify="left")
    for index, column in enumerate(columns):
        numeric = rows and all(_is_number(row[index]) for row in rows)
        # The first column names the row: it stays whole, the others wrap.
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        # Text, not str: a file name may hold brackets that rich would take for markup.
        table.add_row(*(Text(_printable(cell, console.encoding)) for cell in row))
    console.print(table)


def note(message: str, *, quiet: bool = False) -> None:
    """One line on stderr, beside the results."""
    if not quiet:
        import sys

        print(message, file=sys.stderr)


def _printable(cell: str, encoding: str) -> str:
    """What the terminal cannot show, and what would steer it, such as an escape in a file's name, as its code."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cell)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").replace("-", "").replace("%", "").replace("+", "").isdigit() or not cell
