"""Photos become rows: one each, in order, whatever the batch, and never more of them in memory than promised."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime import bundle, images
from runtime.fleet import Fleet, Row
from runtime.pipeline import AHEAD, answered, rows

# Float32 sums over 256 pixels, in an order that may change with the batch, differ in the seventh digit.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def fleet(fleet_root: Path) -> Iterator[Fleet]:
    folders = bundle.find(fleet_root).values()
    with Fleet.open(folders, category=None, engine="onnxruntime", precision=None) as entered:
        yield entered


@pytest.fixture(scope="module")
def photos(make_photo: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven photos in turning colours and sizes, 3 and 8 no photos at all."""
    folder = tmp_path_factory.mktemp("photos")
    colours = itertools.cycle(["red", "green", "blue"])
    made = [make_photo(folder / f"{index:02d}.png", next(colours), height=16 + index) for index in range(11)]
    made[3].write_text("no photo")
    made[8].write_bytes(b"")
    return made


class Named(Row):
    """A row that a set can hold."""

    __hash__ = object.__hash__


def summary(found: Sequence[Row]) -> list[tuple[str, str, str, str, list[str]]]:
    return [
        (row.image.name, row.category, row.status, row.error, [answer.label for answer in row.answers.values()])
        for row in found
    ]


def test_every_photo_has_one_row_in_order_and_a_bad_one_costs_its_own_alone(fleet: Fleet, photos: list[Path]) -> None:
    found = list(rows(photos, fleet, batch=4, workers=2))
    assert [row.image for row in found] == photos
    bad = {3: "not an image: it begins like no format that is read", 8: "the file is empty"}
    assert {index: row.error for index, row in enumerate(found) if row.status == "error"} == bad
    kinds = ["Shirt", "Hat", "Boot"]
    for index, row in enumerate(found):
        if index in bad:
            assert (row.category, row.answers) == ("", {})
        else:
            assert (row.status, row.error) == ("ok", "")
            assert row.answers["kind"].label == kinds[index % 3]


def test_a_batch_of_bad_photos_alone_costs_their_rows_alone(fleet: Fleet, photos: list[Path]) -> None:
    good, bad = photos[0], photos[3]
    found = list(rows([good, good, bad, bad, good], fleet, batch=2, workers=2))
    assert [row.status for row in found] == ["ok", "ok", "error", "error", "ok"]
    assert [row.status for row in rows([bad, bad, bad], fleet, batch=2, workers=2)] == ["error"] * 3


def test_every_batch_size_and_number_of_workers_gives_the_same_rows(fleet: Fleet, photos: list[Path]) -> None:
    expected = list(rows(photos, fleet, batch=1, workers=1))
    for batch, workers in [(2, 1), (3, 4), (4, 2), (7, 3), (10, 1), (11, 2), (12, 2), (64, 8)]:
        found = list(rows(photos, fleet, batch=batch, workers=workers))
        assert summary(found) == summary(expected), (batch, workers)
        for one, other in zip(found, expected, strict=True):
            gaps = [abs(answer.confidence - other.answers[name].confidence) for name, answer in one.answers.items()]
            assert max(gaps, default=0.0) < ROUNDING, (batch, workers)


def test_no_photos_give_no_rows(fleet: Fleet) -> None:
    assert list(rows([], fleet, batch=4, workers=2)) == []


@pytest.mark.parametrize("batch", [1, 3])
def test_photos_are_taken_as_rows_are_given_and_no_further_ahead_than_promised(
    fleet: Fleet, photos: list[Path], batch: int
) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        for path in itertools.cycle(photos):
            taken += 1
            yield path

    most = 0
    running = rows(endless(), fleet, batch=batch, workers=2)
    for given, _ in enumerate(itertools.islice(running, 60)):
        most = max(most, taken - given)
    assert isinstance(running, Generator)
    running.close()
    assert most == (2 + AHEAD) * batch


def test_rows_settled_already_keep_their_place_unread_and_whatever_they_say(fleet: Fleet, photos: list[Path]) -> None:
    def unanswered() -> Iterator[Row]:
        for index, path in enumerate(photos[:3] * 4):
            row = Row(image=path, id=str(index))
            if index % 2:
                row.fail("not there")
            elif index % 3 == 0:
                row.category = "Hat"
                row.skip()
            yield row

    expected = {0: "skipped", 1: "error", 2: "ok", 3: "error", 4: "ok", 5: "error"}
    for batch in (1, 2, 5, 64):
        found = list(answered(unanswered(), fleet, batch=batch, workers=2))
        assert [row.id for row in found] == [str(index) for index in range(12)]
        assert [row.status for row in found] == [expected[index % 6] for index in range(12)]
        assert [bool(row.answers) for row in found] == [row.status == "ok" for row in found]


def test_no_more_rows_are_alive_than_are_under_way(fleet: Fleet, photos: list[Path]) -> None:
    alive: weakref.WeakSet[Row] = weakref.WeakSet()

    def unanswered() -> Iterator[Row]:
        for path in itertools.islice(itertools.cycle(photos), 300):
            row = Named(image=path)
            alive.add(row)
            yield row

    most = 0
    for _ in answered(unanswered(), fleet, batch=4, workers=2):
        most = max(most, len(alive))
    # Those with the workers and ahead, those of the batch that is being given, and the last one given.
    assert most <= (2 + AHEAD + 1) * 4 + 1


def test_leaving_early_ends_every_worker(fleet: Fleet, photos: list[Path]) -> None:
    running = rows(itertools.cycle(photos), fleet, batch=2, workers=3)
    next(running)
    assert any(thread.name.startswith("answer") for thread in threading.enumerate())
    assert isinstance(running, Generator)
    running.close()
    assert not any(thread.name.startswith("answer") for thread in threading.enumerate())


def test_leaving_early_waits_for_no_photo_but_those_in_hand(
    fleet: Fleet, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, taken = images.decode, 0

    def slowly(path: Path, *, least: tuple[int, int], max_pixels: int) -> np.ndarray:
        nonlocal taken
        taken += 1
        time.sleep(0.005)
        return decode(path, least=least, max_pixels=max_pixels)

    monkeypatch.setattr(images, "decode", slowly)
    running = rows([photos[0]] * 1000, fleet, batch=100, workers=2)
    next(running)
    assert isinstance(running, Generator)
    before = taken
    running.close()
    assert taken - before < 20, "the batches in hand were read to their end"


def test_what_the_source_of_photos_raises_comes_through_and_ends_every_worker(fleet: Fleet, photos: list[Path]) -> None:
    def failing() -> Iterator[Path]:
        yield from photos
        raise ConnectionError("the share is gone")

    with pytest.raises(ConnectionError, match="the share is gone"):
        list(rows(failing(), fleet, batch=2, workers=2))
    assert not any(thread.name.startswith("answer") for thread in threading.enumerate())
