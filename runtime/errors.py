"""The one error that a user can mend, and the exit codes every command shares."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DONE, PARTLY_DONE, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130

# A progress bar hides it.
SHOW_CURSOR = b"\x1b[?25h"

_EXTRAS = {
    "train": ("torch", "torchvision", "timm", "safetensors", "sklearn", "pandas", "pyarrow", "jinja2", "tensorboard"),
    "export": ("onnx", "onnxscript", "nncf"),
}


class UserError(Exception):
    """Something the user can put right; the message says what was wrong and what to type next."""


def with_example(message: str, command: str, needs: str) -> UserError:
    """The error with the example to try behind it, where one stands in the clone that holds what it needs."""
    return UserError(f"{message}\ntry the example with: {command}" if Path(needs).exists() else message)


def exit_code(command: Callable[[], int], *, extra: str = "") -> int:
    """Run a command's body; a UserError becomes one clear line on stderr and code 2, Ctrl-C code 130.

    A second Ctrl-C ends the process at once, as a kill would.

    Args:
        extra: what the command needs installed of facet-edge; else it is told by the module that is missing.
    """
    from runtime.terminal import drop, note

    try:
        with _interrupts() as pressed:
            try:
                return command()
            except Exception:
                if pressed:  # a library that is stopped while it is loaded calls it an ImportError
                    raise KeyboardInterrupt from None
                raise
    except UserError as err:
        note(f"error: {err}")
        return USER_MISTAKE
    except ModuleNotFoundError as err:
        missing = next((name for name, modules in _EXTRAS.items() if err.name in modules), None)
        if missing is None:
            raise
        note(f"error: {err.name} is not installed\nin the clone of Facet: pip install '.[{extra or missing}]'")
        return USER_MISTAKE
    except BrokenPipeError:  # who read it has enough
        drop(sys.stdout)
        return DONE
    except OSError as err:
        note(f"error: {err.strerror or err}: {err.filename or 'output'}")
        return USER_MISTAKE
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED


_pressed: list[int] = []
"""Each Ctrl-C since the command began."""


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C as ever, but noted, and only once: who presses it again does not want to wait for what is cleaned up."""
    # Not where a program of its own has another use for it, or a shell that put this in the background.
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _press)
    if ours:
        _pressed.clear()
        signal.signal(signal.SIGINT, _press)
    try:
        yield _pressed if ours else []
    finally:
        if ours and not _pressed:  # else the process is about to end, which takes its time too
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _press(number: int, frame: object) -> None:
    _pressed.append(number)
    if len(_pressed) > 1:
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt
