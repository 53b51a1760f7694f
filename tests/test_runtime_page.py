"""A page is written whole, where it was asked for, or not at all; and photos are small in it."""

# H height, W width, C channels

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime import page
from runtime.errors import UserError


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.html"
    path.write_text("<script>/*DATA*/</script>")
    return path


def test_the_data_stand_in_the_template_and_end_no_script(template: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    page.write(out, template, {"title": "</script>"}, iter([["写真", 1], ["</script>", None]]))
    text = out.read_text(encoding="utf-8")
    assert text.count("</script>") == 1
    data = json.loads(text.removeprefix("<script>").removesuffix("</script>"))
    assert data == {"title": "</script>", "rows": [["写真", 1], ["</script>", None]]}
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_a_page_named_by_a_link_is_written_where_it_leads_and_a_pipe_is_refused(template: Path, tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "there.html")
    page.check_writable(tmp_path / "link.html")
    page.write(tmp_path / "link.html", template, {"a": 1}, [])
    assert (tmp_path / "link.html").is_symlink()
    assert "<script" in (tmp_path / "there.html").read_text()
    os.mkfifo(tmp_path / "pipe.html")
    with pytest.raises(UserError, match=r"^cannot write \S+pipe\.html: not a file"):
        page.check_writable(tmp_path / "pipe.html")


def test_an_error_on_the_way_leaves_what_was_there(template: Path, tmp_path: Path) -> None:
    def rows() -> Iterator[object]:
        yield 1
        raise UserError("no more")

    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(UserError, match="no more"):
        page.write(tmp_path / "page.html", template, {"a": 1}, rows())
    assert (tmp_path / "page.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "template.html"]


def test_a_page_that_cannot_be_written_is_told_before_the_work_and_after(template: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(UserError, match=rf"cannot write {path}: .+\nchoose another file with: --report FILE"):
            page.check_writable(path)
    with pytest.raises(UserError, match=r"cannot write \S+page\.html: .+\nchoose another file with: --report FILE"):
        page.write(tmp_path / "file" / "page.html", template, {"a": 1}, [])
    assert (tmp_path / "file").read_text() == "mine"
    page.check_writable(tmp_path / "new" / "page.html")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("height", "width", "small"), [(300, 600, (48, 96)), (600, 60, (96, 10)), (20, 30, (20, 30))])
def test_a_picture_is_as_small_as_was_asked(
    height: int, width: int, small: tuple[int, int], tmp_path: Path, make_photo: Callable[..., Path]
) -> None:
    photo = make_photo(tmp_path / "red.png", "red", height=height, width=width)
    content = np.frombuffer(base64.b64decode(page.picture(photo, 96)), np.uint8)
    image_HWC = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
    assert image_HWC.shape[:2] == small
    # A JPEG of one colour is that colour within a few levels.
    assert np.abs(image_HWC.reshape(-1, 3).mean(0) - (220, 30, 30)).max() < 6


def test_what_cannot_be_read_has_no_picture(tmp_path: Path, make_photo: Callable[..., Path]) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    large = make_photo(tmp_path / "red.png", "red", height=20, width=20)
    assert page.picture(tmp_path / "no.jpg", 96) == page.picture(tmp_path / "gone.jpg", 96) == ""
    assert page.picture(large, 96, max_pixels=399) == "" != page.picture(large, 96, max_pixels=400)
