"""Photos are found once each and in order: in folders, by patterns, from lists, whatever the links lead to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import images, inputs
from runtime.errors import UserError
from runtime.headers import PhotoError


def test_photos_are_found_throughout_a_folder_sorted_and_by_suffix(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.PNG", "a/deep/er/y.webp", "c.JPeG", "c.avif"]
    for name in (*names, "notes.txt", "a/table.csv", "jpg", "x.jpg.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert inputs.find([tmp_path]) == sorted(tmp_path / name for name in names)


def test_files_of_a_folder_that_are_not_named_like_photos_are_told_but_hidden_ones(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.PNM", "notes.odt", ".DS_Store", "in/c.jpg.bak"):
        (tmp_path / name).touch()
    left_out: list[str] = []
    found = inputs.find_names([tmp_path], leave_out=left_out.append)
    assert [Path(name).name for name in found] == ["a.jpg", "b.PNM"]
    assert [Path(name).name for name in left_out] == ["notes.odt", "c.jpg.bak"]


def test_a_file_named_outright_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "photo.bin").touch()
    assert inputs.find([tmp_path / "photo.bin"]) == [tmp_path / "photo.bin"]


def test_of_the_names_wanted_those_that_are_there_are_found_whatever_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    for name in ("a.jpg", "b.dat", "deep/c.jpg", "deep/d"):
        (tmp_path / name).touch()
    given = [tmp_path / "deep", tmp_path / "a.jpg", tmp_path / "b.dat", tmp_path / "deep" / "empty"]
    wanted = {"a.jpg", "d", "e.jpg", "../a.jpg", "deep/c.jpg"}
    assert inputs.find(given, names=wanted) == [tmp_path / "a.jpg", tmp_path / "deep" / "d"]
    with pytest.raises(UserError, match="no such file or folder"):
        inputs.find([tmp_path / "none"], names=wanted)


def test_a_photo_reached_through_several_inputs_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    given = [tmp_path / "2.jpg", tmp_path, tmp_path / "a", tmp_path / "a" / "1.jpg", tmp_path]
    assert inputs.find(given) == [tmp_path / "2.jpg", tmp_path / "a/1.jpg"]


def test_a_folder_without_photos_is_refused_even_beside_one_with_some(tmp_path: Path) -> None:
    for name in ("full/1.jpg", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(
        UserError, match=r"no photos in \S+/empty: looked for .*\.jpg .*\ntry the example with: python -m"
    ):
        inputs.find([tmp_path / "full", tmp_path / "empty"])


@pytest.mark.parametrize("name", ["none", "none/photo.jpg"])
def test_a_path_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=rf"no such file or folder: \S+/{name}\ntry the example with: python -m runtime"
    ):
        inputs.find([tmp_path / name])


def test_a_path_that_the_system_cannot_look_up_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/xxx\S+: File name too long$|^no such file or folder: \S+/xxx"):
        inputs.find([tmp_path / ("x" * 300)])


def test_a_folder_is_searched_for_phones_own_formats_too(tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.gif", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in inputs.find([tmp_path])] == ["a.HEIC", "b.gif"]


def test_names_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("a/b.jpg", "a.jpg", "a b/c.jpg", "a-b.jpg", "A.jpg", "a/b/c.jpg", "a/b.jpg.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / name).exists():
            (tmp_path / name).touch()
    found = inputs.find([tmp_path])
    assert found == sorted(found)
    assert inputs.find([*reversed(found), tmp_path]) == found


def test_a_pattern_stands_for_all_that_match_it_and_a_file_of_that_name_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a1.jpg", "a2.jpg", "b1.jpg", "deep/er/a3.jpg", "[a].jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert inputs.find_names([Path("a*.jpg")]) == ["a1.jpg", "a2.jpg"]
    assert inputs.find_names([Path("**/a?.jpg")]) == ["a1.jpg", "a2.jpg", "deep/er/a3.jpg"]
    assert inputs.find_names([Path("[a].jpg")]) == ["[a].jpg"]
    assert inputs.find_names([Path("de*")]) == ["deep/er/a3.jpg"]
    with pytest.raises(UserError, match=r"^nothing matches z\*\.jpg"):
        inputs.find([Path("z*.jpg")])


def test_a_list_names_photos_a_line_each_and_one_that_is_not_there_costs_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    listed = tmp_path / "photos.txt"
    listed.write_bytes(os.fsencode(f"{tmp_path}/z.jpg\n\n{tmp_path}/./a.jpg\r\n{tmp_path}/") + b"\xff.jpg\n")
    found = inputs.find_names([listed])
    assert found == [f"{tmp_path}/{name}" for name in ("a.jpg", "z.jpg", "\udcff.jpg")]
    with pytest.raises(PhotoError, match="No such file"):
        images.decode(Path(found[1]))
    listed.write_text("\n \n")
    with pytest.raises(UserError, match=r"photos\.txt names no photo\ngive it a line for each"):
        inputs.find([listed])


def test_links_to_folders_are_followed_and_those_that_lead_back_are_not(tmp_path: Path) -> None:
    (tmp_path / "photos" / "in").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("photos/a.jpg", "elsewhere/b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "in" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "itself.jpg").symlink_to(tmp_path / "photos" / "itself.jpg")
    found = inputs.find_names([tmp_path / "photos"])
    assert [os.path.relpath(name, tmp_path / "photos") for name in found] == ["a.jpg", "itself.jpg", "linked/b.jpg"]
    with pytest.raises(PhotoError, match="cannot be opened: Too many levels of symbolic links"):
        images.decode(Path(found[1]))


def test_folders_that_all_lead_to_each_other_are_searched_once_each(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "p.jpg").touch()
        for other in range(12):
            (tmp_path / str(index) / f"l{other}").symlink_to(tmp_path / str(other))
    found = inputs.find_names([tmp_path])
    assert len(found) == 12
    assert len({os.path.realpath(name) for name in found}) == 12


def test_a_folder_is_searched_as_deep_as_a_path_may_be(tmp_path: Path) -> None:
    before, depth = Path.cwd(), 1300
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.jpg").touch()
    finally:
        os.chdir(before)
    try:
        (name,) = inputs.find_names([tmp_path])
        assert name.endswith("/d" * depth + "/a.jpg")
    finally:  # too deep for shutil, which clears up after the tests
        os.unlink(f"{tmp_path}{'/d' * depth}/a.jpg")  # noqa: PTH108
        for level in range(depth, 0, -1):
            os.rmdir(f"{tmp_path}{'/d' * level}")  # noqa: PTH106


def test_a_folder_that_may_not_be_searched_is_a_row_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").touch()
    scandir = os.scandir

    def closed(path: str) -> object:
        # Root may search every folder.
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = inputs.find([tmp_path])
    assert found == [tmp_path / "a.jpg", tmp_path / "closed"]
    with pytest.raises(PhotoError, match=r"^a folder"):
        images.decode(found[1])


def test_a_folder_named_like_a_photo_is_searched(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "a.jpg").touch()
    assert inputs.find([tmp_path]) == [tmp_path / "folder.jpg" / "a.jpg"]


def test_a_list_may_begin_with_a_byte_order_mark_and_leads_where_its_names_lead(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    listed = tmp_path / "list.txt"
    names = [f"{tmp_path}/./x.jpg", f"{tmp_path}/link/../y.jpg", f"{tmp_path}/one\u2028two.jpg"]
    listed.write_text("\ufeff" + "\r\n".join(names))
    assert set(inputs.find_names([listed])) == {f"{tmp_path}/x.jpg", names[1], names[2]}
    listed.write_text("a.jpg", encoding="utf-16")
    with pytest.raises(UserError, match=r"list\.txt is not UTF-8 text\nsave it as UTF-8"):
        inputs.find_names([listed])
