"""The one error that a user can mend, and the exit codes every command shares."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

DONE, PARTLY_DONE, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130

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

    Args:
        extra: what the command needs installed of facet-edge; else it is told by the module that is missing.
    """
    try:
        return command()
    except UserError as err:
        from runtime.terminal import note

        note(f"error: {err}")
        return USER_MISTAKE
    except ModuleNotFoundError as err:
        missing = next((name for name, modules in _EXTRAS.items() if err.name in modules), None)
        if missing is None:
            raise
        print(
            f"error: {err.name} is not installed\ninstall it with: pip install 'facet-edge[{extra or missing}]'",
            file=sys.stderr,
        )
        return USER_MISTAKE
    except OSError as err:
        print(f"error: {err.strerror or err}: {err.filename or 'output'}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
