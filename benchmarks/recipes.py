"""Command: train the recipes side by side, and tell them apart on photos that no training saw.

    python -m benchmarks.recipes --source DIR

DIR is what examples/make_examples.py reads. Each run is one recipe on one task with one seed, in the same time on the
same photos from the same backbone and weights, and becomes a line of benchmarks/results/recipes_<machine>.jsonl. Runs
that are there are not made again: a study that is stopped goes on where it was.

Tasks:
    garment     kind and kids: trained on train, chosen and calibrated on calib, scored on the 722 photos of test
    eye-0 … 4   the attributes labelled by eye, five folds by sender over train and calib: scored on the fold left out,
                chosen on a fifth of the rest, and pooled over the folds

The time is that of all cores, counted as processor time, so that what else the machine does takes nothing from it.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import record
from train.config import PRESETS, Preset

if TYPE_CHECKING:
    from train.run import Run

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "recipes"
FOLDS = 5
VAL_SHARE = 0.2
MINUTES = 8.0
SEEDS = (0, 1, 2)
ABLATION_SEEDS = (0, 1)
RATES = (1e-5, 1e-4, 3e-4)
"""Of phase 1, searched for the reference recipe; the first is its own."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to train."""

    name: str
    preset: Preset
    joint: bool = False
    phase: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of the results."""

    recipe: Recipe
    task: str
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.recipe.name, self.task, self.seed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="labels.csv, attributes.csv, images/")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="recipes to run (default: every one)")
    args = parser.parse_args(argv)
    prepare(args.source)
    path = record.RESULTS / f"recipes_{record.machine_slug()}.jsonl"
    wanted = [job for job in jobs(path) if not args.only or job.recipe.name in args.only]
    for number, job in enumerate(wanted, 1):
        if job.key in done(path):
            continue
        print(f"{number} of {len(wanted)}: {' '.join(map(str, job.key))}", flush=True)
        line = json.dumps(run(job))
        with path.open("a") as file:
            file.write(line + "\n")
    return 0


def recipes() -> dict[str, Recipe]:
    """Every recipe but the reference's, whose rate is searched."""
    ours = PRESETS["default"]
    return {
        "default": Recipe(name="default", preset=ours),
        "no MMD": Recipe(name="no MMD", preset=replace(ours, phase1=replace(ours.phase1, mmd_weight=0.0))),
        "phase 1 alone": Recipe(name="phase 1 alone", preset=ours, phase=1),
        "complete rows": Recipe(
            name="complete rows",
            preset=replace(
                ours,
                phase1=replace(ours.phase1, complete_rows=True),
                phase2=replace(ours.phase2, complete_rows=True),
            ),
        ),
        "joint": Recipe(name="joint", preset=ours, joint=True),
    }


def reference(rate: float) -> Recipe:
    """The reference recipe on this study's backbone, input size and weights, with the rate of phase 1 as given."""
    theirs, ours = PRESETS["reference"], PRESETS["default"]
    # The whole backbone, as the reference takes it; normalised as these weights ask for.
    model = replace(ours.model, last_stage=False, heads="reference", dropout=theirs.model.dropout)
    preset = replace(
        theirs,
        model=model,
        phase1=replace(theirs.phase1, backbone_lr=rate, heads_lr=rate),
        weights=ours.weights,
    )
    return Recipe(name=f"reference {rate:g}", preset=preset)


def jobs(path: Path) -> Iterator[Job]:
    """Every run of the study, in an order in which an unfinished one says most."""
    tasks = ["garment", *(f"eye-{fold}" for fold in range(FOLDS))]
    by_eye = tasks[1:]
    named = recipes()
    for task_group in (tasks[:1], by_eye):
        yield from (Job(recipe=reference(rate), task=task, seed=SEEDS[0]) for rate in RATES for task in task_group)
    for seed in SEEDS:
        for task_group in (tasks[:1], by_eye):
            yield from (Job(recipe=named["default"], task=task, seed=seed) for task in task_group)
            best = best_rate(path, task_group)
            if best is not None:
                yield from (Job(recipe=reference(best), task=task, seed=seed) for task in task_group)
    for seed in ABLATION_SEEDS:
        yield from (Job(recipe=named[name], task="garment", seed=seed) for name in ("no MMD", "phase 1 alone"))
        names = ("complete rows", "no MMD", "phase 1 alone", "joint")
        yield from (Job(recipe=named[name], task=task, seed=seed) for name in names for task in by_eye)


def best_rate(path: Path, tasks: Sequence[str]) -> float | None:
    """The rate with the highest mean HM on validation, over these tasks with the first seed; None before all ran."""
    lines = lines_of(path)
    found = {}
    for rate in RATES:
        mine = [lines.get((reference(rate).name, task, SEEDS[0])) for task in tasks]
        if None in mine:
            return None
        found[rate] = sum(line["validation_hm"] for line in mine if line) / len(mine)
    return max(found, key=lambda rate: found[rate])


def lines_of(path: Path) -> dict[tuple[str, str, int], dict]:
    """The runs made so far."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["recipe"], line["task"], line["seed"]): line for line in lines}


def done(path: Path) -> set[tuple[str, str, int]]:
    """The keys of the runs made so far."""
    return set(lines_of(path))


def prepare(source: Path) -> None:
    """The photos in the challenge's layout, and a train.csv for each task."""
    from train import data, splits
    from train.table import joint

    whole = BUILD / "clothing"
    if not (whole / "train.csv").exists():
        command = [sys.executable, "examples/make_examples.py", "--source", str(source), "--full", str(whole)]
        subprocess.run(command, cwd=ROOT, check=True)
    with (whole / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    _write(BUILD / "garment", whole, [row for row in rows if row["Category"] == "Garment"])
    seen = [row for row in rows if row["split"] != "test"]
    by_eye = [table for table in data.read(whole) if table.name != "Garment"]
    merged = joint(by_eye)
    # Folds by sender, stratified over every attribute: a fifth, then a quarter of the rest, and so on.
    fold_of: dict[str, int] = {}
    for fold in range(FOLDS):
        left = [index for index, group in enumerate(merged.groups) if group not in fold_of]
        chosen = [True] * len(left)
        if fold < FOLDS - 1:
            chosen = splits.stratified(
                merged.labels_NL[left], merged.groups[left], share=1 / (FOLDS - fold), seed=0
            ).tolist()
        fold_of |= {merged.groups[index]: fold for index, mine in zip(left, chosen, strict=True) if mine}
    for fold in range(FOLDS):
        rest = [index for index, group in enumerate(merged.groups) if fold_of[group] != fold]
        chosen = splits.stratified(merged.labels_NL[rest], merged.groups[rest], share=VAL_SHARE, seed=fold)
        val = {merged.groups[index] for index, mine in zip(rest, chosen, strict=True) if mine}

        def home(row: dict[str, str], fold: int = fold, val: set[str] = val) -> str:
            # A sender's Garment rows go with its other rows: no photo is trained on in one head and scored in another.
            if fold_of.get(row["group"]) == fold:
                return "test"
            if row["group"] in val or (row["group"] not in fold_of and row["split"] == "val"):
                return "val"
            return "train"

        _write(BUILD / f"eye-{fold}", whole, [row | {"split": home(row)} for row in seen])


def run(job: Job) -> dict[str, object]:
    """Train once and score what was left out."""
    import torch

    from train import data, training
    from train.table import joint

    folder = BUILD / job.task
    tables = data.read(folder, names=["Garment"] if job.task == "garment" else [])
    if job.task != "garment":
        tables = [joint(tables)] if job.recipe.joint else [table for table in tables if table.name != "Garment"]
    began = core_seconds()
    out = BUILD / "checkpoints"
    shutil.rmtree(out, ignore_errors=True)
    scored: list[dict[str, object]] = []
    validation: list[float] = []
    steps = 0
    work = [sum(training.work(table, job.recipe.preset, number, None) for number in (1, 2)) for table in tables]
    for index, table in enumerate(tables):
        left_s = 60 * MINUTES - (core_seconds() - began)
        options = training.Options(
            folder=out / str(index), data=str(folder), seed=job.seed, phase=job.recipe.phase, quiet=True
        )
        made = training.train(
            table,
            job.recipe.preset,
            options,
            torch.device("cpu"),
            limit_s=left_s * work[index] / sum(work[index:]),
            now=core_seconds,
        )
        found, answers = score(made, options.folder)
        scored += answers
        validation.append(found)
        steps += sum(epoch.steps for epoch in made.history if _ends_phase(epoch, made))
    return {
        "recipe": job.recipe.name,
        "task": job.task,
        "seed": job.seed,
        "minutes": round((core_seconds() - began) / 60, 2),
        "steps": steps,
        "validation_hm": sum(validation) / len(validation),
        "attributes": scored,
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "versions": record.versions(),
    }


def score(made: Run, folder: Path) -> tuple[float, list[dict[str, object]]]:
    """The mean HM on validation, and for each attribute the truth and the answers on the rows left out."""
    from runtime.predictor import decide
    from train import calibrate, checkpoint, metrics
    from train.config import MISSING

    page = checkpoint.read(folder)
    probabilities, rows = made.answers(made.model, "test")
    labels_NL = made.table.labels_NL[rows]
    answers = []
    for key, attribute, probabilities_NK, labels_N in zip(
        made.table.keys, page.attributes, probabilities, labels_NL.T, strict=True
    ):
        if key[0] in ("Router", "Garment") and made.table.name == "Joint":
            continue
        known = labels_N != MISSING
        tempered_NK = calibrate.tempered(probabilities_NK, page.temperatures.get(attribute.output, 1.0))[known]
        answers.append(
            {
                "category": key[0],
                "attribute": key[1],
                "truth": labels_N[known].tolist(),
                "plain": [index for index, _ in decide(tempered_NK)],
                "offset": [index for index, _ in decide(tempered_NK, attribute.offsets)],
            }
        )
    return metrics.mean_hm(page.metrics), answers


def core_seconds() -> float:
    """Processor time of this process and its finished children, over the cores: the seconds of an idle machine."""
    times = os.times()
    return (times.user + times.system + times.children_user + times.children_system) / (os.cpu_count() or 1)


def _ends_phase(epoch: object, made: Run) -> bool:
    last = {each.phase: each for each in made.history}
    return epoch in last.values()


def _write(folder: Path, whole: Path, rows: Sequence[dict[str, str]]) -> None:
    if (folder / "train.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_images").symlink_to(whole / "train_images")
    shutil.copy(whole / "category_attributes.csv", folder)
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    raise SystemExit(main())
