"""A built bundle keeps its own answers to validation photos, and to no other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export import evidence, validation
from runtime import bundle, images
from runtime import validation as kept
from runtime.predictor import Predictor
from tests import export_parts
from train import checkpoint
from train.table import Table

pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")


def table(folder: Path) -> Table:
    return evidence.table(checkpoint.read(export_parts.checkpoints(folder) / "cap"), export_parts.data(folder))


def test_a_build_keeps_what_the_served_network_says_of_every_validation_photo(export_folder: Path) -> None:
    built, labelled = export_parts.built(export_folder), table(export_folder)
    page = bundle.verify(built)
    found = kept.read(built, page)
    assert found is not None and page.validation
    rows = labelled.rows("val")
    assert page.validation.photos == len(rows) > 0
    with Predictor.open(built) as predictor:
        assert page.validation.answered_by == str(predictor.choice)
        drawn = validation.drawn(labelled)
        assert sorted(drawn) == sorted(rows)
        outputs = predictor.probabilities(
            np.stack([images.load(labelled.paths[row], page.preprocess) for row in drawn])
        )
    for column, attribute in enumerate(labelled.attributes):
        labels_N = labelled.labels_NL[drawn, column]
        answers = found.answers[attribute.output]
        assert np.array_equal(answers.labels_N, labels_N[labels_N >= 0])
        # The same graph on the same pixels in batches of another size.
        assert np.abs(answers.probabilities_NK - outputs[attribute.output][labels_N >= 0]).max() < 1e-4
    assert found.features_NF.shape == outputs["features"].shape


def test_a_bundle_that_lacks_it_gets_it_when_it_is_built_again_and_nothing_else_changes(
    export_folder: Path, tmp_path: Path
) -> None:
    built = Path(shutil.copytree(export_parts.built(export_folder), tmp_path / "bundles" / "cap"))
    page = bundle.load(built)
    bundle.save(built, msgspec.structs.replace(page, validation=msgspec.UNSET))
    assert not list(built.glob("validation.*")) and validation.lacks(built, None)
    precisions = ("--precision", "fp32", "fp16", "int8")
    assert export_parts.run(export_parts.checkpoints(export_folder), built.parent, *precisions) == 0
    assert bundle.load(built) == page


def test_of_many_photos_a_uniform_sample_is_drawn_the_same_each_time(
    export_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = table(export_folder)
    rows = set(labelled.rows("val"))
    monkeypatch.setattr(validation, "PHOTOS", len(rows) - 2)
    first = validation.drawn(labelled)
    assert len(set(first)) == len(rows) - 2 and set(first) < rows
    assert np.array_equal(first, validation.drawn(labelled))


def test_a_photo_that_cannot_be_read_is_left_out(export_folder: Path, tmp_path: Path) -> None:
    built = Path(shutil.copytree(export_parts.built(export_folder), tmp_path / "cap"))
    labelled = table(export_folder)
    lost = validation.drawn(labelled)[1]
    paths = list(labelled.paths)
    paths[lost] = tmp_path / "gone.jpg"
    told: list[float] = []
    validation.add(built, replace(labelled, paths=tuple(paths)), advance=told.append)
    page = bundle.verify(built)
    assert page.validation and page.validation.photos == len(labelled.rows("val")) - 1
    assert sum(told) == len(labelled.rows("val"))
