"""How a command ends: by what its user can mend, or by Ctrl-C, whatever that interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import DONE, INTERRUPTED, USER_MISTAKE, UserError, exit_code

ROOT = Path(__file__).resolve().parents[1]
# A shell that puts a test run in the background makes it deaf to Ctrl-C, and so its children.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def fail(error: type[Exception], *args: object) -> int:
    raise error(*args)


@pytest.fixture
def hearing() -> Iterator[None]:
    """This process with Python's own answer to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hearing")
def test_what_a_user_can_mend_is_a_line_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: DONE) == DONE
    assert exit_code(lambda: fail(UserError, "no such thing\ntry: that")) == USER_MISTAKE
    assert exit_code(lambda: fail(OSError, 28, "No space left on device", "out.csv")) == USER_MISTAKE
    assert capsys.readouterr().err == ("error: no such thing\ntry: that\nerror: No space left on device: out.csv\n")
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: fail(ZeroDivisionError))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "it was not given back"


def interrupted_while_loading() -> int:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None
    return DONE


def test_a_command_that_nobody_reads_any_more_is_done() -> None:
    code = """if True:
        import sys
        from runtime.errors import exit_code
        def command():
            sys.stdin.read()
            print("x" * 100000)
            return 1
        raise SystemExit(exit_code(command))"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == DONE


@pytest.mark.usefixtures("hearing")
def test_ctrl_c_is_told_as_such_also_where_a_library_makes_another_error_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(interrupted_while_loading) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    # Another run of the same process has its own first Ctrl-C.
    assert exit_code(interrupted_while_loading) == INTERRUPTED


def test_a_second_ctrl_c_does_not_wait_for_what_is_cleaned_up() -> None:
    code = f"""if True:
        {HEARING}
        import time
        from runtime.errors import exit_code
        def command():
            try:
                print("at work", flush=True)
                time.sleep(60)
            finally:
                print("cleaning up", flush=True)
                time.sleep(60)
        raise SystemExit(exit_code(command))"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in ("at work", "cleaning up"):
                assert process.stdout is not None
                assert process.stdout.readline() == f"{line}\n"
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == INTERRUPTED
        finally:
            process.kill()
