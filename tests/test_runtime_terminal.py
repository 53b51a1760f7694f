"""What a person sees at a terminal of any width."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from runtime.errors import UserError, exit_code
from runtime.terminal import LONGEST_LINE, Bar, note, print_table, progress

COLUMNS = ("attribute", "loss", "accuracy", "weighted F1", "micro F1", "macro F1", "HM", "baseline HM", "labels")
ROW = ("sleeve_length", "0.930", "0.529", "0.487", "0.529", "0.381", "0.443", "0.279", "34")


GATE = ("artifact", "engine", "MB", "max difference", "agreement", "HM", "points lost", "images/s", "verdict")
PLAN = ("fp16 sm89", "tensorrt-rtx", "5.47", "1.2e-03", "1.000", "0.516", "0.12 (< 0.56)", "260.9", "passed")
ROOT = Path(__file__).resolve().parents[1]
JOINT = ("Women Tops & Tunics 袖 sleeve_styling", *ROW[1:])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, as wide as one is when it is opened."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(("columns", "row"), [(COLUMNS, ROW), (COLUMNS, JOINT), (GATE, PLAN)])
def test_a_wide_table_breaks_no_word_on_a_narrow_terminal(
    terminal: None, capsys: pytest.CaptureFixture[str], columns: tuple[str, ...], row: tuple[str, ...]
) -> None:
    print_table("Dress", columns, [row])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(cell_len, lines)) <= 80
    words = {word for line in lines for word in line.replace("┃", " ").replace("│", " ").split()}
    assert words >= {word for cell in (*columns, *row) for word in cell.split()}


@pytest.mark.parametrize("width", ["80", ""])
def test_what_has_no_room_in_a_cell_is_said_below_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", width)
    print_table("Dress", COLUMNS, [ROW], below=["refused: a\x1b[2Jb"])
    assert capsys.readouterr().out.splitlines()[-1] == "refused: a\\x1b[2Jb"


def test_off_a_terminal_a_table_is_a_plain_line_a_row_as_wide_as_its_content(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table("Dress", COLUMNS[:4], [ROW[:4], ("neck \x1b[2J", "", "", "0.500")])
    assert capsys.readouterr().out.splitlines() == [
        "Dress",
        "attribute       loss  accuracy  weighted F1",
        "sleeve_length  0.930     0.529        0.487",
        "neck \\x1b[2J       -         -        0.500",
    ]


def test_off_a_terminal_what_draws_for_people_is_not_loaded() -> None:
    code = """if True:
        import sys
        from runtime.terminal import print_table, progress
        print_table("t", ("a",), [("1",)])
        with progress("photos", 2) as bar:
            bar(1)
        print("rich" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("said", ["2>&-", "2>/dev/full"])
def test_what_cannot_be_said_costs_nothing_else(said: str) -> None:
    code = """if True:
        from runtime.errors import exit_code
        from runtime.terminal import note, print_table, progress
        def command():
            with progress("photos", 1) as bar:
                bar(1)
            note("2 photos")
            print_table("", ("a", "b"), [("x", "1")])
            return 0
        raise SystemExit(exit_code(command))
    """
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{code}' {said}"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["a  b", "x  1"])


def test_a_table_that_nobody_can_see_costs_nothing_else() -> None:
    code = """if True:
        from runtime.terminal import note, print_table
        print_table("", ("a", "b"), [("x", "1")])
        note("and is done")
    """
    for out, said in ((">&-", ""), (">/dev/full", "the table cannot be shown: No space left on device\n")):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -c '{code}' {out}"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert done.stderr == f"{said}and is done\n"


@pytest.mark.parametrize("total", [2.0, None])
def test_a_bar_tells_what_is_done_and_what_goes_on_in_one_line(
    terminal: None, capsys: pytest.CaptureFixture[str], total: float | None
) -> None:
    with progress("Women Tops & Tunics, phase 1", total) as bar:
        bar(1)
        bar.tell("best HM 0.303")
        bar(1)
    *_, last = (line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "Tunics" in line)
    assert "Women Tops & Tunics, phase 1, best HM 0.303" in last
    assert f"2/{2 if total else '?'}" in last
    assert ("left" in last) == (total is not None)


def test_off_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("photos", 2) as bar:
        bar(1)
    assert capsys.readouterr() == ("", "")


def test_a_quiet_bar_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("photos", 2, quiet=True) as bar:
        bar(1)
        bar.tell("validation")
    assert capsys.readouterr() == ("", "")


def test_a_bar_goes_on_telling_what_it_was_told() -> None:
    told: list[tuple[float, str]] = []
    bar = Bar(lambda amount, state: told.append((amount, state)))
    bar(1)
    bar.tell("validation")
    bar(2)
    assert told == [(1, ""), (0, "validation"), (2, "validation")]


def test_what_a_file_says_in_an_error_is_neither_obeyed_nor_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise UserError(f"category 'Hat\x1b[2J' has {'x' * 10_000}\nrename it")

    assert exit_code(fail) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(r"error: category 'Hat\x1b[2J' has xxx") and len(first) < LONGEST_LINE + 10
    assert second == "rename it"
    note("写真\0")
    assert capsys.readouterr().err == "写真\\x00\n"


def test_a_command_whose_table_nobody_reads_goes_on() -> None:
    code = """if True:
        import sys
        from runtime.terminal import print_table
        for _ in range(3):
            print_table("t", ("a", "b"), [("x" * 50, "1")] * 2000)
        print("and is done", file=sys.stderr)
    """
    shell = f"{sys.executable} -c '{code}' | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "the table cannot be shown: nobody reads it any more\nand is done\n"
