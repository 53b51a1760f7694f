"""The size of each category's network, counted on it, against the reference system's own formula."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from train import model, taxonomy


def rows(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, tuple[int, int, int]]:
    """What the command prints: by category its attributes, classes and parameters."""
    assert model.main(list(options)) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()  # a title and a header
    printed = [re.split(r" {2,}", line) for line in lines]
    return {
        name: (int(attributes), int(classes), int(parameters.replace(",", "")))
        for name, attributes, classes, parameters in printed
    }


def test_the_reference_is_as_large_as_its_formula_says_in_every_category(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--preset", "reference")
    # Its backbone, its neck, and so much for each attribute and each class.
    assert found == {
        name: (attributes, classes, 87_566_464 + 1_049_600 + 1_407_104 * attributes + 513 * classes)
        for name, (attributes, classes, _) in found.items()
    }
    # As the reference system's report states.
    assert found["Men Tshirts"] == (5, 13, 95_658_253)
    assert found["Sarees"] == (10, 48, 102_711_728)
    assert list(found) == [category.name for category in taxonomy.read(taxonomy.SHIPPED)]


def test_another_taxonomy_is_counted_with_the_default_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "caps.json").write_text(
        '{"categories": [{"name": "Cap", "attributes": [{"name": "colour", "classes": ["red", "blue"]}]}]}'
    )
    found = rows(capsys, "--taxonomy", str(tmp_path / "caps.json"))
    assert list(found) == ["Cap"] and found["Cap"][:2] == (1, 2)
    # MobileNetV2 to its last stage has 1.8 million weights, and its heads few.
    assert 1_700_000 < found["Cap"][2] < 2_000_000


def test_a_taxonomy_that_is_not_there_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert model.main(["--taxonomy", "nowhere.json"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read nowhere.json: No such file or directory\n")
