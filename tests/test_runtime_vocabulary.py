"""What people type is the class that they mean, or none, with the nearest ones named."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from runtime import bundle, vocabulary
from runtime.bundle import Attribute
from runtime.errors import UserError
from runtime.vocabulary import SHIPPED, Vocabulary, folded
from train import taxonomy

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "bundles"


def words(*classes: str, name: str = "sleeve_length", extra: tuple[Path, ...] = ()) -> Vocabulary:
    return Vocabulary(Attribute(name=name, classes=classes, output=name), vocabulary.read(extra))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("short sleeves", "short sleeves"),
        ("  Short-Sleeve ", "short sleeves"),
        ("SHORT_SLEEVES", "short sleeves"),
        ("half sleeve", "short sleeves"),
        ("Full Sleeves", "long sleeves"),
        ("3/4 sleeve", "three-quarter sleeves"),
        ("ﬁrst", None),
        ("sleeves", None),
        ("", None),
    ],
)
def test_case_plural_blanks_and_aliases_are_folded(typed: str, meant: str | None) -> None:
    known = words("long sleeves", "short sleeves", "three-quarter sleeves")
    index = known.index_of(typed)
    assert (None if index is None else known.attribute.classes[index]) == meant


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dresses", "dress"),
        ("berries", "berry"),
        ("boxes", "box"),
        ("T-Shirts", "tshirt"),
        ("v neck", "V-Neck"),
        ("ＲＥＤ", "red"),
    ],
)
def test_words_that_differ_in_number_alone_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_what_could_be_two_classes_is_none_unless_it_is_spelt_as_one() -> None:
    known = words("Top", "Tops", name="kind")
    assert (known.index_of("top"), known.index_of("TOPS"), known.index_of("t-o-p")) == (0, 1, None)
    assert known.nearest("t-o-p") == ["Top", "Tops"]


def test_the_nearest_classes_are_named_where_any_is_like_it() -> None:
    known = words("long", "short", "sleeveless")
    assert known.nearest("shrot") == ["short"]
    assert known.nearest("zzzz") == []


def test_a_file_of_aliases_comes_before_those_shipped(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("attribute,value,class\nsleeve_length,full sleeve,short\n,elbow,short\n", encoding="utf-8-sig")
    mine = words("long", "short", extra=(path,))
    assert [mine.index_of(text) for text in ("full sleeve", "Elbow", "full")] == [1, 1, 0]
    assert words("long", "short").index_of("elbow") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"attribute,value\na,b\n", "lacks column class"),
        (b"attribute,value,class\ncolour,navy\n", "line 2: an alias needs a value and a class"),
        (b"attribute,value,class\n,--,red\n", "line 2: an alias needs a value and a class"),
        ("attribute,value,class\n,rosé,pink\n".encode("latin-1"), "is not UTF-8 text"),
        (b'attribute,value,class\n"a', "is not a CSV table"),
    ],
)
def test_a_file_that_holds_no_aliases_is_told(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        vocabulary.read([path])
    with pytest.raises(UserError, match=r"cannot read .+\nname a file with: --aliases FILE"):
        vocabulary.read([tmp_path / "none.csv"])


def test_every_shipped_alias_leads_to_a_class_that_is_shipped() -> None:
    shipped = [category for folder in EXAMPLES.iterdir() for category in bundle.load(folder).categories]
    for file, categories in {"clothing": shipped, "visual_taxonomy": taxonomy.read(taxonomy.SHIPPED)}.items():
        classes: dict[str, set[str]] = {}
        for category in categories:
            for attribute in category.attributes:
                classes.setdefault(attribute.name, set()).update(attribute.classes)
        with (SHIPPED / f"{file}.csv").open(newline="") as lines:
            for line in csv.DictReader(lines):
                assert line["class"] in classes[line["attribute"]], line
                # Else it would change what is a class already.
                assert folded(line["value"]) != folded(line["class"]), line


def test_aliases_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("attribute,value,class\nneck,crew,round\nneck,turtle,hihg\n,full,long\ncolour,navy,blue\n")
    attributes = [
        Attribute(name="Neck", classes=("round", "high"), output="neck"),
        Attribute(name="sleeve", classes=("long", "short"), output="sleeve"),
    ]
    (line,) = vocabulary.idle([path], attributes)
    assert line == f"{path}: 2 of 4 aliases lead to no class here, such as: neck,turtle,hihg"
    assert list(vocabulary.idle([SHIPPED / "clothing.csv"], [])) != []
    path.write_text("attribute,value,class\nneck,crew,Round\n")
    assert list(vocabulary.idle([path], attributes)) == []
