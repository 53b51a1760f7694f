"""The taxonomy file that ships, and files of others: read, or refused with what is wrong in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.errors import UserError
from train import taxonomy


def test_the_shipped_taxonomy_has_the_challenges_categories_and_their_classes() -> None:
    categories = taxonomy.read(taxonomy.SHIPPED)
    # As the reference system's own notebook lists them, attribute by attribute.
    assert {
        category.name: [len(attribute.classes) for attribute in category.attributes] for category in categories
    } == {
        "Men Tshirts": [4, 2, 2, 3, 2],
        "Sarees": [4, 6, 3, 8, 4, 3, 4, 5, 9, 2],
        "Kurtis": [13, 2, 2, 2, 2, 2, 2, 3, 2],
        "Women Tshirts": [7, 3, 3, 3, 6, 3, 2, 2],
        "Women Tops & Tunics": [12, 4, 2, 7, 2, 3, 6, 4, 4, 6],
    }
    colour = categories[0].attributes[0]
    assert (colour.name, colour.output) == ("color", "color")


def test_classes_are_in_alphabetical_order_as_training_and_the_reference_put_them() -> None:
    for category in taxonomy.read(taxonomy.SHIPPED):
        for attribute in category.attributes:
            assert list(attribute.classes) == sorted(attribute.classes)
    assert taxonomy.read(taxonomy.SHIPPED)[0].attributes[0].classes == ("black", "default", "multicolor", "white")


def test_the_shipped_file_says_where_it_comes_from_and_lists_attributes_in_their_columns_order() -> None:
    page = json.loads(taxonomy.SHIPPED.read_text())
    assert "challenge" in page["source"] and "No rows, no images" in page["source"]
    for category in page["categories"]:
        columns = [attribute["column"] for attribute in category["attributes"]]
        assert columns == [f"attr_{index}" for index in range(1, len(columns) + 1)]


def test_classes_may_be_a_plain_list(tmp_path: Path) -> None:
    (category,) = taxonomy.read(written(tmp_path, "Cap", {"colour": ["red", "blue"]}))
    assert [(attribute.name, attribute.classes) for attribute in category.attributes] == [("colour", ("blue", "red"))]


@pytest.mark.parametrize(
    ("name", "attributes", "complaint"),
    [
        ("Cap", {}, r"attributes of 'Cap': 1 or more are needed, got 0$"),
        ("Cap", {"colour": ["red"]}, r"classes of 'colour' of 'Cap': 2 or more are needed, got 1$"),
        ("Cap", {"colour": ["red", "red"]}, r"classes of 'colour' of 'Cap': one is listed twice: red, red$"),
        ("Cap", {"colour": ["red", "red "]}, r"classes .* with nothing around them, got 'red '$"),
        ("Cap", {"": ["red", "blue"]}, r"attributes of 'Cap' must be names .*, got ''$"),
        ("Cap", {"features": ["red", "blue"]}, r"'features' names a tensor of every graph: rename that attribute"),
        ("??", {"colour": ["red", "blue"]}, r"category '\?\?' has no letter or digit"),
    ],
    ids=["no attribute", "one class", "twice", "space", "empty", "reserved", "no folder"],
)
def test_what_no_model_could_have_is_refused(
    tmp_path: Path, name: str, attributes: dict[str, list[str]], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        taxonomy.read(written(tmp_path, name, attributes))


def test_categories_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "Cap", {"colour": ["red", "blue"]})
    page = json.loads(path.read_text())
    path.write_text(json.dumps({"categories": [*page["categories"], {**page["categories"][0], "name": "cap"}]}))
    with pytest.raises(UserError, match=r"categories 'Cap' and 'cap' would share the folder 'cap': rename one$"):
        taxonomy.read(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a taxonomy: Input data was truncated"),
        (b"\xff\xfe", "is not a taxonomy: "),
        (b"[" * 100_000, "is not a taxonomy: "),
        (b"{}", "is not a taxonomy: .*missing required field `categories`"),
        (b'{"categories": []}', "categories: 1 or more are needed, got 0"),
    ],
    ids=["empty", "no text", "deep", "another page", "no category"],
)
def test_a_file_that_is_no_taxonomy_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "page.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"page\.json:? {complaint}"):
        taxonomy.read(tmp_path / "page.json")


def test_a_taxonomy_that_is_not_there_is_named_beside_the_one_that_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.json: No such file .*\n.* is .*visual_taxonomy\.json$"):
        taxonomy.read(tmp_path / "none.json")


def written(folder: Path, name: str, attributes: dict[str, list[str]]) -> Path:
    listed = [{"name": attribute, "classes": classes} for attribute, classes in attributes.items()]
    (folder / "page.json").write_text(json.dumps({"categories": [{"name": name, "attributes": listed}]}))
    return folder / "page.json"
