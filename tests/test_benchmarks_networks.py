"""The networks that are timed: what stops while they are made is not taken for made."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from benchmarks import cache, networks
from benchmarks.networks import CONVNEXT_ATTO, TRAIN_PHOTOS, VAL_PHOTOS
from runtime.errors import INTERRUPTED, USER_MISTAKE, UserError
from train import checkpoint

NETWORK = CONVNEXT_ATTO


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)


@pytest.fixture
def damaged() -> None:
    """A checkpoint that no export can read, and a data folder."""
    NETWORK.data.mkdir(parents=True)
    NETWORK.checkpoint.mkdir()
    (NETWORK.checkpoint / checkpoint.PAGE).write_text("{}")


@pytest.mark.usefixtures("damaged")
def test_an_export_that_fails_is_an_error() -> None:
    with pytest.raises(UserError, match="checkpoint"):
        NETWORK.make(["int8"])
    assert networks.main([NETWORK.name]) == USER_MISTAKE


def test_ctrl_c_while_photos_are_copied_leaves_none_and_the_next_run_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Path] = []
    copy = shutil.copy

    def pressed(source: Path, target: Path) -> None:
        if len(copied) == 3:
            raise KeyboardInterrupt
        copied.append(target)
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy", pressed)
        assert networks.main([NETWORK.name]) == INTERRUPTED
    assert len(copied) == 3 and not NETWORK.data.exists()
    NETWORK.write()
    with (NETWORK.data / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((NETWORK.data / "train_images").iterdir())) == TRAIN_PHOTOS + VAL_PHOTOS
