"""Command: how good a checkpoint or a bundle is on labelled photos.

python -m train.evaluate examples/bundles/garment --data examples/clothing
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import bundle
from runtime.bundle import Category, Preprocess
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.predictor import Predictor
from runtime.terminal import note, print_table, progress
from train import checkpoint

if TYPE_CHECKING:
    import numpy as np

    from train.metrics import Score

    Answer = Callable[[np.ndarray], dict[str, np.ndarray]]

BATCH = 16


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Score a checkpoint or a bundle, attribute by attribute, on the labelled photos of a split.",
    )
    parser.add_argument("model", type=Path, metavar="CHECKPOINT|BUNDLE", help="a folder with its page in it")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds train.csv and train_images/")
    parser.add_argument("--split", choices=["train", "val", "test"], default="val", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the scores there, as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: evaluate(args))


def evaluate(args: argparse.Namespace) -> int:
    from train import metrics

    left_out = 0
    written: dict[str, list[dict[str, object]]] = {}
    for category, found, lost in score(args.model, args.data, args.split, quiet=args.quiet):
        print_table(f"{category.name}, split {args.split}", metrics.COLUMNS, metrics.table(found))
        written[category.name] = [asdict(line) for line in found]
        for path in lost:
            note(f"left out, {'unreadable' if path.exists() else 'not there'}: {path}")
        left_out += len(lost)
    if args.out:
        try:
            bundle.replace_file(args.out, json.dumps(written, indent=1).encode() + b"\n")
        except OSError as err:
            raise UserError(f"cannot write {args.out}: {err.strerror}\nchoose another file with: --out FILE") from err
    return PARTLY_DONE if left_out else DONE


def score(
    folder: Path, data_folder: Path, split: str, *, quiet: bool = False
) -> Iterator[tuple[Category, list[Score], list[Path]]]:
    """For each category of the model in `folder`: its scores on a split, and the photos that were left out."""
    import numpy as np

    from runtime import images
    from train import data, metrics

    with _opened(folder) as (categories, spec, provenance, answer):
        for category in categories:
            # Where the split was drawn and not given, another seed would score photos that were trained on.
            (table,) = data.read(
                data_folder, names=[category.name], known=[category], seed=int(provenance.get("seed", 0))
            )
            rows = table.rows(split)
            if not len(rows):
                raise UserError(f"no labelled row of {category.name!r} in split {split!r} of {data_folder}")
            parts: list[dict[str, np.ndarray]] = []
            kept: list[int] = []
            unreadable: list[Path] = []
            with progress(f"{category.name}, {split}", len(rows), quiet=quiet) as advance:
                for start in range(0, len(rows), BATCH):
                    pixels = []
                    for row in rows[start : start + BATCH]:
                        try:
                            pixels.append(images.fit(images.decode(table.paths[row]), spec))
                            kept.append(row)
                        except images.PhotoError:
                            unreadable.append(table.paths[row])
                    data.refuse_unreadable(unreadable, len(rows))
                    if pixels:
                        parts.append(answer(np.stack(pixels)))
                    advance(len(rows[start : start + BATCH]))
            probabilities = [np.concatenate([part[a.output] for part in parts]) for a in category.attributes]
            found = metrics.scores([category], probabilities, table.labels_NL[kept], table.commonest())
            yield category, found, sorted([*table.absent, *unreadable])


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Sequence[Category], Preprocess, dict[str, str], Answer]]:
    """What the model in `folder` serves, the size it wants, where it comes from, and how it answers."""
    if (folder / bundle.PAGE).is_file():
        with Predictor.open(folder) as predictor:
            held = predictor.bundle
            yield held.categories, held.preprocess, held.provenance, predictor.probabilities
    elif (folder / checkpoint.PAGE).is_file():
        page, answer = _network(folder)
        yield page.categories, page.preprocess, page.provenance, answer
    else:
        raise UserError(
            f"neither {bundle.PAGE} nor {checkpoint.PAGE} in {folder}\n"
            "try the example with: python -m train.evaluate examples/bundles/garment --data examples/clothing"
        )


def _network(folder: Path) -> tuple[checkpoint.Checkpoint, Answer]:
    import torch

    from train.network import normalise

    model, page = checkpoint.load(folder)
    names = [attribute.output for attribute in page.attributes]

    def answer(images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            logits = model(normalise(torch.from_numpy(images_BHWC), page.preset.model)).logits
        return {name: logits_BK.softmax(1).numpy() for name, logits_BK in zip(names, logits, strict=True)}

    return page, answer


if __name__ == "__main__":
    raise SystemExit(main())
