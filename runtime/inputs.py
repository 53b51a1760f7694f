"""The photos that a command is given: folders, files, patterns and lists, as names in order.

Names, not paths: of a million photos these take a third of the memory, which is why os.path is used here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator
from glob import glob
from pathlib import Path

from runtime.errors import UserError, with_example
from runtime.files import refuse_pipe

# What a folder is searched for. Some cannot be decoded: their row says so, where leaving them out would say nothing.
PHOTO_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".gif",
        ".jp2",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".heic",
        ".heif",
        ".psd",
        ".svg",
    ]
)
LIST_SUFFIX = ".txt"
EXAMPLE = ("python -m runtime.predict examples/photos/", "examples/photos")


def find(inputs: Iterable[Path], *, names: Container[str] | None = None) -> list[Path]:
    """As `find_names`, as paths."""
    return list(map(Path, find_names(inputs, names=names)))


def find_names(
    inputs: Iterable[Path],
    *,
    names: Container[str] | None = None,
    leave_out: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """The names of all photos of the inputs, each once, sorted as paths are: of a million some 150 MB.

    Folders are searched throughout, links to folders too; files are taken as they are; a name with `*`, `?` or `[` that
    is no file's stands for all that match it; a .txt file lists photos, one a line. A folder that may not be searched
    is among what is found: its row says so.

    Args:
        names: the files wanted, whatever their suffix, from folders and among the files given; None takes every photo.
        leave_out: told each file of a folder that is not taken; hidden ones go without saying.
    """
    found: list[str] = []
    several = False
    for path in _expanded(inputs):
        several = several or bool(found)
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as err:
            raise UserError(f"cannot look up {path}: {err.strerror}") from None
        if is_folder:
            before = len(found)
            found += _searched(os.fspath(path), names, leave_out)
            if len(found) == before and names is None:
                raise with_example(f"no photos in {path}: looked for {' '.join(sorted(PHOTO_SUFFIXES))}", *EXAMPLE)
        elif is_there and path.suffix.lower() == LIST_SUFFIX and names is None:
            found += _listed(path)
            several = True
        elif is_there:
            if names is None or path.name in names:
                found.append(os.fspath(path))
        else:
            raise with_example(f"no such file or folder: {path}", *EXAMPLE)
    return sorted(set(found), key=_in_order) if several else found


def _in_order(name: str) -> str:
    """A folder's photos stand before those of one whose name goes on: as the parts of a path compare."""
    return name.replace(os.sep, "\0")


def _expanded(inputs: Iterable[Path]) -> Iterator[Path]:
    for path in inputs:
        if any(sign in os.fspath(path) for sign in "*?[") and not path.exists():
            matches = sorted(map(Path, glob(os.fspath(path), recursive=True)))  # noqa: PTH207  from any folder
            if not matches:
                raise with_example(f"nothing matches {path}", *EXAMPLE)
            yield from matches
        else:
            yield path


def _searched(folder: str, names: Container[str] | None, leave_out: Callable[[str], None]) -> Iterator[str]:
    """The photos below a folder, sorted; a folder that is reached in several ways, by links, is searched once."""
    seen: set[tuple[int, int]] = set()
    # Names of what is still to be looked at, the next one last; folders end with a separator.
    waiting = [os.path.join(folder, "")]  # noqa: PTH118
    while waiting:
        name = waiting.pop()
        if not name.endswith(os.sep):
            yield name
            continue
        path = name.rstrip(os.sep) or os.sep
        try:
            found = os.stat(path)  # noqa: PTH116
            identity = (found.st_dev, found.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(path) as entries:
                inside = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError:
            if names is None:
                yield path
            continue
        for inner, is_folder in reversed(inside):
            below = os.path.join(path, inner) if path != "." else inner  # noqa: PTH118
            if is_folder:
                waiting.append(os.path.join(below, ""))  # noqa: PTH118
            elif ending_of(inner) in PHOTO_SUFFIXES if names is None else inner in names:
                waiting.append(below)
            elif not inner.startswith("."):
                leave_out(below)


def ending_of(name: str) -> str:
    """Such as `.jpg`, in small letters; empty where there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: it is told of as a file
        return False


def _listed(path: Path) -> list[str]:
    """The photos that a text file names, a line each; where one is not, its row says so."""
    try:
        refuse_pipe(path)
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}") from None
    if "\0" in text:
        raise UserError(f"{path} is not UTF-8 text\nsave it as UTF-8, a photo a line")
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    lines = [_plain(line) for line in lines if line.strip()]
    if not lines:
        raise UserError(f"{path} names no photo\ngive it a line for each, such as: {EXAMPLE[1]}/photo.jpg")
    return lines


def _plain(name: str) -> str:
    """Without what changes nothing in it; `..` behind a link leads elsewhere than it looks."""
    return name if ".." in Path(name).parts else os.path.normpath(name)
