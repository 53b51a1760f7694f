"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runtime import files


def test_a_file_that_could_not_be_written_stays_what_it_was(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    page = tmp_path / "page"
    page.write_bytes(b"old")
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        files.replace_file(page, bytes(200))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_an_error_names_the_file_that_was_asked_for(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    with largest_file(100), pytest.raises(OSError, match="File too large") as caught:
        files.replace_file(tmp_path / "page", bytes(200))
    assert caught.value.filename == str(tmp_path / "page")
    longest = tmp_path / ("n" * 250)  # the one beside has a longer name
    with pytest.raises(OSError, match="File name too long") as caught:
        files.replace_file(longest, b"")
    assert caught.value.filename == str(longest)
    with pytest.raises(FileNotFoundError, match="gone"), files.replacing(tmp_path / "page"):
        (tmp_path / "gone").read_bytes()


def test_a_replaced_file_may_be_read_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        files.replace_file(tmp_path / "new" / "page", b"content")
    finally:
        os.umask(umask)
    assert (tmp_path / "new" / "page").stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        files.sha256_of(tmp_path / "pipe")


def test_a_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 1)
    (tmp_path / "large").write_bytes(content)
    assert files.sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_a_folder_is_probed_where_it_would_be_made_and_nothing_stays(tmp_path: Path) -> None:
    files.probe(tmp_path / "not" / "there")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        files.probe(tmp_path / "file" / "below")
    assert caught.value.filename == str(tmp_path / "file" / "below")
