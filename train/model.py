"""Command: how large a preset's network is for each category of a taxonomy.

python -m train.model --preset reference
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from runtime.bundle import Category
from runtime.errors import DONE, exit_code
from runtime.terminal import print_table
from train import taxonomy
from train.config import PRESETS, ModelConfig, preset

COLUMNS = ("category", "attributes", "classes", "parameters")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.model",
        description="Count the parameters of a preset's network for each category of a taxonomy; nothing is trained.",
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="default", help="default: %(default)s")
    parser.add_argument(
        "--taxonomy", type=Path, default=taxonomy.SHIPPED, metavar="FILE", help="default: the challenge's own"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: show(args))


def show(args: argparse.Namespace) -> int:
    rows = []
    for category in taxonomy.read(args.taxonomy):
        classes = sum(len(attribute.classes) for attribute in category.attributes)
        count = f"{parameters(preset(args.preset).model, category):,}"
        rows.append((category.name, str(len(category.attributes)), str(classes), count))
    widest = max(len(count) for *_, count in rows)
    print_table(f"preset {args.preset}", COLUMNS, [(*cells, count.rjust(widest)) for *cells, count in rows])
    return DONE


def parameters(config: ModelConfig, category: Category) -> int:
    """The number of weights of that network, counted on the network itself, which is made without memory for them."""
    import torch

    from train import network

    with torch.device("meta"):
        made = network.create(config, [len(attribute.classes) for attribute in category.attributes], "none")
    return sum(parameter.numel() for parameter in made.parameters())


if __name__ == "__main__":
    raise SystemExit(main())
