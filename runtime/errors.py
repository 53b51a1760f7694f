"""The one error that a user can mend, and the exit codes every command shares."""

from __future__ import annotations

import sys
from collections.abc import Callable

DONE, PARTLY_DONE, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130

_EXTRAS = {
    "train": ("torch", "torchvision", "timm", "safetensors", "sklearn", "pandas", "pyarrow", "jinja2", "tensorboard"),
    "export": ("onnx", "onnxscript", "nncf"),
}


class UserError(Exception):
    """Something the user can put right; the message says what was wrong and what to type next."""


def exit_code(command: Callable[[], int]) -> int:
    """Run a command's body; a UserError becomes one clear line on stderr and code 2, Ctrl-C code 130."""
    try:
        return command()
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return USER_MISTAKE
    except ModuleNotFoundError as err:
        extra = next((extra for extra, names in _EXTRAS.items() if err.name in names), None)
        if extra is None:
            raise
        print(
            f"error: {err.name} is not installed\ninstall it with: pip install 'facet-edge[{extra}]'", file=sys.stderr
        )
        return USER_MISTAKE
    except OSError as err:
        print(f"error: {err.strerror or err}: {err.filename or 'output'}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
