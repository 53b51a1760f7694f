"""The one error that a user can mend, and the exit codes every command shares."""

from __future__ import annotations

import sys
from collections.abc import Callable

DONE, PARTLY_DONE, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130


class UserError(Exception):
    """Something the user can put right; the message says what was wrong and what to type next."""


def exit_code(command: Callable[[], int]) -> int:
    """Run a command's body; a UserError becomes one clear line on stderr and code 2, Ctrl-C code 130."""
    try:
        return command()
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
