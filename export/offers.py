"""Which bundles a folder of checkpoints can give, and which of them are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.bundle import slug_of
from runtime.errors import UserError
from train import checkpoint


class Offer(NamedTuple):
    """A bundle that could be built."""

    called: str
    """What `--category` names it by."""
    slug: str
    folder: Path
    """The checkpoint that it would be built from."""


def asked(root: Path, names: Sequence[str], *, split: bool) -> dict[Path, list[str]]:
    """The checkpoints to build from, and the slugs of the bundles that each of them is to give."""
    found = checkpoint.find(root)
    wanted = [slug_of(name) for name in names]
    # What a checkpoint offers when it is split is in its page; else a page that nobody asked for need not be whole.
    whole = split or not wanted or not set(wanted) <= set(found)
    opened = found if whole else {slug: found[slug] for slug in wanted}
    offers = [offer for called, folder in opened.items() for offer in _offers(called, folder, split=split)]
    have = [offer.called for offer in offers] if split else list(found)
    for slug in wanted:
        if slug not in have and slug not in {offer.slug for offer in offers}:
            if joint := next((folder for folder in found.values() if _is_joint_with(folder, slug)), None):
                raise UserError(
                    f"{slug!r} is one of the categories of {joint}, a joint checkpoint: one bundle for all\n"
                    "build a bundle for each with: --split"
                )
            raise UserError(
                f"no checkpoint of {slug!r} in {root}; have: {', '.join(have)}\n"
                f"name the folder that holds it with: --checkpoints DIR, or train it with: python -m train.fit"
            )
    made: dict[Path, list[str]] = {}
    by_slug: dict[str, Path] = {}
    for offer in offers:
        if wanted and not {offer.called, offer.slug} & set(wanted):
            continue
        if (other := by_slug.setdefault(offer.slug, offer.folder)) != offer.folder:
            raise UserError(
                f"{other} and {offer.folder} are checkpoints of one category\nname one: --checkpoints {offer.folder}"
            )
        made.setdefault(offer.folder, []).append(offer.slug)
    return made


def _offers(called: str, folder: Path, *, split: bool) -> list[Offer]:
    page = checkpoint.read(folder)
    if split and len(page.categories) > 1:
        slugs = [slug_of(category.name) for category in page.categories]
        return [Offer(slug, slug, folder) for slug in slugs]
    return [Offer(called, page.slug, folder)]


def _is_joint_with(folder: Path, slug: str) -> bool:
    categories = checkpoint.read(folder).categories
    return len(categories) > 1 and any(category.called(slug) for category in categories)
