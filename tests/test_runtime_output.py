"""The file of a run: whole or not there, in three formats, and gone on with after a kill at any byte."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from runtime import output, table
from runtime.errors import UserError
from runtime.fleet import Row
from runtime.predictor import Answer

SHEET = table.sheet(["colour"])
NAMES = ["a.jpg", "b, or so.jpg", "c\nd.jpg", 'e "f".jpg', "g\r\nh.jpg", os.fsdecode(b"i\xff.jpg"), "写真.jpg", "z.jpg"]
ENDINGS = [".csv", ".jsonl", ".parquet"]


def rows(count: int = len(NAMES)) -> list[Row]:
    made = [Row(image=Path(name), answers={"colour": Answer("red", 1 / 3)}) for name in NAMES[:count]]
    for row in made[2::5]:
        row.answers.clear()
        row.fail("the file is empty")
    return made


def write(path: Path, what: Iterable[Row], *, made_of: object = "") -> None:
    with output.opened(path, SHEET, [made_of]) as out:
        for row in what:
            out.write(row)


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return list(parquet.read_table(path).to_pylist())
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_format_holds_each_row_under_the_same_names(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"out{ending}"
    write(path, rows())
    found = read(path)
    assert [list(row) for row in found] == [list(SHEET.columns)] * len(NAMES)
    # A Parquet file is UTF-8 throughout.
    names = [name.replace("\udcff", "\\udcff") for name in NAMES] if ending == ".parquet" else NAMES
    assert [row["image"] for row in found] == names
    assert [row["status"] for row in found] == ["ok", "ok", "error", "ok", "ok", "ok", "ok", "error"]
    assert found[0]["colour"] == "red"
    confidence, nothing = {".csv": ("0.3333", "")}.get(ending, (pytest.approx(0.3333, abs=1e-6), None))
    assert [row["colour_confidence"] for row in found[:3]] == [confidence, confidence, nothing]
    assert found[2]["colour"] == nothing
    assert list(path.parent.iterdir()) == [path]


def test_parquet_takes_more_rows_than_it_holds_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PARQUET_ROWS", 3)
    write(tmp_path / "out.parquet", rows())
    assert len(read(tmp_path / "out.parquet")) == len(NAMES)
    write(tmp_path / "none.parquet", [])
    assert read(tmp_path / "none.parquet") == []


def test_without_pyarrow_the_install_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs pyarrow, .+\ninstall it with: pip install pyarrow$"):
        write(tmp_path / "out.parquet", [])
    assert not list(tmp_path.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with output.opened(path, SHEET, []) as out:
        out.write(rows()[0])
        assert path.read_text() == "old"
    assert len(read(path)) == 1


def stopped(path: Path, count: int, error: BaseException, *, made_of: object = "") -> None:
    """A run that ends after so many rows."""

    def failing() -> Iterator[Row]:
        yield from rows(count)
        raise error

    with pytest.raises(type(error)):
        write(path, failing(), made_of=made_of)


def parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(".*.part"))


def go_on(path: Path, *, batch: int = 1, what: list[Row] | None = None, made_of: object = "") -> tuple[list[str], int]:
    """Go on with a stopped run: the statuses of what was there, and how many rows it wrote itself."""
    waiting = iter(rows() if what is None else what)
    with output.opened(path, SHEET, [made_of], resume=True) as out:
        statuses = list(out.go_on(batch, waiting))
        written = 0
        for row in waiting:
            out.write(row)
            written += 1
    return statuses, written


def test_an_error_leaves_the_old_file_and_what_was_done_for_a_run_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    stopped(path, 3, RuntimeError())
    assert path.read_text() == "old"
    assert len(parts(path)) == 1
    write(tmp_path / "whole.csv", rows())
    assert go_on(path) == (["ok", "ok", "error"], len(NAMES) - 3)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not parts(path)


def test_an_error_before_the_first_row_leaves_nothing(tmp_path: Path) -> None:
    stopped(tmp_path / "out.csv", 0, RuntimeError())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_ctrl_c_puts_the_rows_so_far_in_place_and_goes_on_from_them(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    stopped(path, 5, KeyboardInterrupt())
    assert len(read(path)) == 5
    _, written = go_on(path, batch=2)
    assert written == len(NAMES) - 4
    write(tmp_path / f"whole{ending}", rows())
    assert path.read_bytes() == (tmp_path / f"whole{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_ctrl_c_leaves_a_table_that_was_there_and_keeps_the_rows_for_a_run_that_goes_on(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"out{ending}"
    write(path, rows(), made_of="earlier")
    before = path.read_bytes()
    with suppress(KeyboardInterrupt), output.opened(path, SHEET, [""]) as out:
        for row in rows()[:5]:
            row.answers = {"colour": Answer("blue", 0.5)}
            row.image = Path(f"new {row.image}")
            out.write(row)
        raise KeyboardInterrupt
    assert not out.left
    assert path.read_bytes() == before
    (part,) = parts(path)
    assert part.read_bytes().count(b"new ") == 5


def test_ctrl_c_leaves_a_longer_table_of_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(path, rows())
    stopped(path, 3, KeyboardInterrupt())
    assert len(read(path)) == len(NAMES)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_kill_at_any_byte_is_gone_on_from_to_the_same_file(tmp_path: Path, ending: str, batch: int) -> None:
    path = tmp_path / f"out{ending}"
    stopped(path, len(NAMES), RuntimeError())
    (part,) = parts(path)
    content = part.read_bytes()
    write(tmp_path / f"whole{ending}", rows())
    for length in range(len(content) + 1):
        part.write_bytes(content[:length])
        statuses, written = go_on(path, batch=batch)
        assert len(statuses) % batch == 0
        assert len(statuses) + written == len(NAMES)
        assert path.read_bytes() == (tmp_path / f"whole{ending}").read_bytes(), length
    # All that is whole is kept, or going on would be beginning anew.
    assert len(statuses) == len(NAMES) // batch * batch


@pytest.mark.parametrize("error", [RuntimeError, UserError])
def test_what_fails_before_it_goes_on_leaves_what_was_there(tmp_path: Path, error: type[Exception]) -> None:
    """As a network that cannot be opened does."""
    path = tmp_path / "out.csv"
    stopped(path, 3, RuntimeError())
    before = [part.read_bytes() for part in parts(path)]
    with pytest.raises(error), output.opened(path, SHEET, [""], resume=True):
        raise error("no memory for the network")
    assert [part.read_bytes() for part in parts(path)] == before
    assert go_on(path)[1] == len(NAMES) - 3


def test_where_there_is_nothing_to_go_on_from_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), output.opened(tmp_path / "out.csv", SHEET, [""], resume=True):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_an_attribute_named_like_a_confidence_is_text_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    row = Row(image=Path("a.jpg"), answers={"dye_confidence": Answer("sure", 0.5)})
    with output.opened(tmp_path / "out.parquet", table.sheet(["dye_confidence"]), []) as out:
        out.write(row)
    (found,) = read(tmp_path / "out.parquet")
    assert (found["dye_confidence"], found["dye_confidence_confidence"]) == ("sure", 0.5)


def test_a_run_made_of_something_else_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    stopped(path, 3, RuntimeError(), made_of="one bundle")
    before = parts(path)
    with pytest.raises(
        UserError, match=r"was of other bundles, files or options\ngo on with those, or begin anew, without: --r"
    ):
        go_on(path, made_of="another bundle")
    assert parts(path) == before
    assert go_on(path, made_of="one bundle")[1] == len(NAMES) - 3


def test_other_photos_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    stopped(path, 3, RuntimeError())
    renamed = [Row(image=Path("new.jpg")), *rows()]
    with pytest.raises(
        UserError, match=r"^the unfinished run had a\.jpg as number 1, where new\.jpg is now\nbegin anew"
    ):
        go_on(path, what=renamed)
    with pytest.raises(
        UserError, match=r"^the unfinished run had b, or so\.jpg as number 2, where nothing is now\nbegin"
    ):
        go_on(path, what=rows(1))
    assert go_on(path)[1] == len(NAMES) - 3


def test_with_nothing_to_go_on_from_it_says_so_and_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go_on(tmp_path / "out.csv") == ([], len(NAMES))
    assert capsys.readouterr().err == f"nothing to go on from for {tmp_path / 'out.csv'}: from the beginning\n"


def test_beginning_anew_sweeps_what_earlier_runs_left(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    stopped(path, 2, RuntimeError(), made_of="one")
    stopped(path, 2, RuntimeError(), made_of="one")
    (tmp_path / ".other.csv.00000000.part").write_text("another file's")
    write(path, rows(), made_of="another")
    assert [part.name for part in parts(path)] == [".other.csv.00000000.part"]


@pytest.mark.parametrize("made_of", ["one", "another"])
def test_two_runs_do_not_write_one_file(tmp_path: Path, made_of: str) -> None:
    path = tmp_path / "out.csv"
    with output.opened(path, SHEET, ["one"]) as out:
        out.write(rows()[0])
        for resume in (False, True):
            with (
                pytest.raises(UserError, match=r"^another run is writing \S+out\.csv\nwait for it, or choose"),
                output.opened(path, SHEET, [made_of], resume=resume),
            ):
                pytest.fail("it was let in")
    assert len(read(path)) == 1


def test_a_file_that_cannot_be_written_is_refused_before_any_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    before = sorted(tmp_path.rglob("*"))
    for name in (".", "/", "..", "folder", "folder/", "pipe", "file/out.csv", "/proc/out.csv", "x" * 300):
        with (
            pytest.raises(UserError, match=rf"^cannot write {Path(name)}: .+\nchoose another file with: --out FILE$"),
            output.opened(Path(name), SHEET, []),
        ):
            pytest.fail(f"{name!r} was taken for a file that can be written")
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("file").read_text() == "mine"
    assert Path("pipe").is_fifo()


def test_after_a_full_disk_the_rows_that_fitted_are_gone_on_from(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    refusal = r"^cannot write \S+out\.csv: File too large\nmend that, then go on: the same command and --resume$"
    with largest_file(300), pytest.raises(UserError, match=refusal):
        write(path, rows())
    assert path.read_text() == "old"
    statuses, written = go_on(path)
    assert 2 < len(statuses) < len(NAMES)
    assert len(read(path)) == len(statuses) + written == len(NAMES)


def test_a_row_that_ctrl_c_left_for_a_full_disk_is_refused_under_the_table_s_own_name(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    def interrupted() -> None:
        with output.opened(tmp_path / "out.csv", SHEET, []) as out:
            out.write(rows()[0])
            out._file.write(bytes(300))  # not flushed: Ctrl-C may come between the two
            raise KeyboardInterrupt

    with largest_file(300), pytest.raises(UserError, match=r"^cannot write \S+/out\.csv: File too large\n"):
        interrupted()


def test_a_run_whose_unfinished_file_was_given_up_before_it_had_its_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = output.is_free

    def too_late(handle: int) -> bool:
        (made,) = tmp_path.glob(".out.csv.*.part")
        made.unlink()
        return lock(handle)

    monkeypatch.setattr(output, "is_free", too_late)
    with pytest.raises(UserError, match=r"^another run is writing"), output.opened(tmp_path / "out.csv", SHEET, []):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_refused_leaves_the_others_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both saw that there was none, and only one of them has its lock.
    monkeypatch.setattr(output, "is_free", lambda handle: False)
    with pytest.raises(UserError, match=r"^another run is writing"), output.opened(tmp_path / "out.csv", SHEET, []):
        pass
    assert len(list(tmp_path.glob(".out.csv.*.part"))) == 1
