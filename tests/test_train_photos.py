"""Batches of photos: in order, unreadable ones left out and named, the same with workers as without."""

# B batch, H height, W width, L attributes

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime import images
from runtime.bundle import Preprocess
from tests.train_parts import write_data
from train import data
from train import photos as photos_module
from train.config import MISSING, AugmentConfig
from train.photos import WORTH_WORKERS, Batch, Item, Photos, batches, in_order
from train.table import Table

SPEC = Preprocess(height=24, width=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
STRONG = AugmentConfig(probability=1.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """24 photos, of which numbers 3 and 9 are not images."""
    folder = write_data(tmp_path_factory.mktemp("photos") / "data")
    for index in (3, 9):
        (folder / "train_images" / f"{index:06d}.jpg").write_bytes(b"not an image")
    return data.read(folder)[0]


def run(
    table: Table,
    groups: Sequence[list[Item]],
    *,
    config: AugmentConfig | None = None,
    seed: int = 0,
    total: int = 0,
) -> list[Batch]:
    return list(batches(Photos(table, SPEC, config, seed), groups, total=total))


def test_photos_come_in_order_at_the_models_size_on_the_runtimes_own_pixel_path(table: Table) -> None:
    first, second = run(table, in_order(np.arange(10, 24), 8))
    assert first.images_BHWC.shape == (8, 24, 16, 3)
    assert second.images_BHWC.shape == (6, 24, 16, 3)
    assert first.images_BHWC.dtype == torch.uint8
    pixels_NHWC = np.stack([images.fit(images.decode(path), SPEC) for path in table.paths[10:]])
    assert np.array_equal(torch.cat([first.images_BHWC, second.images_BHWC]).numpy(), pixels_NHWC)
    assert np.array_equal(torch.cat([first.labels_BL, second.labels_BL]).numpy(), table.labels_NL[10:])
    assert not first.is_target_B.any()


def test_an_unreadable_photo_is_left_out_with_its_labels_and_named(table: Table) -> None:
    (batch,) = run(table, in_order(np.arange(12), 12))
    readable = [row for row in range(12) if row not in (3, 9)]
    assert [path.name for path in batch.unreadable] == ["000003.jpg", "000009.jpg"]
    assert np.array_equal(batch.labels_BL.numpy(), table.labels_NL[readable])
    assert len(batch.images_BHWC) == len(batch.is_target_B) == 10


def test_a_batch_of_unreadable_photos_alone_is_empty(table: Table) -> None:
    (batch,) = run(table, [[Item(3, 0), Item(9, 0)]])
    assert len(batch.images_BHWC) == len(batch.labels_BL) == 0
    assert len(batch.unreadable) == 2


def test_a_photo_of_the_target_domain_has_no_label(table: Table) -> None:
    (batch,) = run(table, [[Item(1, 0), Item(1, 0, target=True)]])
    assert batch.is_target_B.tolist() == [False, True]
    assert batch.labels_BL[0].tolist() == table.labels_NL[1].tolist() != [MISSING, MISSING]
    assert batch.labels_BL[1].tolist() == [MISSING, MISSING]


def test_the_same_draw_of_a_photo_is_the_same_picture_and_another_draw_another(table: Table) -> None:
    (batch,) = run(table, [[Item(1, 0), Item(1, 1), Item(1, 0)]], config=STRONG)
    (other,) = run(table, [[Item(1, 0)]], config=STRONG, seed=1)
    first, second, again = batch.images_BHWC
    assert first.equal(again)
    assert not first.equal(second)
    assert not first.equal(other.images_BHWC[0])


def test_a_photo_whose_name_is_no_utf_8_is_read(table: Table, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    odd.write_bytes(table.paths[1].read_bytes())
    gone = tmp_path / os.fsdecode(b"gone\xe9.jpg")
    named = replace(table, paths=(odd, gone), targets=(odd,))
    (batch,) = run(named, [[Item(0, 0), Item(1, 0), Item(0, 0, target=True)]])
    assert batch.unreadable == [gone]
    assert batch.is_target_B.tolist() == [False, True]
    assert batch.images_BHWC[0].equal(batch.images_BHWC[1])


def test_what_workers_hold_of_a_table_are_arrays(table: Table) -> None:
    # Python counts references inside its objects: a worker that only looks at one comes to own a copy of its page.
    held = vars(Photos(table, SPEC, STRONG, 0)).values()
    assert {type(value) for value in held} == {np.ndarray, Preprocess, AugmentConfig, int}
    assert not any(value.dtype.hasobject for value in held if isinstance(value, np.ndarray))


def test_of_a_batch_only_the_pixels_are_a_tensor_that_a_worker_is_asked_for(table: Table) -> None:
    # Each tensor is fetched over a connection of its own: with four of them two workers gave a tenth of the photos.
    photos = Photos(table, SPEC, None, 0)
    for rows in ((1, 2), (3, 9)):
        pixels, *others = photos_module._collate([photos[Item(row, 0)] for row in rows])
        assert isinstance(pixels, torch.Tensor)
        assert not any(isinstance(other, torch.Tensor) for other in others)


def test_the_collector_leaves_alone_what_workers_share_until_they_are_done(table: Table) -> None:
    found = batches(Photos(table, SPEC, None, 0), in_order(np.arange(24), 5), total=WORTH_WORKERS)
    before = gc.get_freeze_count()
    next(found)
    assert gc.get_freeze_count() > before
    found.close()
    assert gc.get_freeze_count() == 0


def test_workers_change_nothing(table: Table) -> None:
    groups = in_order(np.arange(24), 5)
    alone = run(table, groups, config=STRONG)
    together = run(table, groups, config=STRONG, total=WORTH_WORKERS)
    for one, other in zip(alone, together, strict=True):
        assert one.images_BHWC.equal(other.images_BHWC)
        assert one.labels_BL.equal(other.labels_BL)
        assert [Path(path) for path in one.unreadable] == other.unreadable
