"""examples/make_examples.py, on a source of a few tiny photos made here."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "make_examples.py"
KINDS = ("Dress", "Hat", "Shoes", "T-Shirt")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_examples"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Photos of three brightnesses: train 50, calib 120, test 250; each split with senders of its own."""
    root = tmp_path / "source"
    (root / "images").mkdir(parents=True)
    (root / "LICENSE.CC0-1.0").write_text("CC0")
    labels, attributes = [], []
    for split, brightness, count in (("train", 50, 16), ("calib", 120, 6), ("test", 250, 4)):
        for kind in KINDS:
            for i in range(count):
                image = f"images/{i:04d}{kind[0]}{split[:3]}-0.jpg"
                cv2.imwrite(str(root / image), np.full((12, 8, 3), brightness, np.uint8))
                sender = f"{split}{i % 3}"
                labels.append([image, kind, "true" if i % 4 == 3 else "false", sender, split])
                if kind == "T-Shirt" and i < 12:  # necks: v and wide 4 each over train and calib, the rest round
                    neck = {0: "v", 1: "v", 2: "wide", 3: "wide"}.get(i, "round")
                    colour = "white" if i else "teal"  # teal: 2 photos outside the test split, 3 in all
                    attributes.append([image, kind, colour, "solid", neck, "short", "", "", sender, split])
    # A dress whose every label is rare, and so is left with none.
    attributes.append([labels[0][0], "Dress", "teal", "", "", "long", "", "", "train0", "train"])
    heads = (
        ["image", "category", "kids", "sender_id", "split"],
        [
            "image",
            "category",
            "colour",
            "pattern",
            "neck",
            "sleeve_length",
            "shoe_type",
            "closure",
            "sender_id",
            "split",
        ],
    )
    for name, head, rows in zip(("labels.csv", "attributes.csv"), heads, (labels, attributes), strict=True):
        with (root / name).open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    image_HWC = cv2.imread(str(path))
    assert image_HWC is not None
    return image_HWC


def brightness(path: Path) -> float:
    return float(pixels(path).mean())


def test_test_photos_never_enter_clothing_and_alone_make_photos(make: ModuleType, source: Path, tmp_path: Path) -> None:
    assert make.main(["--source", str(source), "--out", str(tmp_path / "out")]) == 0
    rows = table(tmp_path / "out/clothing/train.csv")
    stored = sorted((tmp_path / "out/clothing/train_images").iterdir())
    assert [path.name for path in stored] == [f"{int(row['id']):06d}.jpg" for row in rows]
    assert {row["split"] for row in rows} == {"train", "val"}
    # 250 is test's brightness; JPEG moves a flat grey by no more than 2
    assert max(map(brightness, stored)) < 125
    photos = table(tmp_path / "out/photos.csv")
    assert {row["file"] for row in photos} == {path.name for path in (tmp_path / "out/photos").iterdir()}
    assert min(brightness(tmp_path / "out/photos" / row["file"]) for row in photos) > 245
    assert [row["kind"] for row in photos] == ["Dress", "Dress", "Hat", "Shoes", "Shoes", "T-Shirt", "T-Shirt"]
    assert photos[0] == {"file": "dress-0000Dtes.jpg", "kind": "Dress", "kids": "adult"}
    assert photos[1]["kids"] == "kids"


def test_a_photo_is_stored_once_in_clothing(make: ModuleType, source: Path) -> None:
    garments, rows = make.read_source(source)
    used = {row.image for row in rows}
    chosen = make.garment_selection([row for row in garments if row.image not in used], per_kind=8)
    assert not used & {row.image for row in chosen}
    hats = [row for row in chosen if row.labels[0] == "Hat"]
    assert [row.split for row in hats] == ["train"] * 6 + ["val"] * 2
    assert sum(row.labels[1] == "kids" for row in hats if row.split == "train") == 2
    assert {row.sender for row in hats if row.split == "train"} == {"train0", "train1", "train2"}


def test_rare_classes_become_missing_and_a_row_without_labels_is_dropped(
    make: ModuleType, source: Path, tmp_path: Path
) -> None:
    assert make.main(["--source", str(source), "--out", str(tmp_path / "out")]) == 0
    rows = table(tmp_path / "out/clothing/train.csv")
    shirts = [row for row in rows if row["Category"] == "T-Shirt"]
    assert {row["attr_1"] for row in shirts} == {"", "white"}
    assert sum(row["attr_1"] == "" for row in shirts) == 2
    assert "Dress" not in {row["Category"] for row in rows}
    assert {row["len"] for row in shirts} == {"3"}


def test_necks_other_than_round_are_folded_before_rare_classes_are_counted(
    make: ModuleType, source: Path, tmp_path: Path
) -> None:
    assert make.main(["--source", str(source), "--out", str(tmp_path / "out")]) == 0
    shirts = [row for row in table(tmp_path / "out/clothing/train.csv") if row["Category"] == "T-Shirt"]
    necks = [row["attr_3"] for row in shirts]
    assert (necks.count("other"), necks.count("round")) == (8, 10)


@pytest.mark.parametrize("mode", ["--out", "--full"])
def test_a_group_stays_in_one_split(make: ModuleType, source: Path, tmp_path: Path, mode: str) -> None:
    assert make.main(["--source", str(source), mode, str(tmp_path / "made")]) == 0
    folder = tmp_path / "made" / ("clothing" if mode == "--out" else "")
    splits: dict[str, set[str]] = {}
    for row in table(folder / "train.csv"):
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_a_sender_in_two_splits_is_refused(
    make: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source / "labels.csv"
    path.write_text(path.read_text().replace(",test0,test", ",train0,test"))
    assert make.main(["--source", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "sender train0 in two splits" in capsys.readouterr().err


def test_full_keeps_every_photo_and_its_bytes(make: ModuleType, source: Path, tmp_path: Path) -> None:
    assert make.main(["--source", str(source), "--full", str(tmp_path / "full")]) == 0
    rows = table(tmp_path / "full/train.csv")
    garments = [row for row in rows if row["Category"] == "Garment"]
    assert len(garments) == len(table(source / "labels.csv"))
    assert {row["split"] for row in garments} == {"train", "val", "test"}
    assert "test" not in {row["split"] for row in rows if row["Category"] != "Garment"}
    first = min(row["image"] for row in table(source / "labels.csv"))
    stored = tmp_path / f"full/train_images/{int(garments[0]['id']):06d}.jpg"
    assert stored.read_bytes() == (source / first).read_bytes()


def test_a_second_run_gives_the_same_bytes(make: ModuleType, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = []
    for _ in range(2):
        assert make.main(["--source", str(source), "--out", str(out)]) == 0
        seen.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert seen[0] == seen[1]


def test_a_large_photo_is_shrunk_and_a_small_one_copied(make: ModuleType, tmp_path: Path) -> None:
    wide, small = tmp_path / "wide.jpg", tmp_path / "small.jpg"
    cv2.imwrite(str(wide), np.zeros((400, 711, 3), np.uint8))
    cv2.imwrite(str(small), np.zeros((533, 400, 3), np.uint8))
    make.put_within(wide, tmp_path / "a.jpg", width=512, quality=90)
    make.put_within(small, tmp_path / "b.jpg", width=512, quality=90)
    assert pixels(tmp_path / "a.jpg").shape == (288, 512, 3)
    assert (tmp_path / "b.jpg").read_bytes() == small.read_bytes()


def test_a_wrong_source_is_one_clear_line(make: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make.main(["--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "has no labels.csv, no attributes.csv" in said
    assert said.endswith("--source DIR\n")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(
    make: ModuleType, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(source.rglob("*"))
    assert make.main(["--source", str(source), "--full", str(source)]) == 2
    assert "name another folder" in capsys.readouterr().err
    assert sorted(source.rglob("*")) == before


def test_a_broken_photo_leaves_the_earlier_output_whole(
    make: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert make.main(["--source", str(source), "--out", str(out)]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    broken = source / table(source / "attributes.csv")[0]["image"]
    broken.write_bytes(b"no photo")
    assert make.main(["--source", str(source), "--out", str(out)]) == 2
    assert f"{broken} is missing or no image" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_it_runs_as_a_script_from_another_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--source", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path} has no labels.csv")
