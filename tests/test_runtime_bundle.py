"""A bundle's page and files: what is written comes back, and what was changed since is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime import bundle
from runtime.bundle import Bundle, GoldenPhoto, Routes
from runtime.errors import UserError
from runtime.files import sha256_of

REBUILD = r"[\s\S]*\nrebuild it with: python -m export\.build --category \S+ (--precision fp32 )?--out \S+$"


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundles" / bundle_folder.name))


def test_a_saved_bundle_loads_as_it_was(folder: Path) -> None:
    page = bundle.load(folder)
    written = bundle.save(folder, msgspec.structs.replace(page, provenance={"data": "häns", "seed": "7"}))
    assert written.digest != page.digest
    assert bundle.load(folder) == written
    assert bundle.verify(folder) == written


def test_saving_the_same_page_again_changes_no_byte(folder: Path) -> None:
    before = contents(folder)
    bundle.save(folder, bundle.load(folder))
    assert contents(folder) == before


def test_any_value_edited_in_the_page_is_refused(folder: Path) -> None:
    page = folder / bundle.PAGE
    original = json.loads(page.read_text())
    places = list(leaves(original))
    assert len(places) > 50
    for place in places:
        edited = json.loads(page.read_text())
        *above, last = place
        holder = edited
        for step in above:
            holder = holder[step]
        holder[last] = altered(holder[last])
        spoilt = json.dumps(edited)
        with pytest.raises(UserError, match=r"digest differs|not a valid bundle page|has schema 2") as caught:
            load_text(folder, spoilt)
        assert str(page) in str(caught.value), place
        page.write_text(json.dumps(original))
    bundle.load(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda page: page.update(colour="red"),
        lambda page: page.pop("preprocess"),
        lambda page: page["artifacts"].pop(),
        lambda page: page["artifacts"][0]["verdicts"].pop(),
        lambda page: page["categories"][0]["attributes"].reverse(),
        lambda page: page["golden"]["photos"].append(page["golden"]["photos"][0]),
    ],
    ids=["field added", "field gone", "artifact gone", "verdict gone", "attributes swapped", "photo twice"],
)
def test_a_page_with_something_added_or_taken_away_is_refused(folder: Path, edit: Callable[[Any], None]) -> None:
    page = json.loads((folder / bundle.PAGE).read_text())
    edit(page)
    with pytest.raises(UserError, match=r"(digest differs|not a valid bundle page)" + REBUILD):
        load_text(folder, json.dumps(page))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[1, 2]",
        '{"schema": "one"}',
        '{"schema": 1}',
        '{"schema": 1, "x": ' + "[" * 100_000,
        "\x00\x01",
    ],
    ids=["empty", "no field", "null", "list", "schema no number", "schema alone", "nested beyond reason", "binary"],
)
def test_a_garbage_page_is_one_clear_error(folder: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"bundle\.json is not a valid bundle page: " + REBUILD):
        load_text(folder, text)


def test_a_page_that_is_not_utf8_or_was_cut_short_is_one_clear_error(folder: Path) -> None:
    page = folder / bundle.PAGE
    content = page.read_bytes()
    for spoilt in (content.replace(b"Shirt", b"Sh\xff\xferts"), content[: len(content) // 2]):
        page.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"bundle\.json is not a valid bundle page: " + REBUILD):
            bundle.load(folder)


def test_a_newer_schema_asks_for_an_upgrade_whatever_else_the_page_holds(folder: Path) -> None:
    with pytest.raises(UserError, match=r"has schema 2, this version reads up to 1\nupgrade Facet: "):
        load_text(folder, '{"schema": 2, "shape": "unknown yet"}')


def test_a_folder_without_a_page_is_named_with_the_rebuild_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read \S+bundle\.json: No such file or directory" + REBUILD):
        bundle.load(tmp_path)


def test_one_changed_bit_in_any_file_of_the_bundle_is_found_and_named(folder: Path) -> None:
    files = named_files(bundle.load(folder))
    assert len(files) == 4  # a graph and three golden photos
    for name in files:
        path = folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{re.escape(name)} was changed after it was built: sha256" + REBUILD):
            bundle.verify(folder)
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    bundle.verify(folder)


def test_a_missing_file_of_the_bundle_is_named(folder: Path) -> None:
    for name in named_files(bundle.load(folder)):
        aside = (folder / name).rename(folder / "aside")
        with pytest.raises(UserError, match=rf"cannot read \S+{re.escape(name)}: No such file" + REBUILD):
            bundle.verify(folder)
        aside.rename(folder / name)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "golden/../../secret", "golden/.."])
@pytest.mark.parametrize("kind", ["artifact", "golden photo"])
def test_a_page_that_names_a_file_outside_its_folder_is_refused(folder: Path, name: str, kind: str) -> None:
    page = bundle.load(folder)
    if kind == "artifact":
        escaping = msgspec.structs.replace(page, artifacts=(msgspec.structs.replace(page.artifacts[0], file=name),))
    else:
        photo = GoldenPhoto(file=name, sha256="0" * 64)
        escaping = msgspec.structs.replace(page, golden=msgspec.structs.replace(page.golden, photos=(photo,)))
    bundle.save(folder, escaping)
    with pytest.raises(UserError, match=rf"names a file outside the bundle: '{re.escape(name)}'" + REBUILD):
        bundle.load(folder)


def test_a_router_is_a_product_too_unless_it_only_tells_the_others_apart(fleet_root: Path, joint_folder: Path) -> None:
    garment, shirt, joint = (
        bundle.load(folder) for folder in (fleet_root / "garment", fleet_root / "shirt", joint_folder)
    )
    assert (garment.router, shirt.router, joint.router) == (garment.categories[0], None, joint.categories[0])
    assert [[product.name for product in page.products] for page in (garment, shirt, joint)] == [
        ["Garment"],
        ["Shirt"],
        ["Boot", "T-Shirt"],
    ]


def test_a_category_called_router_that_routes_nothing_is_a_product(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    page = bundle.load(make_bundle(tmp_path, "Router", {"Category": {"home": "R", "office": "B"}}))
    assert page.router is None
    assert page.products == page.categories


def test_a_page_that_routes_by_an_attribute_it_does_not_have_is_refused(folder: Path) -> None:
    routes = Routes(attribute="kind", to={"Shirt": "Shirt"})
    bundle.save(folder, msgspec.structs.replace(bundle.load(folder), routes=routes))
    with pytest.raises(UserError, match=r"routes by 'kind', which is no attribute of its" + REBUILD):
        bundle.load(folder)


def test_saving_sweeps_unfinished_files_and_those_that_the_page_no_longer_names(folder: Path) -> None:
    kept = contents(folder)
    unnamed = ["model.int8.0123abcd.onnx", "model.fp16.sm89.plan", "golden/old.jpg"]
    unfinished = [".bundle.json.a1b2.part", "golden/.new.jpg.c3d4.part", "model.fp16.plan.part"]
    for name in (*unnamed, *unfinished):
        (folder / name).write_bytes(b"left behind")
    bundle.save(folder, bundle.load(folder))
    assert contents(folder) == kept


def test_saving_leaves_alone_what_no_build_can_have_left(folder: Path) -> None:
    for name in ("notes.txt", "golden/mine/photo.jpg", "model.backup/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"the user's own")
    before = contents(folder)
    bundle.save(folder, bundle.load(folder))
    assert contents(folder) == before


def test_a_save_that_runs_out_of_room_leaves_the_old_bundle_whole(
    folder: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    before = contents(folder)
    page = bundle.load(folder)
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        bundle.save(folder, msgspec.structs.replace(page, artifacts=()))
    assert contents(folder) == before


def test_a_save_whose_last_step_fails_sweeps_nothing_and_leaves_nothing(folder: Path) -> None:
    page = bundle.load(folder)
    (folder / bundle.PAGE).unlink()
    (folder / bundle.PAGE).mkdir()  # in the way of the page
    before = contents(folder)
    with pytest.raises(IsADirectoryError, match=r"bundle\.json"):
        bundle.save(folder, msgspec.structs.replace(page, artifacts=()))
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Women Tops & Tunics", "women-tops-tunics"),
        ("Shirt", "shirt"),
        ("  T-Shirt ", "t-shirt"),
        ("../Shoes/", "shoes"),
        ("0-3 months", "0-3-months"),
    ],
)
def test_a_slug_is_lower_case_words_joined_by_dashes(name: str, slug: str) -> None:
    assert bundle.slug_of(name) == slug


@pytest.mark.parametrize("name", ["", "&", " - "])
def test_a_category_that_no_folder_can_be_named_by_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"category {name!r} has no letter or digit"):
        bundle.slug_of(name)


def test_bundles_are_found_directly_under_a_folder_sorted_by_slug(fleet_root: Path) -> None:
    assert list(bundle.find(fleet_root).items()) == [(slug, fleet_root / slug) for slug in ("boot", "garment", "shirt")]


def test_a_bundle_itself_is_found_under_its_own_name(fleet_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle.find(fleet_root / "boot") == {"boot": fleet_root / "boot"}
    monkeypatch.chdir(fleet_root / "boot")
    assert bundle.find(Path()) == {"boot": Path()}


def test_a_bundle_whose_page_is_lost_is_found_where_it_is_named_and_then_says_so(folder: Path) -> None:
    (folder / bundle.PAGE).unlink()
    assert bundle.find(folder) == {"shirt": folder}
    with pytest.raises(UserError, match=r"cannot read \S+bundle\.json: No such file or directory" + REBUILD):
        bundle.load(folder)
    # Among others it may be one that is being built.
    with pytest.raises(UserError, match=r"no bundle in \S+\nbuild one with: "):
        bundle.find(folder.parent)


def test_no_bundles_to_find_is_answered_with_the_build_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no bundles folder at \S+none\nbuild one with: python -m export\.build --out "
    ):
        bundle.find(tmp_path / "none")
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / bundle.PAGE).touch()
    with pytest.raises(UserError, match=r"no bundle in \S+\nbuild one with: python -m export\.build --out "):
        bundle.find(tmp_path)


def test_bundles_in_the_working_folder_come_before_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundles").mkdir()
    monkeypatch.chdir(tmp_path)
    assert bundle.default_root() == (Path("bundles"), False)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named_files(page: Bundle) -> list[str]:
    return [*(artifact.file for artifact in page.artifacts), *(photo.file for photo in page.golden.photos)]


def load_text(folder: Path, text: str) -> Bundle:
    (folder / bundle.PAGE).write_text(text)
    return bundle.load(folder)


def leaves(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document that holds no further one."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inside:
        yield from leaves(value, (*above, key))
    if not isinstance(node, (dict, list)):
        yield above


def altered(value: object) -> object:
    """Another value of the same kind, as near as can be."""
    if isinstance(value, str):
        return value[:-1] if value else "x"
    if isinstance(value, (int, float)):
        return value + 1
    assert value is None
    return "x"


def test_a_pipe_in_the_place_of_a_file_is_no_file_and_is_not_waited_for(bundle_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "shirt")
    graph = next(folder.glob("*.onnx"))
    graph.unlink()
    os.mkfifo(graph)
    with pytest.raises(UserError, match="not a file"):
        bundle.verify(folder)
    (folder / bundle.PAGE).unlink()
    os.mkfifo(folder / bundle.PAGE)
    with pytest.raises(UserError, match="not a file"):
        bundle.load(folder)


def test_what_is_swept_has_an_artifact_s_name(bundle_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "shirt")
    (folder / "model.safetensors").write_bytes(b"of a checkpoint")
    (folder / "model.fp16.0123abcd.onnx").write_bytes(b"of no page")
    bundle.save(folder, bundle.load(folder))
    assert (folder / "model.safetensors").exists()
    assert not (folder / "model.fp16.0123abcd.onnx").exists()


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no category": (lambda page: page["categories"].clear(), "its attributes must be there"),
    "no attribute": (lambda page: page["categories"][0]["attributes"].clear(), "its attributes must be there"),
    "two of one output": (
        lambda page: page["categories"][0]["attributes"][1].update(output="colour"),
        "each with an output of its own",
    ),
    "an output renamed": (
        lambda page: page["categories"][0]["attributes"][0].update(output="other"),
        "its golden answers are of other outputs",
    ),
    "an answer left out": (lambda page: page["golden"]["probabilities"].pop("colour"), "of other outputs"),
    "a row of another length": (
        lambda page: page["golden"]["probabilities"]["colour"][0].pop(),
        "its golden answers for 'colour' are not one a photo and class",
    ),
    "a class left out": (
        lambda page: page["categories"][0]["attributes"][0]["classes"].pop(),
        "its golden answers for 'colour' are not one a photo and class",
    ),
    "a class twice": (
        lambda page: page["categories"][0]["attributes"][0].update(classes=["blue", "blue", "red"]),
        "attribute 'colour' needs classes, each once",
    ),
    "two attributes of one name": (
        lambda page: page["categories"][0]["attributes"][1].update(name="colour"),
        "category 'Shirt' has two attributes of one name: colour, colour",
    ),
    "a category of no name": (
        lambda page: page["categories"][0].update(name="!!!"),
        "category '!!!' has no letter or digit to name a folder by",
    ),
    "an offset too few": (
        lambda page: page["categories"][0]["attributes"][0].update(offsets=[0.0]),
        "attribute 'colour' has 1 offsets, 3 classes",
    ),
    "photos of no size": (lambda page: page["preprocess"].update(height=0), "photos of 0 x 16 px"),
    "photos without end": (lambda page: page["preprocess"].update(height=10**9), "photos of 1000000000 x 16 px"),
    "an output that is the graph's": (
        lambda page: page["categories"][0]["attributes"][0].update(output="features"),
        "attribute 'colour' has an output called 'features'",
    ),
    "an engine that there is not": (
        lambda page: page["artifacts"][0]["verdicts"][0].update(engine="ncnn"),
        "a verdict is of an engine that there is not: 'ncnn'",
    ),
    "a schema before the first": (lambda page: page.update(schema=0), "is not a valid bundle page: schema 0"),
    "a plan's batches beside a graph": (
        lambda page: page["artifacts"][0].update(profile={"min_batch": 1, "opt_batch": 2, "max_batch": 4}),
        "has the batches of a plan, and is a graph",
    ),
    "batches without end": (
        lambda page: page["artifacts"][0].update(profile={"min_batch": 1, "opt_batch": 2, "max_batch": 10**9}),
        "a plan's batches must rise from 1 to 1024 at most; got min 1, opt 2, max 1000000000",
    ),
    "an artifact twice": (lambda page: page["artifacts"].append(page["artifacts"][0]), "twice"),
    "a verdict of what reads no graphs": (
        lambda page: page["artifacts"][0]["verdicts"][0].update(engine="tensorrt"),
        "has a verdict of tensorrt, which does not read such files",
    ),
    "pixels divided by nothing": (lambda page: page["preprocess"].update(std=[0, 1, 1]), "pixels normalised by mean"),
    "a zero byte": (lambda page: page["artifacts"][0].update(file="a\0b"), "a file's name has a zero byte"),
}


@pytest.mark.parametrize("change", list(CONTRADICTIONS))
def test_a_page_that_contradicts_itself_is_refused_whoever_signed_it(
    bundle_folder: Path, tmp_path: Path, change: str
) -> None:
    edit, said = CONTRADICTIONS[change]
    folder = shutil.copytree(bundle_folder, tmp_path / "shirt")
    page = json.loads((folder / bundle.PAGE).read_text())
    edit(page)
    page["digest"] = ""
    with suppress(msgspec.ValidationError):
        page["digest"] = bundle._digest(msgspec.convert(page, bundle.Bundle))
    (folder / bundle.PAGE).write_text(json.dumps(page))
    with pytest.raises(UserError, match=re.escape(said)):
        bundle.load(folder)


def test_a_graph_that_keeps_weights_in_another_file_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(bundle_folder, tmp_path / "shirt")
    page = bundle.load(folder)
    (graph,) = page.artifacts
    model = onnx.load(folder / graph.file)
    onnx.save_model(model, folder / graph.file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    again = msgspec.structs.replace(graph, sha256=sha256_of(folder / graph.file))
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(again,)))
    with pytest.raises(UserError, match=r"keeps weights in another file, which no hash of the page covers\nrebuild it"):
        bundle.verify(folder)


def test_the_command_for_a_bundle_names_what_it_was_built_as_and_a_plan_s_own_batches(
    bundle_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "renamed")
    page = bundle.load(folder)
    assert f"python -m export.build --category {page.slug} --precision fp32 --out {tmp_path}" in bundle.rebuild(folder)
    plan = bundle.Artifact(
        file="model.fp32.sm89.00c0ffee.plan",
        sha256="0" * 64,
        bytes=1,
        precision="fp32",
        target="sm89",
        engines=("tensorrt-rtx",),
        built_with={"tensorrt-rtx": "1"},
        profile=bundle.Profile(min_batch=1, opt_batch=2, max_batch=4),
    )
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(*page.artifacts, plan)))
    command = f"python -m export.engine {folder} --precision fp32 --target sm89 --batch 1 2 4 --rebuild"
    assert bundle.rebuild(folder, plan.file).endswith(command)


def test_a_shipped_bundle_without_a_checkpoint_is_to_be_had_as_it_came() -> None:
    shipped, _ = bundle.default_root()
    assert "git checkout -- " in bundle.rebuild(shipped / "dress")
    assert "python -m export.build --category garment" in bundle.rebuild(shipped / "garment")
