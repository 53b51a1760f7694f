"""The recipe study's own parts: its folds, its budget, its lines, on a handful of photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import pace, recipes, tasks
from benchmarks.pace import Pace
from benchmarks.recipes import Job, Recipe
from tests.train_parts import TINY
from train import data
from train.table import Table

PACE = Pace(phase1_s=0.5, phase2_s=0.1, evaluation_s=0.2)


@pytest.fixture
def table(data_folder: Path) -> Table:
    """Of 12 rows 8 train and 4 validate."""
    return data.read(data_folder, names=["Shirt"])[0]


def fitted(table: Table, seconds: float, *, alone: int | None = None, **changes: int) -> tuple[int, int, float]:
    plan = replace(TINY, phase1=replace(TINY.phase1, epochs=50), phase2=replace(TINY.phase2, epochs=50, **changes))
    preset, taken_s = pace.fitted(table, plan, PACE, seconds, alone=alone)
    return preset.phase1.epochs, preset.phase2.epochs, taken_s


def test_a_plan_is_cut_to_the_whole_epochs_that_the_time_holds(table: Table) -> None:
    assert (len(table.rows("train")), len(table.rows("val"))) == (8, 4)
    # Fixed: three evaluations of 0.8 s, 8 photos looked at for 1.6 s. An epoch: 4.0 + 0.8 s, and 0.8 + 0.8 s.
    first, second, taken_s = fitted(table, 110)
    assert second == int(0.3 * 106 / 1.6) == 19
    assert first == int((106 - 19 * 1.6) / 4.8) == 15
    assert taken_s == pytest.approx(4 + 19 * 1.6 + 15 * 4.8)


def test_a_phase_alone_has_the_other_ones_time_too(table: Table) -> None:
    first, _, taken_s = fitted(table, 100, alone=1)
    assert first == round((100 - 3.2) / 4.8) == 20
    assert taken_s == pytest.approx(3.2 + 20 * 4.8)


def test_a_plan_that_is_shorter_than_the_time_is_left_as_it_is(table: Table) -> None:
    preset, taken_s = pace.fitted(table, TINY, PACE, 1e6)
    assert (preset.phase1.epochs, preset.phase2.epochs) == (TINY.phase1.epochs, TINY.phase2.epochs)
    assert taken_s < 1e3


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photo: Callable[..., Path]) -> Path:
    """A whole data set as `tasks.prepare` finds it: 40 senders with two photos each, a Garment row beside each."""
    monkeypatch.setattr(tasks, "BUILD", tmp_path / "recipes")
    whole = tasks.BUILD / "clothing"
    rows = []
    for index in range(80):
        sender, test = index // 2, index // 2 % 5 == 4
        split = "test" if test else ("train", "train", "val")[sender // 3 % 3]
        colour = ("red", "green", "blue")[index % 3]
        for id in (2 * index, 2 * index + 1):
            make_photo(whole / "train_images" / f"{id:06d}.jpg", colour)
        common = {"len": "2", "split": split, "group": str(sender)}
        labels = {"attr_1": colour, "attr_2": ("plain", "striped")[index % 2]}
        rows.append({"id": f"{2 * index}", "Category": ("Dress", "Shoes", "T-Shirt")[sender % 3], **labels, **common})
        kinds = {"attr_1": rows[-1]["Category"], "attr_2": ""}
        rows.append({"id": f"{2 * index + 1}", "Category": "Garment", **kinds, **common})
    with (whole / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    names = dict.fromkeys(("Dress", "Shoes", "T-Shirt"), '["colour", "pattern"]') | {"Garment": '["kind"]'}
    with (whole / "category_attributes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Category", "No_of_attribute", "Attribute_list"])
        writer.writerows([name, 2, listed] for name, listed in names.items())
    return whole


def senders(task: str) -> dict[str, set[str]]:
    with (tasks.BUILD / task / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {split: {row["group"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}


def test_no_sender_is_on_two_sides_of_a_fold_and_each_is_left_out_once(source: Path) -> None:
    tasks.prepare(source)
    whole = senders("clothing")
    left_out: list[str] = []
    for fold in tasks.BY_EYE:
        sides = senders(fold)
        assert not sides["train"] & sides["val"] and not (sides["train"] | sides["val"]) & sides["test"]
        assert all(sides.values())
        # The test split of the data itself has no part in it.
        assert not set.union(*sides.values()) & whole["test"]
        left_out += sides["test"]
    assert sorted(left_out) == sorted(whole["train"] | whole["val"])
    assert senders("garment") == whole


def test_a_study_that_was_stopped_midway_in_preparing_is_prepared_anew(source: Path) -> None:
    tasks.prepare(source)
    page = tasks.BUILD / "eye-3" / "train.csv"
    content = page.read_text()
    page.write_text(content[:100])
    tasks.prepare(source)
    assert page.read_text() == content


def test_one_run_trains_scores_and_becomes_a_line(source: Path, one_thread: None) -> None:
    tasks.prepare(source)
    preset = replace(TINY, phase1=replace(TINY.phase1, epochs=2), phase2=replace(TINY.phase2, epochs=1))
    paces = {"default": PACE}
    for joint in (False, True):
        job = Job(recipe=Recipe(name="tiny", preset=preset, joint=joint), task="eye-0", seed=0)
        line = json.loads(json.dumps(recipes.run(job, paces)))
        assert (line["recipe"], line["task"], line["seed"], line["identity"]) == ("tiny", "eye-0", 0, job.identity)
        assert [(one["category"], one["attribute"]) for one in line["attributes"]] == [
            (category, attribute) for category in ("Dress", "Shoes", "T-Shirt") for attribute in ("colour", "pattern")
        ]
        assert 0 <= line["validation_hm"] <= 1
        # One training for all three categories, or one each.
        assert line["epochs"] == [{"1": 2, "2": 1}] * (1 if joint else 3)
        left_out = senders("eye-0")["test"]
        assert set().union(*(one["senders"] for one in line["attributes"])) == left_out
        for one in line["attributes"]:
            assert len(one["truth"]) == len(one["plain"]) == len(one["offset"]) == len(one["senders"]) > 0


def test_a_run_is_made_again_when_its_recipe_or_its_photos_change(source: Path) -> None:
    tasks.prepare(source)
    job = Job(recipe=Recipe(name="tiny", preset=TINY), task="eye-0", seed=0)
    other = Job(recipe=Recipe(name="tiny", preset=replace(TINY, weights="hub")), task="eye-0", seed=0)
    assert job.identity != other.identity
    before = job.identity
    with (tasks.BUILD / "eye-0" / "train.csv").open("a") as file:
        file.write("9999,Dress,2,red,plain,train,77\n")
    assert job.identity != before


def test_a_line_of_a_recipe_that_has_changed_since_takes_no_part(source: Path, tmp_path: Path) -> None:
    tasks.prepare(source)
    path = tmp_path / "lines.jsonl"
    now = {job.key: job.identity for job in recipes.jobs(path) if job.key[0] == "default"}
    changed = ("default", "eye-3", 1)
    for (recipe, task, seed), identity in now.items():
        line = {"recipe": recipe, "task": task, "seed": seed, "identity": identity}
        recipes.append(path, json.dumps(line | ({"identity": "0"} if (recipe, task, seed) == changed else {})))
    assert recipes.lines_of(path).keys() == now.keys()
    assert recipes.current(path).keys() == now.keys() - {changed}


def test_a_line_behind_half_a_line_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    recipes.append(path, '{"recipe": "default", "task": "garment", "seed": 0}')
    path.write_text(path.read_text() + '{"recipe": "defau')
    recipes.append(path, '{"recipe": "default", "task": "garment", "seed": 1}')
    assert list(recipes.lines_of(path)) == [("default", "garment", 0), ("default", "garment", 1)]


def test_the_latest_line_of_a_run_counts_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    lines = [{"recipe": "a", "task": "garment", "seed": 0, "validation_hm": hm} for hm in (0.1, 0.2)]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"recipe": "b", "ta')
    assert recipes.lines_of(path) == {("a", "garment", 0): lines[1]}
    assert recipes.lines_of(tmp_path / "none.jsonl") == {}


def test_the_reference_stands_on_this_studys_backbone_with_its_own_recipe() -> None:
    found, theirs, ours = recipes.reference(1e-4).preset, recipes.PRESETS["reference"], recipes.PRESETS["default"]
    assert (found.model.backbone, found.weights, found.model.size) == (ours.model.backbone, ours.weights, 224)
    assert found.model.heads == "reference"
    assert found.augment == theirs.augment
    assert found.phase2 == theirs.phase2
    assert found.phase1 == replace(theirs.phase1, backbone_lr=1e-4, heads_lr=1e-4, min_steps=found.phase1.min_steps)
    # As many photos as ours sees of a small category, at least.
    assert found.phase1.min_steps * found.phase1.batch >= ours.phase1.min_steps * ours.phase1.batch


def test_every_run_is_asked_for_and_the_rate_that_a_search_finds_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    searched = [job.key for job in recipes.jobs(path) if job.key[0].startswith("reference")]
    assert {(name, seed) for name, _, seed in searched} == {(f"reference {rate:g}", 0) for rate in recipes.RATES}
    assert {task for _, task, _ in searched} == {"garment", "eye-0", "eye-1"}
    lines = [
        {"recipe": name, "task": task, "seed": seed, "validation_hm": float(name.endswith("0.0001"))}
        for name, task, seed in searched
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = {job.key for job in recipes.jobs(path)}
    everything = {(task, seed) for task in ("garment", *tasks.BY_EYE) for seed in (0, 1, 2)}
    for name in ("default", "reference 0.0001"):
        assert {(task, seed) for recipe, task, seed in keys if recipe == name} == everything
    assert not [key for key in keys if key[0] == "reference 1e-05" and key[2]]
