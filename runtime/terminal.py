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


class Bar:
    """Call it with the amount done since the last call; nothing is shown until `progress` gives it what shows it."""

    def __init__(self, show: Callable[[float, str], None] = lambda amount, state: None) -> None:
        self._show = show
        self._state = ""

    def __call__(self, amount: float) -> None:
        self._show(amount, self._state)

    def tell(self, state: str) -> None:
        """Say behind the label what is going on."""
        self._state = state
        self(0)


@contextmanager
def progress(label: str, total: float | None, *, quiet: bool = False) -> Iterator[Bar]:
    """A bar with the time left on stderr; without a total it shows what is done alone."""
    if quiet:
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True)
    # What is left of the line beside the label, what is told behind it, and the figures.
    room = console.width - len(label) - 53
    columns = [TextColumn("{task.description}"), BarColumn(max(8, min(40, room))), MofNCompleteColumn()]
    columns += [TextColumn("in"), TimeElapsedColumn()]
    columns += [TextColumn("left"), TimeLeft()] if total is not None else []
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=total)
        yield Bar(
            lambda amount, state: bar.update(task, advance=amount, description=f"{label}, {state}" if state else label)
        )


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, below: Sequence[str] = ()
) -> None:
    """A table on stdout; off a terminal it is as wide as its content, so that nothing is cut.

    Args:
        below: lines that say more than a cell has room for.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    table = Table(title=title or None, title_justify="left")
    # A line before and behind each column, and a blank on either side of its content: those give way to whole words.
    if sum(map(_longest_word, zip(columns, *rows, strict=True))) + 3 * len(columns) + 1 > console.width:
        table.padding = (0, 0)
    for index, column in enumerate(columns):
        numeric = rows and all(_is_number(row[index]) for row in rows)
        # The first column names the row: it stays whole, the others wrap.
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        # Text, not str: a file name may hold brackets that rich would take for markup.
        table.add_row(*(Text(_printable(cell, console.encoding)) for cell in row))
    console.print(table)
    for line in below:
        console.print(Text(_printable(line, console.encoding)))


def note(message: str, *, quiet: bool = False) -> None:
    """One line on stderr, beside the results."""
    if not quiet:
        import sys

        print(message, file=sys.stderr)


def _longest_word(column: Sequence[str]) -> int:
    return max((len(word) for cell in column for word in cell.split()), default=0)


def _printable(cell: str, encoding: str) -> str:
    """What the terminal cannot show, and what would steer it, such as an escape in a file's name, as its code."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cell)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").replace("-", "").replace("%", "").replace("+", "").isdigit() or not cell
