"""What a person meets at the terminal: options checked, progress on stderr, tables on stdout."""

from __future__ import annotations

import errno
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# Of what is told: a file may put anything into an error's line.
LONGEST_LINE = 2000


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
    """A bar with the time left on stderr, where that is a terminal; without a total it shows what is done alone."""
    # FORCE_COLOR is what rich goes by too; it is asked here since what draws a bar takes longer to load than a photo to
    # answer.
    if quiet or not (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
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

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "nobody reads it any more")

    console = Piped()
    if not console.is_terminal:
        console = Piped(width=10_000)
    table = Table(title=title or None, title_justify="left")
    # What steers a terminal, and what it cannot show, is no part of a table.
    shown = [[_printable(cell, console.encoding) for cell in row] for row in rows]
    widths, blanks = _fitted(list(zip(columns, *shown, strict=True)), console.width)
    table.padding = (0, blanks)
    for index, (column, width) in enumerate(zip(columns, widths, strict=True)):
        numeric = rows and all(_is_number(row[index]) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", width=width)
    for row in shown:
        # Text, not str: a file name may hold brackets that rich would take for markup.
        table.add_row(*map(Text, row))
    try:
        console.print(table)
        for line in below:
            console.print(Text(_printable(line, console.encoding)))
    except OSError as err:  # `| head`, or a full disk: what a command leaves in files is not to be lost with it
        note(f"the table cannot be shown: {err.strerror}")
        # What is said later, and the rest of this at the end, goes where there is room.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def note(message: str, *, quiet: bool = False) -> None:
    """A line or two on stderr, beside the results; what a file says in them is neither obeyed nor shown in full."""
    if not quiet:
        encoding = sys.stderr.encoding or "utf-8"
        lines = (_printable(line[:LONGEST_LINE], encoding) for line in message.split("\n"))
        print("\n".join(lines), file=sys.stderr)


def _longest_word(column: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max((cell_len(word) for cell in column for word in cell.split()), default=0)


def _fitted(columns: Sequence[Sequence[str]], width: int) -> tuple[Sequence[int | None], int]:
    """How wide each column is to be, and the blanks on either side of its content; None leaves it to rich, which
    breaks words.

    What gives way, in this order: lines of several words, the blanks, and the first column's lines, which name the row.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in columns]
    words = list(map(_longest_word, columns))
    for least, blanks in (([widths[0], *words[1:]], 1), ([widths[0], *words[1:]], 0), (words, 0)):
        room = width - (1 + 2 * blanks) * len(columns) - 1
        if sum(least) <= room:
            while sum(widths) > room:
                wide = (index for index in range(len(widths)) if widths[index] > least[index])
                widths[max(wide, key=lambda index: widths[index])] -= 1
            return widths, blanks
    return [None] * len(columns), 0


def _printable(cell: str, encoding: str) -> str:
    """What the terminal cannot show, and what would steer it, such as an escape in a file's name, as its code."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cell)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").replace("-", "").replace("%", "").replace("+", "").isdigit() or not cell
