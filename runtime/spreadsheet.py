"""Cells that a spreadsheet shows and does not run, whatever a listing or a file's name holds (OWASP, CSV injection)."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a cell is taken for a formula by, where it begins with it."""
MARK = "'"


def plain(text: str) -> str:
    """Text that is taken for no formula, and from which `bare` has it back."""
    return MARK + text if is_formula(text.lstrip(MARK)) else text


def bare(text: str) -> str:
    """The text as it was before it was made plain."""
    return text[len(MARK) :] if text.startswith(MARK) and is_formula(text.lstrip(MARK)) else text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may take it for one; signs that nobody sees may stand before it."""
    start = next((place for place, sign in enumerate(text) if sign.isprintable() or sign in FORMULA), len(text))
    return text[start:].startswith(FORMULA)
