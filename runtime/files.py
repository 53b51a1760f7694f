"""Files written whole or not at all, and read only where they are files."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a half."""
    with replacing(path) as beside:
        beside.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write instead of `path`, whose place it takes in one step at the end; on an error nothing changes."""
    import tempfile  # slower to load than all else here, and a command that only reads does not need it

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as err:
        err.filename = os.fspath(path)  # not that of a file which nobody asked for
        raise
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes the file private; a bundle is to be read by whoever serves it.
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        os.replace(beside, path)
    except BaseException as err:
        beside.unlink(missing_ok=True)
        # A full disk's error names no file, or the one beside.
        if isinstance(err, OSError) and err.filename in (None, name):
            err.filename = os.fspath(path)
        raise


def refuse_pipe(path: Path) -> None:
    """Raise OSError for what is there and is no file: who opens a pipe may wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex, read in blocks."""
    refuse_pipe(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def probe(folder: Path) -> None:
    """Raise OSError unless a file can be made in `folder`, or where it will be: known before the work, not after."""
    import tempfile

    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as err:
        err.filename = os.fspath(folder)  # not that of a file which nobody asked for
        raise
