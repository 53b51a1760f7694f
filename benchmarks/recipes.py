"""Command: train the recipes side by side, and tell them apart on photos that no training saw.

    python -m benchmarks.recipes --source DIR

DIR is what examples/make_examples.py reads. Each run is one recipe on one task with one seed, from the same backbone
and weights on the same photos, in at most the same time, and becomes a line of
benchmarks/results/recipes_<machine>.jsonl. Runs that are there are not made again, unless what they were made of has
changed: a study that is stopped goes on where it was.

Tasks:
    garment     kind and kids: trained on train, chosen and calibrated on calib, scored on the 722 photos of test
    eye-0 … 4   the attributes labelled by eye, five folds by sender over train and calib: scored on the fold left out,
                chosen on a fifth of the rest, and pooled over the folds; a fold's categories share its time

The time is that of an idle machine: the pace of each recipe is measured first, and as many whole epochs of its plan as
fit are trained (pace.py), all of them where the plan is shorter than the time.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import record, standings, tasks
from benchmarks.probe import probe
from benchmarks.standings import GROUPS, SEARCHED, Key, Line
from benchmarks.tasks import BY_EYE, GARMENT
from runtime.bundle import ROUTER
from runtime.files import replace_file
from train.config import MISSING, PRESETS, Preset

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.pace import Pace
    from train.run import Run
    from train.table import Table

MINUTES = 8.0
SEEDS = (0, 1, 2)
ABLATION_SEEDS = (0, 1)
PROBE = "probe"
CATEGORIES = 3  # labelled by eye
RATES = (1e-5, 1e-4, 3e-4)
"""Of phase 1, searched for the reference recipe; the first is its own."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to train."""

    name: str
    preset: Preset
    pace: str = "default"
    """The recipe whose pace it shares."""
    joint: bool = False
    phase: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of the results."""

    recipe: Recipe | None
    """None for the probe: a logistic regression on the features of the frozen backbone."""
    task: str
    seed: int

    @property
    def key(self) -> Key:
        return self.recipe.name if self.recipe else PROBE, self.task, self.seed

    @property
    def identity(self) -> str:
        """A digest of what the run is made of: another recipe or other photos make another run."""
        recipe = asdict(self.recipe) if self.recipe else asdict(reference(RATES[0]).preset)
        photos = (tasks.BUILD / self.task / "train.csv").read_bytes()
        return hashlib.sha256(json.dumps([recipe, MINUTES], sort_keys=True).encode() + photos).hexdigest()[:12]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="labels.csv, attributes.csv, images/")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="recipes to run (default: every one)")
    args = parser.parse_args(argv)
    tasks.prepare(args.source)
    path = record.RESULTS / f"recipes_{record.machine_slug()}.jsonl"
    paces = paces_of(record.RESULTS / f"pace_{record.machine_slug()}.json")
    # A generator: which rate the reference goes on with is known only when its search is over.
    for job in jobs(path):
        before = lines_of(path).get(job.key)
        if (before and before["identity"] == job.identity) or (args.only and job.key[0] not in args.only):
            continue
        print(*job.key, flush=True)
        line = json.dumps(run(job, paces) if job.recipe else probed(job))
        append(path, line)
        found = standings.summary(current(path), RATES) | {"minutes": MINUTES, "hardware": record.hardware()}
        replace_file(path.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return 0


def append(path: Path, line: str) -> None:
    """A line more, also behind half a line, which a study that was stopped may have left."""
    with path.open("a+b") as file:
        file.seek(0)
        halves = file.read()
        file.write(b"" if not halves or halves.endswith(b"\n") else b"\n")
        file.write(line.encode() + b"\n")


def recipes() -> dict[str, Recipe]:
    """Every recipe but the reference's, whose rate is searched."""
    ours = PRESETS["default"]
    return {
        "default": Recipe(name="default", preset=ours),
        "no MMD": Recipe(
            name="no MMD", preset=replace(ours, phase1=replace(ours.phase1, mmd_weight=0.0)), pace="no MMD"
        ),
        "phase 1 alone": Recipe(name="phase 1 alone", preset=ours, phase=1),
        "complete rows": Recipe(
            name="complete rows",
            preset=replace(
                ours,
                phase1=replace(ours.phase1, complete_rows=True),
                phase2=replace(ours.phase2, complete_rows=True),
            ),
        ),
        # As many steps as the categories have apart.
        "joint": Recipe(
            name="joint",
            preset=replace(ours, phase1=replace(ours.phase1, min_steps=CATEGORIES * ours.phase1.min_steps)),
            joint=True,
        ),
    }


def reference(rate: float) -> Recipe:
    """The reference recipe on this study's backbone, input size and weights, with the rate of phase 1 as given."""
    theirs, ours = PRESETS["reference"], PRESETS["default"]
    # The whole backbone, as the reference takes it; normalised as these weights ask for.
    model = replace(ours.model, last_stage=False, heads="reference", dropout=theirs.model.dropout)
    # Its twelve epochs of a few dozen photos would be over in a minute: it sees as many photos as ours does, at least.
    photos = ours.phase1.min_steps * ours.phase1.batch
    preset = replace(
        theirs,
        model=model,
        phase1=replace(theirs.phase1, backbone_lr=rate, heads_lr=rate, min_steps=photos // theirs.phase1.batch),
        weights=ours.weights,
    )
    return Recipe(name=f"reference {rate:g}", preset=preset, pace="reference")


def jobs(path: Path) -> Iterator[Job]:
    """Every run of the study, in an order in which an unfinished one says most."""
    named = recipes()
    yield from (Job(recipe=None, task=task, seed=SEEDS[0]) for group in GROUPS.values() for task in group)
    for seed in SEEDS:
        for group, members in GROUPS.items():
            yield from (Job(recipe=named["default"], task=task, seed=seed) for task in members)
            if seed == SEEDS[0]:
                yield from (
                    Job(recipe=reference(rate), task=task, seed=seed) for rate in RATES for task in SEARCHED[group]
                )
            best = standings.best_rate(lines_of(path), RATES, group)
            if best is not None:
                yield from (Job(recipe=reference(best), task=task, seed=seed) for task in members)
    # Each part where it can matter: every row of Garment has all its labels, and it is one category.
    for seed in ABLATION_SEEDS:
        yield from (Job(recipe=named[name], task=GARMENT, seed=seed) for name in ("no MMD", "phase 1 alone"))
    for seed in ABLATION_SEEDS:
        yield from (
            Job(recipe=named[name], task=task, seed=seed) for name in ("complete rows", "joint") for task in BY_EYE
        )


def lines_of(path: Path) -> dict[Key, Line]:
    """The runs made so far, of each the latest."""
    if not path.exists():
        return {}
    found: dict[Key, Line] = {}
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # half a line, from a study that was stopped
        found[line["recipe"], line["task"], line["seed"]] = line
    return found


def current(path: Path) -> dict[Key, Line]:
    """Of those, the lines of the study as it is now: no recipe that has changed since, none that it left out."""
    made = lines_of(path)
    wanted = ((job, made.get(job.key)) for job in jobs(path))
    return {job.key: line for job, line in wanted if line and line["identity"] == job.identity}


def run(job: Job, paces: dict[str, Pace]) -> Line:
    """Train once and score what was left out."""
    import torch

    from benchmarks.pace import fitted
    from train import training

    assert job.recipe, "the probe is no training"
    recipe = job.recipe
    out = tasks.BUILD / "checkpoints"
    shutil.rmtree(out, ignore_errors=True)
    tables = tasks.tables_of(job.task, together=recipe.joint)
    phases = training.phases_of(recipe.phase)
    work = [sum(training.work(table, recipe.preset, number, None) for number in phases) for table in tables]
    scored: list[dict[str, object]] = []
    validation: list[float] = []
    taken_s = 0.0
    epochs = []
    for index, table in enumerate(tables):
        share_s = (60 * MINUTES - taken_s) * work[index] / sum(work[index:])
        preset, predicted_s = fitted(table, recipe.preset, paces[recipe.pace], share_s, alone=recipe.phase)
        taken_s += predicted_s
        options = training.Options(
            folder=out / str(index), data=job.task, seed=job.seed, phase=recipe.phase, quiet=True
        )
        made = training.train(table, preset, options, torch.device("cpu"))
        epochs.append({number: made.epochs(training.phase_of(preset, number)) for number in phases})
        validation.append(validation_hm(made))
        scored += score(made, options.folder)
    return _line(job, validation, scored) | {"epochs": epochs, "idle_minutes": round(taken_s / 60, 2)}


def paces_of(path: Path) -> dict[str, Pace]:
    """The pace of each kind of recipe, measured where it is not in the file yet; the machine should be idle."""
    from benchmarks import pace

    known = json.loads(path.read_text()) if path.exists() else {}
    named = recipes()
    for recipe in (named["default"], named["no MMD"], reference(RATES[0])):
        if recipe.pace not in known:
            print("measuring the pace of", recipe.pace, flush=True)
            found = pace.measure(tasks.tables_of(GARMENT)[0], recipe.preset)
            known[recipe.pace] = asdict(found) | {"versions": record.versions(), "hardware": record.hardware()}
            replace_file(path, (json.dumps(known, indent=1) + "\n").encode())
    fields = pace.Pace.__dataclass_fields__
    return {name: pace.Pace(**{key: values[key] for key in fields}) for name, values in known.items()}


def probed(job: Job) -> Line:
    """The probe's line."""
    scored: list[dict[str, object]] = []
    validation: list[float] = []
    for table in tasks.tables_of(job.task):
        rows = table.rows("test")
        found = probe(table, reference(RATES[0]).preset)
        validation.append(sum(one.validation_hm for one in found) / len(found))
        for index, one in enumerate(found):
            answers_N = one.answers_N.tolist()
            scored.append(_answers(table, rows, index, plain=answers_N, offset=answers_N))
    return _line(job, validation, scored)


def validation_hm(made: Run) -> float:
    """The mean HM on the validation photos, of the likeliest class of each: offsets would be judged where they fit."""
    from train import metrics

    probabilities, rows = made.answers(made.model)
    columns = zip(made.table.keys, probabilities, made.table.labels_NL[rows].T, strict=True)
    hms = [
        metrics.hm_of(labels_N[known_N], probabilities_NK[known_N].argmax(1))
        for (category, _), probabilities_NK, labels_N in columns
        if category != ROUTER and (known_N := labels_N != MISSING).any()
    ]
    return sum(hms) / len(hms)


def score(made: Run, folder: Path) -> list[dict[str, object]]:
    """For each attribute the truth and the answers on the rows left out."""
    from runtime.predictor import decide
    from train import calibrate, checkpoint

    page = checkpoint.read(folder)
    probabilities, rows = made.answers(made.model, "test")
    answers = []
    for index, (attribute, probabilities_NK) in enumerate(zip(page.attributes, probabilities, strict=True)):
        if made.table.keys[index][0] == ROUTER:
            continue
        known_N = made.table.labels_NL[rows, index] != MISSING
        tempered_NK = calibrate.tempered(probabilities_NK, page.temperatures.get(attribute.output, 1.0))[known_N]
        plain, offset = ([label for label, _ in decide(tempered_NK, of)] for of in ((), attribute.offsets))
        answers.append(_answers(made.table, rows, index, plain=plain, offset=offset))
    return answers


def _answers(
    table: Table, rows: np.ndarray, index: int, *, plain: Sequence[int], offset: Sequence[int]
) -> dict[str, object]:
    """The answers for one attribute on those of the rows that have its label."""
    known = rows[table.labels_NL[rows, index] != MISSING]
    category, attribute = table.keys[index]
    return {
        "category": category,
        "attribute": attribute,
        "senders": table.groups[known].tolist(),
        "truth": table.labels_NL[known, index].tolist(),
        "plain": list(plain),
        "offset": list(offset),
    }


def _line(job: Job, validation: Sequence[float], scored: Sequence[dict[str, object]]) -> dict[str, Any]:
    name, task, seed = job.key
    return {
        "recipe": name,
        "task": task,
        "seed": seed,
        "identity": job.identity,
        "validation_hm": sum(validation) / len(validation),
        "attributes": list(scored),
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "versions": record.versions(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
