"""The challenge's layout, read from folders of a few rows; the photos are empty files, as nothing here opens them."""

# N rows, L attributes

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runtime.bundle import Attribute, Category, Routes
from runtime.errors import UserError
from train import data, table
from train.config import MISSING

HEADER = "id,Category,len,attr_1,attr_2"
ATTRIBUTES = 'Cap,2,"[""colour"", ""shade""]"'
ROWS = ("1,Cap,2,red,dark", "2,Cap,2,blue,light", "3,Cap,2,red,light", "4,Cap,2,blue,dark")


def write(
    folder: Path,
    rows: Sequence[str] = ROWS,
    *,
    header: str = HEADER,
    attributes: Sequence[str] = (ATTRIBUTES,),
    lost: Sequence[str] = (),
) -> Path:
    """A data folder of these lines, with a file for every id but the lost ones."""
    (folder / "train_images").mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "category_attributes.csv").write_text(
        "\n".join(["Category,No_of_attribute,Attribute_list", *attributes]) + "\n"
    )
    for name in {row.split(",")[0].strip() for row in rows} - set(lost):
        (folder / "train_images" / (f"{int(name):06d}.jpg" if name.isdigit() else name)).touch()
    return folder


def many(count: int, *, group_of: int = 0) -> list[str]:
    """So many good rows; with `group_of`, a last column that gathers as many rows each."""
    rows = [f"{index},Cap,2,{('red', 'blue')[index % 2]},{('dark', 'light')[index // 2 % 2]}" for index in range(count)]
    return [f"{row},sender{index // group_of}" for index, row in enumerate(rows)] if group_of else rows


def only(folder: Path, **options: object) -> data.Table:
    (table,) = data.read(folder, **options)  # type: ignore[arg-type]
    return table


def test_labels_are_indices_into_the_sorted_classes(tmp_path: Path) -> None:
    table = only(write(tmp_path))
    assert table.categories[0] == Category(
        name="Cap",
        attributes=(
            Attribute(name="colour", classes=("blue", "red"), output="colour"),
            Attribute(name="shade", classes=("dark", "light"), output="shade"),
        ),
    )
    assert table.labels_NL.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert table.labels_NL.dtype == np.int64
    assert [path.name for path in table.paths] == ["000001.jpg", "000002.jpg", "000003.jpg", "000004.jpg"]
    assert (table.absent, table.routes) == ((), None)


def test_whitespace_around_ids_categories_and_labels_is_not_part_of_them(tmp_path: Path) -> None:
    rows = ("1, Cap ,2,red ,dark", " 2,Cap,2, blue,light\t", "3,Cap,2,red,light", "4,Cap,2,blue,dark")
    table = only(write(tmp_path, rows, attributes=('Cap ,2,"["" colour"", ""shade ""]"',)))
    assert [attribute.name for attribute in table.attributes] == ["colour", "shade"]
    assert table.attributes[0].classes == ("blue", "red")
    assert table.labels_NL.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_an_empty_cell_is_missing_and_never_a_class(tmp_path: Path) -> None:
    table = only(write(tmp_path, ("1,Cap,2,,dark", "2,Cap,2,blue,  ", "3,Cap,2,red", "4,Cap,2,red,light")))
    assert table.attributes[0].classes == ("blue", "red")
    assert table.attributes[1].classes == ("dark", "light")
    assert table.labels_NL.tolist() == [[MISSING, 0], [0, MISSING], [1, MISSING], [1, 1]]


@pytest.mark.parametrize("word", ["default", "None", "1", "1.0", "01", "nan", "NA", "null", "TRUE"])
def test_a_class_named_like_a_missing_value_or_a_number_stays_as_typed(tmp_path: Path, word: str) -> None:
    table = only(write(tmp_path, (f"1,Cap,2,{word},dark", *ROWS[1:])))
    assert word in table.attributes[0].classes
    assert table.attributes[0].classes[table.labels_NL[0, 0]] == word


@pytest.mark.parametrize("names", [["colour", "shade"], '["colour", "shade"]'], ids=["list", "text"])
def test_attributes_are_read_from_parquet_too(tmp_path: Path, names: object) -> None:
    folder = write(tmp_path)
    (folder / "category_attributes.csv").unlink()
    table = pd.DataFrame({"Category": ["Cap"], "No_of_attribute": [2], "Attribute_list": [names]})
    table.to_parquet(folder / "category_attributes.parquet")
    assert [attribute.name for attribute in only(folder).attributes] == ["colour", "shade"]


def test_an_attribute_list_may_be_a_python_list(tmp_path: Path) -> None:
    table = only(write(tmp_path, attributes=("Cap,2,\"['colour', 'shade']\"",)))
    assert [attribute.name for attribute in table.attributes] == ["colour", "shade"]


@pytest.mark.parametrize("text", ["colour", '"{""colour"": 1}"', "7"])
def test_an_attribute_list_that_is_no_list_is_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"Attribute_list must be a list such as \[\"colour\", \"neck\"\], got '"):
        data.read(write(tmp_path, attributes=(f"Cap,2,{text}",)))


def test_an_id_that_is_no_number_is_the_name_of_its_photo(tmp_path: Path) -> None:
    table = only(write(tmp_path, (*ROWS, "front view.png,Cap,2,red,dark")))
    assert table.paths[-1] == tmp_path / "train_images" / "front view.png"


# Splits


def test_a_split_column_is_honoured(tmp_path: Path) -> None:
    rows = [f"{row},{split}" for row, split in zip(ROWS, ("val", "train", "test", "train"), strict=True)]
    table = only(write(tmp_path, rows, header=f"{HEADER},split"))
    assert table.splits.tolist() == ["val", "train", "test", "train"]
    assert [table.rows(split).tolist() for split in data.SPLITS] == [[1, 3], [0], [2]]


def test_without_a_split_column_a_seeded_share_of_the_rows_is_val(tmp_path: Path) -> None:
    folder = write(tmp_path, many(100))
    first, again, other = (only(folder, seed=seed).splits for seed in (0, 0, 1))
    assert (first == "val").sum() == 15  # VAL_SHARE of 100
    assert set(first) == {"train", "val"}
    assert (first == again).all()
    assert (first != other).any()


def test_a_group_is_never_divided_by_the_split(tmp_path: Path) -> None:
    table = only(write(tmp_path, many(120, group_of=6), header=f"{HEADER},group"))
    homes = [set(table.splits[start : start + 6]) for start in range(0, 120, 6)]
    assert all(len(home) == 1 for home in homes)
    assert sum(home == {"val"} for home in homes) == 3  # VAL_SHARE of 20 groups


def test_a_row_without_any_label_is_in_no_split(tmp_path: Path) -> None:
    rows = [f"{row},{split}" for row, split in zip(ROWS, ("val", "train", "train", "train"), strict=True)]
    table = only(write(tmp_path, [*rows, "5,Cap,2,,,train"], header=f"{HEADER},split"))
    assert len(table.paths) == 5
    assert table.rows("train").tolist() == [1, 2, 3]


def test_the_commonest_class_is_counted_on_training_labels_alone(tmp_path: Path) -> None:
    rows = (
        "1,Cap,2,red,dark,train",
        "2,Cap,2,red,,train",
        "3,Cap,2,blue,,train",
        *(f"{index},Cap,2,blue,light,val" for index in range(4, 9)),
    )
    assert only(write(tmp_path, rows, header=f"{HEADER},split")).commonest() == [1, 0]


# Several categories, and categories that are settled already

TWO = ("Cap,2,\"['colour', 'shade']\"", "Rain Boots,1,['sole']", "Any,1,['kind']")
TWO_ROWS = (*ROWS, "5,Rain Boots,1,flat,", "6,Rain Boots,1,high,", "7,Rain Boots,1,high,", "8,Rain Boots,1,flat,")


def test_every_category_with_rows_is_read_in_the_order_of_category_attributes(tmp_path: Path) -> None:
    tables = data.read(write(tmp_path, TWO_ROWS, attributes=TWO))
    assert [table.name for table in tables] == ["Cap", "Rain Boots"]
    assert tables[1].labels_NL.tolist() == [[0], [1], [1], [0]]


@pytest.mark.parametrize("name", ["Rain Boots", "rain-boots", "RAIN BOOTS"])
def test_a_category_may_be_asked_for_by_name_or_by_folder_name(tmp_path: Path, name: str) -> None:
    assert only(write(tmp_path, TWO_ROWS, attributes=TWO), names=[name]).name == "Rain Boots"


def test_the_same_id_in_two_categories_is_no_repetition(tmp_path: Path) -> None:
    rows = [*ROWS, *(row.replace("Cap", "Hat") for row in ROWS)]
    attributes = (ATTRIBUTES, ATTRIBUTES.replace("Cap", "Hat"))
    assert len(data.read(write(tmp_path, rows, attributes=attributes))) == 2


def test_classes_that_are_names_of_categories_make_a_router(tmp_path: Path) -> None:
    rows = [
        *TWO_ROWS,
        *(f"{index},Any,1,{('Cap', 'Rain Boots', 'Any', 'scarf')[index % 4]}," for index in range(9, 25)),
    ]
    router = data.read(write(tmp_path, rows, attributes=TWO), names=["Any"])[0]
    assert router.routes == Routes(attribute="kind", to={"Cap": "Cap", "Rain Boots": "Rain Boots"})
    assert router.attributes[0].classes == ("Any", "Cap", "Rain Boots", "scarf")


KNOWN = Category(
    name="Cap",
    attributes=(
        Attribute(name="colour", classes=("red", "pink", "blue"), output="Cap/colour", offsets=(0.0, 0.5, 0.0)),
        Attribute(name="shade", classes=("light", "dark"), output="Cap/shade"),
    ),
)


def test_a_known_category_keeps_its_classes_their_order_and_its_outputs(tmp_path: Path) -> None:
    table = only(write(tmp_path), known=[KNOWN])
    assert table.categories == (KNOWN,)
    assert table.labels_NL.tolist() == [[0, 1], [2, 0], [0, 0], [2, 1]]


BOOT = 'Boot,2,"[""colour"", ""sole""]"'
BOTH = (*ROWS, "5,Boot,2,white,flat", "6,Boot,2,black,high", "7,Boot,2,white,high", "8,Boot,2,black,flat")


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two categories of four rows, the last of each for validation."""
    rows = [f"{row},{'val' if row[0] in '48' else 'train'}" for row in BOTH]
    return write(tmp_path, rows, header=HEADER + ",split", attributes=[ATTRIBUTES, BOOT])


def test_the_table_for_a_model_is_of_its_kind(both: Path) -> None:
    tables = data.read(both)
    for made in (tables[1], table.joint(tables), table.router(tables)):
        found = data.read_for(both, made.categories)
        assert (found.categories, found.routes, found.ids) == (made.categories, made.routes, made.ids)
        assert np.array_equal(found.labels_NL, made.labels_NL)
        assert np.array_equal(found.splits, made.splits)


def test_a_joint_model_of_some_categories_leaves_the_others_out(tmp_path: Path) -> None:
    rows = [*BOTH, "9,Hat,2,a,b", "10,Hat,2,c,d", "11,Hat,2,a,b"]
    rows = [f"{row},{'val' if index in (3, 7, 10) else 'train'}" for index, row in enumerate(rows)]
    hat = 'Hat,2,"[""x"", ""y""]"'
    folder = write(tmp_path, rows, header=HEADER + ",split", attributes=[ATTRIBUTES, hat, BOOT])
    made = table.joint(data.read(folder, names=["boot", "cap"]))
    assert [category.name for category in made.categories] == ["Router", "Boot", "Cap"]
    assert data.read_for(folder, made.categories).ids == made.ids


def test_the_table_for_a_model_is_split_as_it_was_trained_and_else_by_the_seed(tmp_path: Path) -> None:
    folder = write(tmp_path, many(40))
    categories = only(folder).categories
    trained = {"train": [str(index) for index in range(30)], "val": ["30", "31"]}
    assert data.read_for(folder, categories, trained=trained).rows("val").tolist() == [30, 31]
    drawn = only(folder, seed=3).rows("val").tolist()
    assert data.read_for(folder, categories, seed=3, trained={}).rows("val").tolist() == drawn


def test_a_label_outside_the_known_classes_is_named_with_its_id(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'green' \(id 7\) is not a class of 'colour'; its classes are: red, pink, blue"
    ):
        data.read(write(tmp_path, (*ROWS, "7,Cap,2,green,dark")), known=[KNOWN])


def test_a_known_category_with_other_attributes_is_another_taxonomy(tmp_path: Path) -> None:
    folder = write(tmp_path, attributes=("Cap,2,\"['colour', 'brim']\"",))
    with pytest.raises(UserError, match="another taxonomy: 'Cap' has attributes colour, brim, expected colour, shade"):
        data.read(folder, known=[KNOWN])


# Photos that are not there


def test_within_one_percent_an_absent_photo_costs_its_row_alone(tmp_path: Path) -> None:
    table = only(write(tmp_path, many(100), lost=["41"]))
    assert table.absent == (tmp_path / "train_images" / "000041.jpg",)
    assert len(table.paths) == len(table.labels_NL) == len(table.splits) == 99
    assert table.absent[0] not in table.paths
    # Row 42 follows row 40, its labels with it.
    assert (table.paths[41].name, table.labels_NL[41].tolist()) == ("000042.jpg", [1, 1])


def test_more_absent_photos_than_one_percent_are_an_error_that_names_them(tmp_path: Path) -> None:
    folder = write(tmp_path, many(100), lost=["41", "7"])
    first = re.escape(str(tmp_path / "train_images" / "000007.jpg"))
    with pytest.raises(UserError, match=rf"^2 of 100 photos are not there, more than 1%; the first:\n  {first}\n"):
        data.read(folder)


def test_a_link_to_a_photo_is_one_and_what_leads_to_no_file_is_absent(tmp_path: Path) -> None:
    images = write(tmp_path, many(300), lost=["1", "2", "3"]) / "train_images"
    (images / "000000.jpg").rename(tmp_path / "elsewhere.jpg")
    (images / "000000.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (images / "000001.jpg").symlink_to("000001.jpg")
    (images / "000002.jpg").symlink_to("nowhere.jpg")
    (images / "000003.jpg").mkdir()
    assert [path.name for path in only(tmp_path).absent] == ["000001.jpg", "000002.jpg", "000003.jpg"]


def test_without_train_images_every_photo_is_absent(tmp_path: Path) -> None:
    folder = write(tmp_path, many(100))
    (folder / "train_images").rename(folder / "images")
    with pytest.raises(UserError, match=r"^100 of 100 photos are not there, more than 1%"):
        data.read(folder)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "train_images").rename(folder / "images")
    (folder / "train_images").symlink_to("train_images")
    with pytest.raises(UserError, match=r"^cannot list .*train_images: Too many levels of symbolic links$"):
        data.read(folder)


def test_more_unreadable_photos_than_one_percent_are_an_error_that_names_them() -> None:
    data.refuse_unreadable([Path("a.jpg")], 100)
    with pytest.raises(
        UserError, match=r"2 of 100 photos are unreadable, more than 1%; the first:\n  a\.jpg\n  b\.jpg"
    ):
        data.refuse_unreadable([Path("a.jpg"), Path("b.jpg")], 100)


# Mistakes, each answered by what is wrong and where


def test_a_folder_without_train_csv_is_answered_with_the_example(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*train\.csv\ntry the example with: --data examples/clothing"):
        data.read(tmp_path)


def test_a_folder_without_category_attributes_is_told_which_file_is_looked_for(tmp_path: Path) -> None:
    (write(tmp_path) / "category_attributes.csv").unlink()
    with pytest.raises(UserError, match=r"no such file: .*category_attributes\.csv"):
        data.read(tmp_path)


def test_a_line_of_one_comma_too_many_shifts_no_label(tmp_path: Path) -> None:
    """As in `red, blue` without quotes: the reader would take the first such line for the width of all."""
    path = write(tmp_path) / "train.csv"
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, f"{first},more", *(f"{line},more" for line in rest)]))
    with pytest.raises(UserError, match=r"train\.csv has lines of more cells than its header\nput cells that hold"):
        data.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 not a table"], ids=["empty", "binary"])
def test_what_is_no_table_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path) / "train.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.csv is not (a CSV table|UTF-8 text): [^\n]+\n\w"):
        data.read(tmp_path)


def test_a_table_without_rows_is_an_error_and_not_a_run_that_trains_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.csv has no rows"):
        data.read(write(tmp_path, ()))


@pytest.mark.parametrize(
    ("header", "lacking"),
    [
        ("id,len,attr_1,attr_2", "Category"),
        ("photo,kind,len,attr_1,attr_2", "id, Category"),
        ("id,Category,len,attr_1,shade", "attr_2"),
    ],
)
def test_a_table_that_lacks_columns_is_told_which(tmp_path: Path, header: str, lacking: str) -> None:
    rows = [",".join(row.split(",")[: header.count(",") + 1]) for row in ROWS]
    with pytest.raises(UserError, match=rf"train\.csv lacks column {lacking}; it has: {header.replace(',', ', ')}"):
        data.read(write(tmp_path, rows, header=header))


def test_category_attributes_that_lacks_columns_is_told_which(tmp_path: Path) -> None:
    (write(tmp_path) / "category_attributes.csv").write_text("Category,attributes\nCap,colour\n")
    with pytest.raises(
        UserError, match=r"category_attributes\.csv lacks column Attribute_list; it has: Category, attr"
    ):
        data.read(tmp_path)


def test_an_undeclared_category_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has rows of 'Scarf', which category_attributes does not list"):
        data.read(write(tmp_path, (*ROWS, "5,Scarf,2,red,dark")))


def test_an_unknown_category_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no category 'Scarf' in .*; have: Cap, Rain Boots, Any"):
        data.read(write(tmp_path, TWO_ROWS, attributes=TWO), names=["Scarf"])


def test_a_category_that_is_declared_and_has_no_row_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.csv has no row of category 'Any'"):
        data.read(write(tmp_path, TWO_ROWS, attributes=TWO), names=["Any"])


def test_a_repeated_id_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has rows of 'Cap' with the same id: 2"):
        data.read(write(tmp_path, (*ROWS, "2,Cap,2,red,dark")))


@pytest.mark.parametrize(("cell", "have"), [("dark", r"one class \('dark'\)"), ("", "no label")])
def test_an_attribute_with_fewer_than_two_classes_cannot_be_learnt(tmp_path: Path, cell: str, have: str) -> None:
    rows = (f"1,Cap,2,red,{cell}", f"2,Cap,2,blue,{cell}", "3,Cap,2,red,")
    with pytest.raises(
        UserError, match=f"attribute 'shade' of 'Cap' has {have}: there is nothing to learn\ntake it out"
    ):
        data.read(write(tmp_path, rows))


def test_an_unknown_split_is_named(tmp_path: Path) -> None:
    rows = [f"{row},{split}" for row, split in zip(ROWS, ("train", "valid", "train", "val"), strict=True)]
    with pytest.raises(UserError, match="split must be one of train, val, test, got 'valid'"):
        data.read(write(tmp_path, rows, header=f"{HEADER},split"))


def test_a_group_in_two_splits_is_named(tmp_path: Path) -> None:
    ends = ("train,anna", "train,ben", "val,ben", "val,carl")
    rows = [f"{row},{end}" for row, end in zip(ROWS, ends, strict=True)]
    with pytest.raises(UserError, match="group 'ben' is in more than one split"):
        data.read(write(tmp_path, rows, header=f"{HEADER},split,group"))


@pytest.mark.parametrize(("splits", "without"), [(("val",) * 4, "train"), (("train", "train", "test", "test"), "val")])
def test_a_split_without_labelled_rows_is_named(tmp_path: Path, splits: Sequence[str], without: str) -> None:
    rows = [f"{row},{split}" for row, split in zip(ROWS, splits, strict=True)]
    with pytest.raises(UserError, match=f"no labelled row of 'Cap' in split '{without}'"):
        data.read(write(tmp_path, rows, header=f"{HEADER},split"))


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ("[]", "must be names, at least one"),
        ("['colour', '']", "must be names, at least one"),
        ("['colour', 3]", "must be names, at least one"),
        ("['colour', 'colour']", "is listed twice"),
        ("['colour', 'features']", "'features' names a tensor of every graph"),
        ("['images', 'colour']", "'images' names a tensor of every graph"),
        ("[" * 3000, "Attribute_list must be a list"),
    ],
)
def test_attribute_names_that_no_graph_could_carry_are_refused(tmp_path: Path, listed: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        data.read(write(tmp_path, attributes=[f'Cap,2,"{listed}"']))


def test_two_categories_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'Cap' and 'cap!' would share the folder 'cap'"):
        data.read(write(tmp_path, attributes=[*TWO, "cap!,1,['x']"]), names=["Cap"])


def test_a_category_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lists category 'Cap' twice"):
        data.read(write(tmp_path, attributes=["Cap,2,\"['colour', 'shade']\"", "Cap,1,['x']"]))


@pytest.mark.parametrize("stray", ["../1", "a" * 5000, "x/y.jpg"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, stray: str) -> None:
    source = write(tmp_path)
    (source / "train.csv").write_text((source / "train.csv").read_text() + f"{stray},Cap,2,red,dark\n")
    with pytest.raises(UserError, match="has an id that is no file name"):
        data.read(source)


def test_ids_that_name_one_photo_twice_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path)
    (source / "train.csv").write_text((source / "train.csv").read_text() + "0001,Cap,2,red,dark\n")
    with pytest.raises(UserError, match="with the same id: 0001"):
        data.read(source)


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "category_attributes.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="is not a Parquet table"):
        data.read(tmp_path)


def test_a_column_named_twice_is_refused_where_a_reader_would_rename_one(tmp_path: Path) -> None:
    header = HEADER.replace("attr_2", "attr_1")
    with pytest.raises(UserError, match=r"train\.csv has column 'attr_1' twice\nleave one of the two out"):
        data.read(write(tmp_path, header=header))


def test_a_table_of_another_encoding_is_told_how_to_be_converted(tmp_path: Path) -> None:
    path = write(tmp_path) / "train.csv"
    path.write_bytes(path.read_bytes().replace(b"blue", b"bl\xe9"))
    with pytest.raises(UserError, match=r"train\.csv is not UTF-8 text: byte 0xe9, .+\nsave it as CSV UTF-8"):
        data.read(tmp_path)


def test_a_missing_column_is_told_of_beside_those_that_are_there_and_no_others(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks column attr_2; it has: id, Category, len, attr_1\nsee how"):
        data.read(write(tmp_path, [row.rpartition(",")[0] for row in ROWS], header=HEADER.rpartition(",")[0]))


def test_a_column_of_free_text_is_named(tmp_path: Path) -> None:
    rows = [f"{index},Cap,2,{('red', 'blue')[index % 2]},a remark of its own {index}" for index in range(60)]
    with pytest.raises(UserError, match=r"attribute 'shade' of 'Cap' has 60 classes in 60 labels, as free text has: "):
        data.read(write(tmp_path, rows))


@pytest.mark.parametrize("label", ["x" * 201, "a\x1b[2J"])
def test_a_label_that_is_no_name_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(UserError, match="attribute 'colour' of 'Cap' has a label that is no name"):
        data.read(write(tmp_path, (f"1,Cap,2,{label},dark", *ROWS[1:])))


def test_a_row_without_an_id_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "train.csv").write_text((folder / "train.csv").read_text() + ",Cap,2,red,dark\n")
    with pytest.raises(UserError, match="has a row of 'Cap' without an id\ngive every row the id of its photo"):
        data.read(folder)
