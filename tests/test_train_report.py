"""The report: every section, nothing from outside, nothing of the data taken for markup."""

# B batch, H height, W width, K classes

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from runtime import images
from runtime.bundle import Attribute, Category, Preprocess
from tests.train_parts import CATEGORY, network, write_csv, write_data
from train import answers, checkpoint, report
from train import network as make
from train.answers import Answers, Lost, Model
from train.calibrate import Gain
from train.config import MISSING
from train.curves import Epoch
from train.metrics import Score

HOSTILE = "<script>alert('&amp;\")</script>"
VOID = {"meta", "img", "input", "rect", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """What tests ask of a page; it complains of a tag that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def attribute(name: str, *classes: str, output: str = "") -> Attribute:
    return Attribute(name=name, classes=classes, output=output or name)


def answered(
    folder: Path, category: Category, labels: Callable[[np.random.Generator, int], int], *, count: int = 24
) -> Answers:
    """Answers that are mostly right about photos made here; `labels` draws one of so many classes, or MISSING."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        paths.append(folder / f"{index:06d}.jpg")
        cv2.imwrite(str(paths[-1]), rng.integers(0, 256, (24, 16, 3)).astype(np.uint8))
    columns, raw = [], []
    for of in category.attributes:
        labels_N = np.array([labels(rng, len(of.classes)) for _ in range(count)])
        logits_NK = rng.normal(size=(count, len(of.classes)))
        logits_NK[np.arange(count), np.maximum(labels_N, 0)] += 1
        raised_NK = np.exp(logits_NK)
        columns.append(labels_N)
        raw.append((raised_NK / raised_NK.sum(1, keepdims=True)).astype(np.float32))
    return Answers(
        category=category,
        data_folder=folder,
        split="val",
        paths=tuple(paths),
        labels_NL=np.stack(columns, 1),
        raw=tuple(raw),
        probabilities=tuple(raw),
        commonest=(0,) * len(columns),
        groups_N=np.arange(count),
        lost=(),
    )


def any_class(rng: np.random.Generator, classes: int) -> int:
    return int(rng.integers(classes))


def bundle_of(*categories: Category) -> Model:
    return Model(
        folder=Path("bundles/cap"),
        slug="cap",
        categories=categories,
        preprocess=Preprocess(height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3),
        provenance={"checkpoint": "3fa9c2" * 8},
        probabilities=lambda images_BHWC: {},
        artifact={"file": "model.int8.onnx", "precision": "int8", "engine": "onnxruntime"},
    )


def checkpoint_of(*categories: Category, history: tuple[Epoch, ...] = (), **temperatures: float) -> Model:
    """As a bundle, but with a page, and maps of attention."""
    page = replace(network("test_efficientnet")[1], categories=categories, history=history, temperatures=temperatures)
    outputs = [of.output for of in page.attributes]

    def attention(images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        return {output: np.tile(np.array([[0.7, 0.1], [0.1, 0.1]]), (len(images_BHWC), 1, 1)) for output in outputs}

    return replace(
        bundle_of(*categories), folder=Path("checkpoints/cap"), page=page, artifact=None, attention=attention
    )


def written(folder: Path, model: Model, found: Sequence[Answers]) -> tuple[Page, dict[str, Any]]:
    """The page and the content of metrics.json, after what must hold of any."""
    report.write(folder, model, found)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {attributes["href"][1:] for attributes in page.all("a")} <= set(ids)
    assert all("alt" in attributes for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("svg"))
    assert all(attributes["scope"] in ("row", "col") for attributes in page.all("th"))
    assert (folder / "report.html").stat().st_size < 3e6

    def refuse(name: str) -> None:
        raise AssertionError(f"metrics.json holds {name}")

    return page, json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def history() -> tuple[Epoch, ...]:
    score = Score(
        category="Cap",
        attribute="colour",
        loss=0.5,
        accuracy=0.5,
        weighted_f1=0.5,
        micro_f1=0.5,
        macro_f1=0.5,
        hm=0.5,
        baseline_hm=0.2,
        labels=6,
    )
    return tuple(
        Epoch(phase=phase, epoch=n, steps=n, seconds=1, loss=1 / n, mmd=0.1, rate=0.1, scores=(score,))
        for phase in (1, 2)
        for n in (1, 2, 3)
    )


def test_a_checkpoint_has_every_section(tmp_path: Path) -> None:
    model = checkpoint_of(CATEGORY, history=history(), colour=1.5, shade=0.8)
    found = replace(
        answered(tmp_path / "data", CATEGORY, any_class), lost=(Lost(Path("a/b.jpg"), "unreadable", "empty"),)
    )
    page, document = written(tmp_path / "out", model, [found])
    for text in (
        "What was trained",
        "test_efficientnet",
        "Mean HM",
        "always the commonest training class",
        "Confusion matrix",
        "Most confused pairs",
        "Before calibration, ECE",
        "After calibration, ECE",
        "Calibration divides the logits by 1.500.",
        "Worst mistakes",
        "show the tint",
        "Learning curves",
        "MMD term, unweighted",
        "Augmentation",
        "rotation up to ±5°",
        "Photos left out",
        "a/b.jpg",
        "unreadable: empty",
    ):
        assert text in page.text, text
    # Two diagrams an attribute, three curves.
    assert len(page.all("svg")) == 2 * 2 + 3
    overlays = [image for image in page.all("img") if image.get("class") == "overlay"]
    mistakes = sum(
        declared != answer for of in document["Cap"]["attributes"].values() for declared, answer in pairs(of)
    )
    assert 0 < len(overlays) == min(mistakes, 2 * report.MISTAKES)
    assert document["Cap"]["left_out"] == [{"path": "a/b.jpg", "reason": "unreadable", "detail": "empty"}]


def pairs(entry: dict[str, Any]) -> list[tuple[int, int]]:
    """The declared and answered class of each photo, from a confusion matrix."""
    return [
        (declared, answer)
        for declared, row in enumerate(entry["confusion"])
        for answer, photos in enumerate(row)
        for _ in range(photos)
    ]


def test_the_document_says_what_the_answers_do(tmp_path: Path) -> None:
    model = checkpoint_of(CATEGORY, colour=1.5)
    found = answered(tmp_path / "data", CATEGORY, any_class)
    _, document = written(tmp_path / "out", model, [found])
    entry = document["Cap"]
    assert (entry["split"], entry["photos"], entry["unlabelled"]) == ("val", 24, [])
    assert [score["attribute"] for score in entry["scores"]] == ["colour", "shade"]
    for score in entry["scores"]:
        of = entry["attributes"][score["attribute"]]
        low, high = of["hm_interval"]
        assert 0 <= low <= score["hm"] <= high <= 1
        matrix = np.array(of["confusion"])
        assert matrix.sum() == score["labels"] == 24
        assert np.trace(matrix) / matrix.sum() == pytest.approx(score["accuracy"])
        assert 0 <= of["ece_after"] <= 1
    assert entry["mean_hm"] == pytest.approx(np.mean([score["hm"] for score in entry["scores"]]))
    colour, shade = entry["attributes"]["colour"], entry["attributes"]["shade"]
    assert (colour["temperature"], shade["temperature"], shade["ece_before"]) == (1.5, None, None)
    assert colour["ece_before"] is not None


def test_photos_of_a_group_are_resampled_together_and_the_page_says_so(tmp_path: Path) -> None:
    found = answered(tmp_path / "data", CATEGORY, any_class)
    page, document = written(tmp_path / "apart", bundle_of(CATEGORY), [found])
    assert "(bootstrap, 1,000 resamples of these photos)" in page.text
    assert document["Cap"]["groups"] == 24
    # Each photo thrice, as if a sender had sent it so.
    thrice = replace(
        found,
        paths=tuple(np.repeat(np.array(found.paths, object), 3)),
        labels_NL=found.labels_NL.repeat(3, 0),
        raw=tuple(raw_NK.repeat(3, 0) for raw_NK in found.raw),
        probabilities=tuple(raw_NK.repeat(3, 0) for raw_NK in found.raw),
        groups_N=np.arange(72) // 3,
    )
    page, again = written(tmp_path / "thrice", bundle_of(CATEGORY), [thrice])
    assert "resamples of the 24 groups that these photos come in" in page.text
    assert again["Cap"]["groups"] == 24
    assert again["Cap"]["mean_hm_interval"] == pytest.approx(document["Cap"]["mean_hm_interval"], rel=1e-12)
    page, _ = written(tmp_path / "one", bundle_of(CATEGORY), [replace(thrice, groups_N=np.zeros(72))])
    assert "resamples of the 1 group that these photos come in" in page.text
    assert "Of one group they can say nothing." in page.text


def test_a_split_that_was_drawn_anew_is_told_on_the_page(tmp_path: Path) -> None:
    found = answered(tmp_path / "data", CATEGORY, any_class)
    page, document = written(tmp_path / "given", bundle_of(CATEGORY), [found])
    assert "drawn anew" not in page.text
    assert document["Cap"]["drawn_by"] is None
    page, document = written(tmp_path / "drawn", bundle_of(CATEGORY), [replace(found, drawn_by=5)])
    assert "The split was drawn anew by seed 5: photos that the model learnt from may be among these" in page.text
    assert document["Cap"]["drawn_by"] == 5


def test_reliability_on_the_split_that_calibration_was_fitted_to_is_told_to_be_so(tmp_path: Path) -> None:
    gain = Gain(
        category="Cap",
        attribute="colour",
        labels=24,
        nll_before=1.0,
        nll_after=0.9,
        ece_before=0.1234,
        ece_after=0.0567,
        hm_before=0.5,
        hm_after=0.5,
    )
    model = checkpoint_of(CATEGORY, colour=1.5)
    assert model.page is not None
    model = replace(model, page=replace(model.page, gains=(gain,)))
    found = answered(tmp_path / "data", CATEGORY, any_class)
    fitted = "It was fitted to the validation photos of the training: on others, ECE tends to be higher."
    page, _ = written(tmp_path / "val", model, [found])
    # Of shade there is no temperature.
    assert page.text.count(fitted) == 1
    assert f"{fitted} With each of them left out of the fit that answers it, ECE goes from 0.123 to 0.057." in page.text
    page, _ = written(tmp_path / "bundle", bundle_of(CATEGORY), [found])
    assert page.text.count(fitted) == 2 and "left out of the fit" not in page.text
    page, _ = written(tmp_path / "test", model, [replace(found, split="test")])
    assert fitted not in page.text and "left out of the fit" not in page.text


def test_a_bundle_says_where_the_rest_is(tmp_path: Path) -> None:
    page, document = written(tmp_path / "out", bundle_of(CATEGORY), [answered(tmp_path / "data", CATEGORY, any_class)])
    for text in (
        "A bundle's graph has its temperature in it",
        "As the bundle answers, ECE",
        "python -m train.evaluate checkpoints/cap",
        "begins with 3fa9c23fa9c2",
        "A bundle does not say how its photos were changed in training",
        "model.int8.onnx",
    ):
        assert text in page.text, text
    assert "Before calibration" not in page.text
    assert "show the tint" not in page.text
    assert len(page.all("svg")) == 2
    assert document["Cap"]["attributes"]["colour"]["ece_before"] is None


def test_a_checkpoint_without_history_says_so(tmp_path: Path) -> None:
    page, _ = written(tmp_path / "out", checkpoint_of(CATEGORY), [answered(tmp_path / "data", CATEGORY, any_class)])
    assert "This checkpoint has no history in its page" in page.text
    assert "Not calibrated, ECE" in page.text


def test_names_from_the_data_are_text_and_never_markup(tmp_path: Path) -> None:
    category = Category(
        name=f"Cap {HOSTILE}",
        attributes=(
            attribute(f"colour {HOSTILE}", HOSTILE, "\x1b[31m\u202ered", "\" onload=x style='", "{{ 7 * 7 }}"),
        ),
    )
    folder = tmp_path / "data"
    found = answered(folder, category, any_class)
    odd = [folder / os.fsdecode(b"\xff\xfe.jpg"), folder / "<img src=x onerror=alert(1)>.jpg", *found.paths[2:]]
    for path, new in zip(found.paths, odd, strict=True):
        path.rename(new)
    # No answer is right, so that each of these photos is a mistake.
    wrong_NK = np.zeros((24, 4), np.float32)
    wrong_NK[np.arange(24), (found.labels_NL[:, 0] + 1) % 4] = 1
    wrong_NK[2:] = wrong_NK[2:] * 0.6 + 0.1
    found = replace(
        found,
        paths=tuple(odd),
        raw=(wrong_NK,),
        probabilities=(wrong_NK,),
        lost=(Lost(Path(f"{HOSTILE}.jpg"), "unreadable", HOSTILE),),
    )
    model = replace(checkpoint_of(category), provenance={HOSTILE: HOSTILE}, folder=Path(HOSTILE), slug="cap")
    page, document = written(tmp_path / "out", model, [found])
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in text
    assert html.escape(HOSTILE, quote=False)[:20] in text
    assert r"\x1b[31m\u202ered" in page.text
    assert r"\udcff\udcfe.jpg" in page.text
    assert "<img src=x onerror=alert(1)>.jpg" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert document[category.name]["attributes"][f"colour {HOSTILE}"]["classes"][0] == HOSTILE


def test_an_attribute_without_labels_is_named_and_left_out(tmp_path: Path) -> None:
    found = answered(tmp_path / "data", CATEGORY, any_class)
    labels_NL = found.labels_NL.copy()
    labels_NL[:, 1] = MISSING
    page, document = written(tmp_path / "out", checkpoint_of(CATEGORY), [replace(found, labels_NL=labels_NL)])
    assert "Without a label in this split: shade." in page.text
    assert document["Cap"]["unlabelled"] == ["shade"]
    assert list(document["Cap"]["attributes"]) == ["colour"]


def test_one_class_one_photo_and_many_classes_are_shown(tmp_path: Path) -> None:
    many = [f"c{index}" for index in range(60)]
    category = Category(name="Cap", attributes=(attribute("only", "one"), attribute("many", *many)))
    page, document = written(
        tmp_path / "out", bundle_of(category), [answered(tmp_path / "data", category, any_class, count=1)]
    )
    assert "None: every answer is the declared one." in page.text
    assert "60 classes are too many to show" in page.text
    assert document["Cap"]["attributes"]["only"]["confusion"] == [[1]]
    assert document["Cap"]["attributes"]["only"]["hm_interval"] == [1.0, 1.0]


def test_a_joint_model_has_a_section_for_each_category_and_stays_small(tmp_path: Path) -> None:
    # As many heads as the challenge has, with as many classes as it has at most.
    categories = [
        Category(
            name=name,
            attributes=tuple(
                attribute(f"a{index}", *(f"class {k}" for k in range(2 + 19 * (index == 0))), output=f"{name}/a{index}")
                for index in range(count)
            ),
        )
        for name, count in (("Kurtis", 9), ("Sarees", 10), ("Men", 5), ("Women", 8), ("Tops", 10))
    ]
    found = [answered(tmp_path / "data", category, any_class) for category in categories]
    page, document = written(tmp_path / "out", checkpoint_of(*categories, **{"Sarees/a1": 2.0}), found)
    assert list(document) == [category.name for category in categories]
    for category in categories:
        assert f"Scores of {category.name}" in page.text
    assert document["Sarees"]["attributes"]["a1"]["temperature"] == 2.0
    assert document["Kurtis"]["attributes"]["a1"]["temperature"] is None
    assert len([image for image in page.all("img") if image.get("class") == "overlay"]) <= report.ALL_MISTAKES


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    model, found = checkpoint_of(CATEGORY, history=history()), [answered(tmp_path / "data", CATEGORY, any_class)]
    for name in ("one", "other"):
        report.write(tmp_path / name, model, found)
    for file in ("report.html", "metrics.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize("heads", ["attention", "reference"])
def test_a_real_network_looks_where_its_heads_do(tmp_path: Path, heads: str) -> None:
    model, page = network("test_efficientnet", heads=heads)
    checkpoint.save(tmp_path / "cap", model.state_dict(), page)
    data = write_data(tmp_path / "data")
    with answers.opened(tmp_path / "cap") as opened:
        found, _ = written(tmp_path / "out", opened, list(answers.answers(opened, data, "val", quiet=True)))
        assert (opened.attention is not None) == (heads == "attention")
        if opened.attention:
            maps = opened.attention(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8))
            assert {name: map_BHW.shape for name, map_BHW in maps.items()} == {"colour": (3, 2, 2), "shade": (3, 2, 2)}
            assert all(np.allclose(map_BHW.sum((1, 2)), 1, atol=1e-5) for map_BHW in maps.values())
    assert ("show the tint" in found.text) == (heads == "attention")


def test_a_joint_checkpoint_answers_by_category(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", edit=lambda rows: [*rows, *(row | {"Category": "Hat"} for row in rows)])
    names = '["colour", "shade"]'
    lists = [{"Category": name, "No_of_attribute": "2", "Attribute_list": names} for name in ("Cap", "Hat")]
    write_csv(data / "category_attributes.csv", lists)
    joint = tuple(
        Category(
            name=name, attributes=tuple(attribute(a.name, *a.classes, output=f"{name}/{a.name}") for a in of.attributes)
        )
        for name, of in (("Cap", CATEGORY), ("Hat", CATEGORY))
    )
    _, single = network("test_efficientnet")
    made = make.create(single.preset.model, [3, 2, 3, 2], "none").eval()
    page = replace(single, slug="cap-hat", categories=joint, temperatures={"Hat/shade": 3.0})
    checkpoint.save(tmp_path / "cap-hat", made.state_dict(), page)
    with answers.opened(tmp_path / "cap-hat") as model:
        cap, hat = answers.answers(model, data, "val", quiet=True)
        shown, document = written(tmp_path / "out", model, [cap, hat])
    assert list(document) == ["Cap", "Hat"]
    assert "Cap, Hat" in shown.text
    with torch.inference_mode():
        photos = [images.fit(images.decode(path), page.preprocess) for path in hat.paths]
        logits = made(make.normalise(torch.from_numpy(np.stack(photos)), single.preset.model)).logits
    # Another batch, other additions.
    np.testing.assert_allclose(cap.probabilities[0], logits[0].softmax(1), atol=1e-5)
    np.testing.assert_allclose(hat.probabilities[0], logits[2].softmax(1), atol=1e-5)
    np.testing.assert_allclose(hat.probabilities[1], (logits[3] / 3).softmax(1), atol=1e-5)
