"""A folder for one process alone: two that write to it at a time would mix their files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import UserError

# The workers of a training that was killed hold its folder until they see that it is gone, which takes torch's five.
PATIENCE_S = 8.0


@contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """The folder, made where it is not there, for this process until it ends; gone again where nothing came of it.

    Raises UserError where another process has it, and OSError where it cannot be made.

    Args:
        work: what the other is at, such as `training`.
    """
    made = [each for each in (folder, *folder.parents) if not _exists(each)]
    handle = -1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        patience = time.monotonic() + PATIENCE_S
        while not is_free(handle):
            if time.monotonic() > patience:
                raise UserError(
                    f"another {work} is writing to {folder}\nwait for it, or choose another folder with: --out DIR"
                )
            time.sleep(0.1)
        yield
    finally:
        if handle >= 0:
            os.close(handle)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def is_held(folder: Path) -> bool:
    """Whether another process has the folder now."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not is_free(handle)
    finally:
        os.close(handle)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def is_free(handle: int) -> bool:
    """Whether the file or folder is ours now; the kernel lets go of it however this process ends."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a network filesystem that has no such locks
    return True
