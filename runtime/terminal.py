"""What a person meets at the terminal: options checked, progress on stderr, tables on stdout."""

from __future__ import annotations

import errno
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

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


def count(number: int, what: str) -> str:
    """So many of something, as it is said: `1 photo`, `2 photos`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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
    if quiet or not _is_terminal(sys.stderr):
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
    """A table on stdout, as wide as the terminal; off one a plain line a row, as wide as it needs, for other programs.

    Args:
        below: lines that say more than a cell has room for.
    """
    if sys.stdout is None:  # closed by who started this
        return
    # What steers a terminal, and what it cannot show, is no part of a table.
    encoding = sys.stdout.encoding or "utf-8"
    shown = [[_printable(cell, encoding) for cell in row] for row in rows]
    numeric = [bool(rows) and all(_is_number(row[index]) for row in rows) for index in range(len(columns))]
    told = [_printable(line, encoding) for line in below]
    try:
        if _is_terminal(sys.stdout):
            _draw(title, columns, shown, numeric)
        else:
            _list(title, columns, shown, numeric)
        for line in told:
            print(line)
        sys.stdout.flush()
    except OSError as err:  # `| head`, or a full disk: what a command leaves in files is not to be lost with it
        note(f"the table cannot be shown: {'nobody reads it any more' if err.errno == errno.EPIPE else err.strerror}")
        drop(sys.stdout)


def note(message: str, *, quiet: bool = False) -> None:
    """A line or two on stderr, beside the results; what a file says in them is neither obeyed nor shown in full."""
    if quiet or sys.stderr is None:  # closed by who started this
        return
    encoding = sys.stderr.encoding or "utf-8"
    lines = (_printable(line[:LONGEST_LINE], encoding) for line in message.split("\n"))
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:  # what cannot be told is no reason to lose what was done
        drop(sys.stderr)


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it, or is to be taken for one (force-color.org). Where none does, what draws for people
    is not loaded: that takes longer than to answer a photo."""
    return stream is not None and (stream.isatty() or bool(os.environ.get("FORCE_COLOR")))


def drop(stream: TextIO) -> None:
    """Send where there is room what it still holds and what it is given from now on."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())


def _list(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    if title:
        print(title)
    lines = [columns, *([cell or "-" for cell in row] for row in rows)]  # as many words as columns
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for cells in lines:
        laid = zip(cells, widths, numeric, strict=True)
        print("  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in laid).rstrip())


def _draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    console = Piped()
    table = Table(title=title or None, title_justify="left")
    widths, blanks = _fitted(list(zip(columns, *rows, strict=True)), console.width)
    table.padding = (0, blanks)
    for column, width, right in zip(columns, widths, numeric, strict=True):
        table.add_column(column, justify="right" if right else "left", overflow="fold", width=width)
    for row in rows:
        # Text, not str: a file name may hold brackets that rich would take for markup.
        table.add_row(*map(Text, row))
    console.print(table)


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
