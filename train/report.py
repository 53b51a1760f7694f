"""An evaluation as files: metrics.json, and report.html, one page that needs no other file, script or request."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from runtime import files, images
from runtime.errors import UserError
from train import charts, curves, findings, intervals, pictures, sections
from train.answers import Answers, Model
from train.config import PRESETS, PhaseConfig, Preset
from train.findings import Findings

PAGE = "report.html"
METRICS = "metrics.json"
# Mistakes shown of an attribute, and of all together: some 13 kB each keep the page below 3 MB.
MISTAKES, ALL_MISTAKES = 6, 150
DRAW_PIXELS = 128
DRAWS = 4
# They would turn the direction of what follows them on the page.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_writable(folder: Path) -> None:
    """UserError unless a report can be written in `folder`: better known before the photos are read than after."""
    try:
        files.probe(folder)
    except OSError as err:
        raise _unwritable(folder, err) from None


def write(folder: Path, model: Model, answered: Sequence[Answers]) -> None:
    """Write both files about all the categories of a model."""
    attributes = sum(len(answers.category.attributes) for answers in answered)
    worst = max(1, min(MISTAKES, ALL_MISTAKES // attributes))
    found = [
        # A seed for each category: two would else draw the same rows, and their mean would move too far.
        findings.findings(model, answers, seed=seed, worst=worst)
        for seed, answers in enumerate(answered)
    ]
    document = json.dumps(findings.document(found), indent=1, allow_nan=False) + "\n"
    # A file name that is no UTF-8 is shown by its codes.
    page = _page(model, found).encode("utf-8", "backslashreplace")
    try:
        files.replace_file(folder / METRICS, document.encode())
        files.replace_file(folder / PAGE, page)
    except OSError as err:
        raise _unwritable(folder, err) from err


def _unwritable(folder: Path, err: OSError) -> UserError:
    return UserError(f"cannot write the report in {folder}: {err.strerror}\nchoose another folder with: --out DIR")


def _page(model: Model, found: Sequence[Findings]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    mean_hm, mean_hm_interval, mean_baseline_hm = findings.overall(found)
    page = model.page
    tensorboard = model.folder / curves.FOLDER
    text: str = environment.get_template("report.html.j2").render(
        title=", ".join(category.name for category in model.categories),
        kind="checkpoint" if page else "bundle",
        is_bundle=page is None,
        folder=model.folder,
        slug=model.slug,
        weights=model.provenance.get("checkpoint", "")[:12],
        split=found[0].answers.split,
        data=found[0].answers.data_folder,
        photos=len({path for of in found for path in of.answers.paths}),
        labels=sum(score.labels for of in found for score in of.scores),
        attributes=sum(len(of.attributes) for of in found),
        mean_hm=mean_hm,
        mean_hm_interval=mean_hm_interval,
        mean_baseline_hm=mean_baseline_hm,
        facts=_facts(model),
        resamples=f"{intervals.RESAMPLES:,}",
        categories=[sections.category(model, of, f"c{index}") for index, of in enumerate(found)],
        square=charts.SQUARE,
        curves=charts.learning_curves(page.history) if page else [],
        tensorboard=tensorboard if tensorboard.is_dir() else None,
        drawing=(charts.WIDTH, charts.HEIGHT, charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM),
        **_augmentation(model, found[0].answers),
        doubt=found[0].answers.doubt,
        lost=sorted({lost for of in found for lost in of.answers.lost}),
    )
    return text


def _augmentation(model: Model, answers: Answers) -> dict[str, object]:
    """What the template shows of it; a bundle does not know its preset."""
    if model.page is None:
        return {"probability": 0.0, "unchanged": "", "operations": [], "full_draws": []}
    config = model.page.preset.augment
    photo_HWC = images.load(answers.paths[0], model.preprocess)
    operations = pictures.operations(photo_HWC, config, draws=DRAWS, longest=DRAW_PIXELS)
    return {
        "probability": config.probability,
        "unchanged": pictures.jpeg(photo_HWC, DRAW_PIXELS),
        "operations": operations,
        "full_draws": pictures.draw(photo_HWC, config, draws=2 * DRAWS, longest=DRAW_PIXELS) if operations else [],
    }


def _facts(model: Model) -> list[tuple[str, str]]:
    size = f"{model.preprocess.width} × {model.preprocess.height} px"
    if model.page is None:
        # A checkpoint's whole SHA-256 fills two lines, and says no more.
        origin = ((name, value[:12] if name == "checkpoint" else value) for name, value in model.provenance.items())
        return [("input", size), *(model.artifact or {}).items(), *origin]
    preset = model.page.preset
    phases = {phase: list(epochs) for phase, epochs in groupby(model.page.history, lambda epoch: epoch.phase)}

    def trained(number: int, config: PhaseConfig) -> str:
        epochs = max((epoch.epoch for epoch in phases.get(number, [])), default=None)
        length = f"{config.epochs} epochs planned" if epochs is None else f"{epochs} epochs"
        return f"{length}, batches of {config.batch}"

    return [
        ("preset", _preset_name(preset)),
        ("backbone", preset.model.backbone),
        ("heads", preset.model.heads),
        ("input", size),
        ("started from", preset.weights),
        ("phase 1", trained(1, preset.phase1)),
        ("phase 2", trained(2, preset.phase2)),
        ("weights", model.page.weights_sha256[:12]),
        *model.provenance.items(),
    ]


def _preset_name(preset: Preset) -> str:
    for name, known in PRESETS.items():
        if preset == known:
            return name
    return next(
        (f"{name}, changed" for name, known in PRESETS.items() if preset.model == known.model), "one of its own"
    )


def _shown(value: object) -> object:
    """Text without what no page can show or what would steer it: controls, halves of a character, directions."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTIONS
        else c
        for c in value
    )
