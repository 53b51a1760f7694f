"""The file of a run: a row a line as it comes, put in its place at the end, and gone on with after a kill.

Rows go to an unfinished file beside the one they are for, whose name holds a digest of what the run is made of: only
the same run goes on with it. Half a line, which a kill may leave, does not count, and what counts is whole batches: a
run that goes on sees the batches of one that was never stopped, and answers the same down to the last digit.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Protocol, TextIO

from runtime.errors import UserError
from runtime.files import refuse_pipe, replacing
from runtime.fleet import Row
from runtime.locks import is_free
from runtime.terminal import note

Value = str | float | None
"""A cell: text, a confidence, or nothing."""
DECIMALS = 4
# Of a Parquet file, held at once.
PARQUET_ROWS = 10_000
# Of a file that is compared.
BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a file says of each row, whatever its format."""

    columns: Sequence[str]
    """The first is what tells the rows apart."""
    values: Callable[[Row], Sequence[Value]]
    status: Callable[[Sequence[str], Row], str]
    """A row's own, told from the texts of its values, and from the row as it was before it was answered."""
    numbers: frozenset[str] = frozenset()
    """The columns that hold confidences; the others hold text."""
    newline: str = "\r\n"
    """Of a CSV table."""


class Form(Protocol):
    """How values become lines of text, and such lines texts again."""

    def header(self) -> str: ...

    def line(self, values: Sequence[Value]) -> str: ...

    def read(self, lines: Iterable[str]) -> Iterator[tuple[list[str], str]]:
        """The texts of each row, and the lines that it is made of; it ends before the first that is not whole."""
        ...


class Csv:
    """A CSV table (RFC 4180)."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, lineterminator=sheet.newline)

    def header(self) -> str:
        return self.line(self._sheet.columns)

    def line(self, values: Sequence[Value]) -> str:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._writer.writerow(map(_text, values))
        return self._buffer.getvalue()

    def read(self, lines: Iterable[str]) -> Iterator[tuple[list[str], str]]:
        taken: list[str] = []

        def one_by_one() -> Iterator[str]:
            for line in lines:
                taken.append(line)
                yield line

        with suppress(csv.Error):
            for texts in csv.reader(one_by_one(), strict=True):
                whole = "".join(taken)
                taken.clear()
                if len(texts) != len(self._sheet.columns) or not whole.endswith(self._sheet.newline):
                    return
                yield texts, whole


class JsonLines:
    """A JSON object a line (jsonlines.org), under the names of the columns; what does not apply is null."""

    def __init__(self, sheet: Sheet) -> None:
        self._columns = list(sheet.columns)

    def header(self) -> str:
        return ""

    def line(self, values: Sequence[Value]) -> str:
        rounded = (round(value, DECIMALS) if isinstance(value, float) else value for value in values)
        row = dict(zip(self._columns, rounded, strict=True))
        text = json.dumps(row, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # a file name that is no UTF-8: JSON can only spell it out
            text = json.dumps(row)
        return text + "\n"

    def read(self, lines: Iterable[str]) -> Iterator[tuple[list[str], str]]:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not line.endswith("\n") or not isinstance(row, dict) or list(row) != self._columns:
                return
            yield list(map(_text, row.values())), line


class Unfinished:
    """The rows of a run so far; `opened` makes one, and puts it in its place."""

    def __init__(self, path: Path, out: Path, form: Form, sheet: Sheet) -> None:
        self.rows = 0
        self.left = False
        """Whether the rows so far were put there, of a run that was interrupted."""
        self._path = path
        self._out = out
        self._form = form
        self._sheet = sheet
        self._mine = not path.exists()
        """Whether all that is there is this run's: then without a row it is worth nothing."""
        path.touch()
        self._file = path.open("r+b")
        self.handle = self._file.fileno()

    def disown(self) -> None:
        """Leave what is there to another run, whose it is."""
        self._mine = False

    def is_in_place(self) -> bool:
        """Whether the file that is written is still the one of its name."""
        try:
            return os.path.samestat(os.fstat(self.handle), self._path.stat())
        except OSError:
            return False

    def begin(self) -> None:
        """Forget what is there."""
        self.rows, self._mine = 0, True
        self._cut(0)
        self._put(self._form.header())

    def go_on(self, batch: int, waiting: Iterator[Row]) -> Iterator[str]:
        """Keep whole batches of what is there: the status of each of their rows, which are taken off those that wait.

        Raises UserError where they are not the same rows.
        """
        self._keep(batch)
        for number, (texts, _) in enumerate(self._read(), 1):
            row = next(waiting, None)
            expected = _text(self._sheet.values(row)[0]) if row else "nothing"
            if texts[0] != expected:
                raise UserError(
                    f"the unfinished run had {texts[0]} as number {number}, where {expected} is now\n"
                    "begin anew, without: --resume"
                )
            assert row is not None
            yield self._sheet.status(texts, row)

    def texts(self) -> Iterator[list[str]]:
        """Of the values of each row so far, those of a run before among them."""
        for texts, _ in self._read():
            yield texts

    def write(self, row: Row) -> None:
        """One more, which is there for a run that goes on, whatever happens to this one."""
        self._put(self._form.line(self._sheet.values(row)))
        self.rows += 1

    def finish(self) -> None:
        """Put the rows where they are for, in one step."""
        with _named(self._out):
            if self._out.suffix.lower() == PARQUET:
                self._convert()
                self._path.unlink()
            else:
                os.replace(self._path, self._out)

    def leave(self) -> None:
        """Put a copy of the rows so far there, where there are any: they can be looked at, and gone on with.

        Not over a table of something else, or of more rows: an unfinished one is not worth it.
        """
        import shutil  # slow to load, and seldom needed

        self._keep(1)
        if not self.rows or not self._goes_on_from(self._out):
            return
        self.left = True
        with _named(self._out):
            if self._out.suffix.lower() == PARQUET:
                self._convert()
            else:
                with replacing(self._out) as beside:
                    shutil.copyfile(self._path, beside)

    def _goes_on_from(self, out: Path) -> bool:
        """Whether what is there, if anything, is the beginning of these rows."""
        if not out.exists():
            return True
        with _named(out):
            if out.suffix.lower() == PARQUET:
                return self._begins_with(_first_column(out))
            with out.open("rb") as there, self._path.open("rb") as rows:
                while block := there.read(BLOCK):
                    if rows.read(len(block)) != block:
                        return False
        return True

    def _begins_with(self, names: Sequence[str] | None) -> bool:
        rows = (_as_utf8(texts[0]) for texts in self.texts())
        return names is not None and all(next(rows, None) == name for name in names)

    def close(self) -> None:
        """Leave nothing where there is no row, but for what another run left and this one did not come to."""
        worthless = self._mine and not self.rows and self.is_in_place()
        with suppress(OSError):  # what a full disk did not take is told of
            self._file.close()
        if worthless:
            self._path.unlink(missing_ok=True)

    def _keep(self, batch: int) -> None:
        end = self.rows = 0
        with self._lines() as file:
            if file.read(len(self._form.header())) == self._form.header():
                kept = end = len(_encoded(self._form.header()))
                for number, (_, lines) in enumerate(self._form.read(file), 1):
                    end += len(_encoded(lines))
                    if number % batch == 0:
                        kept, self.rows = end, number
                end = kept
        if self.rows:
            self._cut(end)
        else:
            self.begin()

    def _read(self) -> Iterator[tuple[list[str], str]]:
        with self._lines() as file:
            file.read(len(self._form.header()))
            yield from self._form.read(file)

    def _lines(self) -> TextIO:
        # A file name need not be UTF-8: surrogateescape gives its bytes back as they were.
        return self._path.open(encoding="utf-8", errors="surrogateescape", newline="")

    def _cut(self, end: int) -> None:
        with _named(self._out):  # to seek writes what Ctrl-C kept from being written
            self._file.seek(end)
            self._file.truncate()

    def _put(self, text: str) -> None:
        try:
            self._file.write(_encoded(text))
            self._file.flush()
        except OSError as err:
            raise UserError(
                f"cannot write {self._out}: {err.strerror}\nmend that, then go on: the same command and --resume"
            ) from err

    def _convert(self) -> None:
        import pyarrow
        from pyarrow import parquet

        # Not told by the values: a column may be empty throughout.
        number, text = pyarrow.float32(), pyarrow.string()
        columns = self._sheet.columns
        schema = pyarrow.schema([(name, number if name in self._sheet.numbers else text) for name in columns])
        with replacing(self._out) as beside, parquet.ParquetWriter(beside, schema) as writer:
            rows = (json.loads(lines) for _, lines in self._read())
            while chunk := list(islice(rows, PARQUET_ROWS)):
                values = [[_as_utf8(row[name]) for row in chunk] for name in columns]
                writer.write_batch(pyarrow.record_batch(values, schema=schema))


FORMS: dict[str, type[Csv] | type[JsonLines]] = {".csv": Csv, ".jsonl": JsonLines, ".ndjson": JsonLines}
PARQUET = ".parquet"
ENDINGS = (*FORMS, PARQUET)


@contextmanager
def opened(out: Path, sheet: Sheet, made_of: Sequence[object], *, resume: bool = False) -> Iterator[Unfinished]:
    """What takes the rows for `out`: a CSV table, JSON lines or Parquet by its ending.

    After the block the file is in its place; after an error what is done waits for a run that goes on.

    Args:
        made_of: all that the answers hang on, as JSON takes it.
        resume: leave what the same run had done before, for `go_on`.
    """
    if os.path.islink(out):  # noqa: PTH114  Path raises for a name that is too long
        out = Path(os.path.realpath(out))  # else the link's place would be taken, and not the file's that it leads to
    form = _form(out, sheet)
    digest = hashlib.sha256(json.dumps([*sheet.columns, *made_of]).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    path = out.parent / f".{out.name}.{digest}.part"
    with _named(out):
        # A folder would be found out only by the last step; a device or a pipe would have its place taken.
        if out.exists() and not out.is_file():
            raise UserError(f"cannot write {out}: it is not a file\nchoose another file with: --out FILE")
        out.parent.mkdir(parents=True, exist_ok=True)
        there = _unlocked(out)
        if resume and there and path not in there:
            raise UserError(
                f"the unfinished run of {out} was of other bundles, files or options\n"
                "go on with those, or begin anew, without: --resume"
            )
        note(f"nothing to go on from for {out}: from the beginning", quiet=not resume or path in there)
        for other in there:
            if not resume:
                note(f"an unfinished run of {out} is given up: this one has no --resume")
                other.unlink()
        unfinished = Unfinished(path, out, form, sheet)
    try:
        # Another run that found it free before this one had its lock may have given it up.
        if not is_free(unfinished.handle) or not unfinished.is_in_place():
            unfinished.disown()
            raise _taken(out)
        if not resume:
            unfinished.begin()
        yield unfinished
        unfinished.finish()
    except KeyboardInterrupt:
        unfinished.leave()
        raise
    finally:
        unfinished.close()


def _form(out: Path, sheet: Sheet) -> Form:
    ending = out.suffix.lower()
    if ending == PARQUET:
        if find_spec("pyarrow") is None:
            raise UserError(f"{out} needs pyarrow, which is not installed\ninstall it with: pip install pyarrow")
        return JsonLines(sheet)  # a Parquet file cannot grow, and is worth nothing without its end
    return FORMS.get(ending, Csv)(sheet)


def _first_column(out: Path) -> list[str] | None:
    """Of a Parquet file; None where it is none."""
    import pyarrow
    from pyarrow import parquet

    try:
        found: list[str] = parquet.ParquetFile(out).read().column(0).to_pylist()
    except (pyarrow.ArrowException, OSError):
        return None
    return found


def _unlocked(out: Path) -> list[Path]:
    """The unfinished files of `out`; UserError where another run is at one of them."""
    found = [path for path in out.parent.glob(".*.part") if path.name.startswith(f".{out.name}.")]
    for path in found:
        refuse_pipe(path)
        with path.open("rb") as file:
            if not is_free(file.fileno()):
                raise _taken(out)
    return found


def _taken(out: Path) -> UserError:
    return UserError(f"another run is writing {out}\nwait for it, or choose another file with: --out FILE")


@contextmanager
def _named(out: Path) -> Iterator[None]:
    """The system's refusal to write as a UserError that names the file."""
    try:
        yield
    except OSError as err:
        raise UserError(f"cannot write {out}: {err.strerror}\nchoose another file with: --out FILE") from err


def _text(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.{DECIMALS}f}" if isinstance(value, float) else value


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _as_utf8(value: Value) -> Value:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
