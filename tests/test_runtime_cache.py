"""What is kept to be made once: there as it was written, or not at all, and never in a command's way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def refused(*args: object, **options: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_it_makes_room_for_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 3 * (100 + cache.DIGEST_BYTES))
    for number in range(5):
        cache.write("things", [number], bytes([number]) * 100)
        os.utime(cache._path("things", [number]), (number, number))
        if number == 2:
            assert cache.read("things", [0]) == bytes(100)  # asked for, and so the newest
    found = [number for number in range(5) if cache.read("things", [number])]
    assert found == [0, 3, 4]


def test_one_that_cannot_be_removed_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        cache.write("things", [number], bytes(100))
        os.utime(cache._path("things", [number]), (number, number))
    # Before the two that are to go, by its age, and larger than there is room for.
    stays = cache.folder("things") / "stays"
    stays.mkdir()
    monkeypatch.setattr(cache, "LARGEST", 0)
    cache.write("things", [3], bytes(100))
    assert list(cache.folder("things").iterdir()) == [stays]


def test_one_that_may_only_be_read_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("things", [], b"content")
    monkeypatch.setattr(os, "utime", refused)
    assert cache.read("things", []) == b"content"


def test_without_a_home_nothing_is_kept_and_nothing_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    cache.write("things", [], b"content")
    assert cache.read("things", []) is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="no home folder is known"):
        cache.folder("things")
