"""What is made once: whole or not at all, and anew where it is damaged or was made of something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cache


def fill(folder: Path) -> None:
    (folder / "graph").write_text("whole")


def load(folder: Path) -> str:
    found = (folder / "graph").read_text()
    if found != "whole":
        raise RuntimeError("cannot be read")
    return found


def test_what_is_killed_half_way_leaves_no_folder(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.loaded(tmp_path / "data", killed, load)
    assert not any(tmp_path.iterdir())


def test_who_comes_second_keeps_what_the_first_has_made(tmp_path: Path) -> None:
    with cache.whole(tmp_path / "data") as scratch:
        fill(scratch)
        with cache.whole(tmp_path / "data") as faster:
            fill(faster)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert load(tmp_path / "data") == "whole"


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    assert cache.loaded(tmp_path / "peer", fill, load) == "whole"
    (tmp_path / "peer" / "graph").write_text("who")
    assert cache.loaded(tmp_path / "peer", fill, load) == "whole"


def test_what_cannot_be_read_even_when_new_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot be read"):
        cache.loaded(tmp_path / "peer", lambda folder: (folder / "graph").touch(), load)


def test_a_name_tells_of_things_and_sources(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("one")
    first = cache.home("peers", ["weights"], [source])
    assert first == cache.home("peers", ["weights"], [source])
    assert first != cache.home("peers", ["other weights"], [source])
    source.write_text("another")
    assert first != cache.home("peers", ["weights"], [source])


def test_what_other_sources_made_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    for name in ("net-0123456789ab", "net-ba9876543210", "net-large-0123456789ab", "optimum"):
        (tmp_path / name).mkdir()
    cache.drop_others(tmp_path / "net-0123456789ab")
    assert {path.name for path in tmp_path.iterdir()} == {"net-0123456789ab", "net-large-0123456789ab", "optimum"}
