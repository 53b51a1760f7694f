"""What is slow to make and may be made again, kept in the user's cache folder: whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.files import refuse_pipe, replacing

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGEST = 2 << 30
"""Bytes of one kind; what was not asked for the longest goes first."""
DIGEST_BYTES = 32


def folder(kind: str) -> Path:
    """Where things of that kind are: a bundle may lie where nobody may write, and go to other machines.

    OSError where the user has no home. The system's folder for temporary files would not do: it is everybody's, and
    others may have put there what an engine then loads.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  Path raises without a home
    if root.startswith("~"):  # as it was: there is neither HOME nor an entry for this user
        raise FileNotFoundError(errno.ENOENT, "no home folder is known", root)
    return Path(root, "facet-edge", kind)


def read(kind: str, made_of: Sequence[object]) -> bytes | None:
    """What was made of these, as JSON takes them; None where it is not there, or not as it was written."""
    try:
        path = _path(kind, made_of)
        refuse_pipe(path)
        with path.open("rb") as file:
            digest, kept = file.read(DIGEST_BYTES), file.read()
    except OSError:
        return None
    with suppress(OSError):  # a cache that may only be read serves all the same
        os.utime(path)
    return kept if hashlib.sha256(kept).digest() == digest else None


def write(kind: str, made_of: Sequence[object], content: Buffer) -> None:
    """Keep it for the next time, if there is room and leave to; then make room for what comes."""
    with suppress(OSError):
        with replacing(_path(kind, made_of)) as beside, beside.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        files = sorted(folder(kind).iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
        total = 0
        for path in files:
            with suppress(OSError):  # one that cannot be removed keeps no other
                total += path.lstat().st_size
                if total > LARGEST:
                    path.unlink()


def _path(kind: str, made_of: Sequence[object]) -> Path:
    return folder(kind) / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
