"""No cell of ours is a formula, and each can be read back."""

from __future__ import annotations

import pytest

from runtime.spreadsheet import bare, plain


@pytest.mark.parametrize(
    "text",
    ["=1+1", "'=1", "''=1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "\0=1", "\ufeff=1", "\u200b@a"],
)
def test_a_formula_is_text_and_is_read_back(text: str) -> None:
    assert plain(text) == f"'{text}"
    assert bare(plain(text)) == text


@pytest.mark.parametrize("text", ["", "red", "a=b", "'", "1-2", "'red", "\0", "写真"])
def test_other_text_is_as_it_was(text: str) -> None:
    assert plain(text) == bare(text) == text
