"""Command: turn weights of the published challenge entry into a checkpoint.

python -m train.import_reference best_model_attr_c1.pth --category "Men Tshirts"

The entry (github.com/NeelDevenShah/Meesho-Visual-Taxonomy-Data-Challenge) saves the state dict of its network, a
Hugging Face ConvNextModel with heads of its own, under `module.` once or twice where DataParallel wrapped it. Its
labels went through scikit-learn's LabelEncoder, which sorts them: classes are in alphabetical order, as they are here.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Category, Preprocess, slug_of
from runtime.errors import DONE, UserError, exit_code
from runtime.files import sha256_of
from runtime.terminal import note
from train import taxonomy
from train.config import ModelConfig, preset

if TYPE_CHECKING:
    from torch import Tensor

    from train.network import FacetModel

WRAPPERS = ("model_state_dict", "state_dict", "model")
"""Where training scripts keep the weights among other things."""
SAVE_AGAIN = "save its weights alone, where it was made, with: torch.save(model.state_dict(), 'weights.pth')"

BACKBONE = {
    r"stem\.0\.": "embeddings.patch_embeddings.",
    r"stem\.1\.": "embeddings.layernorm.",
    r"stages\.(\d+)\.downsample\.": r"encoder.stages.\1.downsampling_layer.",
    r"stages\.(\d+)\.blocks\.(\d+)\.gamma": r"encoder.stages.\1.layers.\2.layer_scale_parameter",
    r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.": r"encoder.stages.\1.layers.\2.dwconv.",
    r"stages\.(\d+)\.blocks\.(\d+)\.norm\.": r"encoder.stages.\1.layers.\2.layernorm.",
    r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc([12])\.": r"encoder.stages.\1.layers.\2.pwconv\3.",
    # Neither network puts its map through this one: it stands behind the pooling that a classifier would want.
    r"head\.norm\.": "layernorm.",
}
"""timm's names, as patterns, to Hugging Face's."""

# Of each part of a head: its place in the entry's, and how many layers without weights the entry begins it with.
PARTS = {"spatial": (0, 0), "gate": (1, 2), "classify": (2, 2)}
LAST = "classifier_heads.{}.2.10.bias"
"""The entry's name of what has one number a class."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.import_reference",
        description="Turn weights of the published challenge entry into a checkpoint, exactly or not at all.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.pth", help="a state dict, written by torch.save")
    parser.add_argument("--category", required=True, metavar="NAME", help="the one that the weights are for")
    parser.add_argument(
        "--taxonomy", type=Path, default=taxonomy.SHIPPED, metavar="FILE", help="default: the challenge's own"
    )
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), metavar="DIR", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: convert(args))


def convert(args: argparse.Namespace) -> int:
    from train import checkpoint

    chosen = preset("reference")
    categories = taxonomy.read(args.taxonomy)
    category = _chosen(categories, args.category, args.taxonomy)
    folder = args.out / slug_of(category.name)
    checkpoint.check_writable(folder)
    state = read(args.file)
    _require_classes(args.file, state, category, categories)
    page = checkpoint.Checkpoint(
        slug=folder.name,
        categories=(category,),
        preprocess=Preprocess(
            height=chosen.model.size, width=chosen.model.size, mean=chosen.model.mean, std=chosen.model.std
        ),
        routes=None,
        preset=chosen,
        metrics=(),
        provenance={
            "imported": args.file.name,
            "imported_sha256": sha256_of(args.file),
            **{package: version(package) for package in ("torch", "timm")},
        },
    )
    weights = model_of(args.file, state, chosen.model, category).state_dict()
    with checkpoint.held(folder):
        checkpoint.save(folder, weights, page)
    note(f"checkpoint: {folder}\nscore it with: python -m train.evaluate {shlex.quote(str(folder))} --data DIR")
    return DONE


def read(path: Path) -> dict[str, Tensor]:
    """The weights in a file of torch.save, by the entry's names, without wrappers; no code in the file is run."""
    import torch

    found = _load(path)
    if isinstance(found, dict):
        held = [found[name] for name in WRAPPERS if isinstance(found.get(name), dict)]
        if len(held) > 1:
            raise UserError(f"{path} holds more than one of {', '.join(WRAPPERS)}\n{SAVE_AGAIN}")
        found = held[0] if held else found
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} holds no weights by name, but a {type(found).__name__}\n{SAVE_AGAIN}")
    for name, value in found.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise UserError(f"{path}: {name} is no weight, but a {kind}\n{SAVE_AGAIN}")
    while all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def model_of(path: Path, state: dict[str, Tensor], config: ModelConfig, category: Category) -> FacetModel:
    """The network with these weights, in eval mode; UserError names the keys, as the file has them, that do not fit."""
    import torch

    from train import network

    with torch.device("meta"):  # the weights are the file's: none are drawn only to be replaced
        model = network.create(config, [len(attribute.classes) for attribute in category.attributes], "none")
    ours = model.state_dict()
    network.require_equal_keys({entry_name(name): value for name, value in ours.items()}, state, path)
    model.load_state_dict({name: state[entry_name(name)].float() for name in ours}, assign=True)
    return model.eval()


def entry_name(name: str) -> str:
    """The entry's name of one of our weights."""
    room, _, rest = name.partition(".")
    if room == "neck":
        return f"feature_processor.{rest}"
    if room == "heads":
        _, head, part, layer, kind = rest.split(".")
        place, before = PARTS[part]
        return f"classifier_heads.{head}.{place}.{int(layer) + before}.{kind}"
    (pattern,) = (pattern for pattern in BACKBONE if re.match(pattern, rest))
    return f"backbone.{re.sub(pattern, BACKBONE[pattern], rest)}"


def _load(path: Path) -> object:
    import torch

    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise UserError(f"{what}: {path}\nname one that torch.save wrote, such as model.pth")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice there is to open the file unsafely
            # Older files than torch 1.6's are no archives, which alone can be mapped; nor can a name that is not UTF-8.
            mapped = zipfile.is_zipfile(path) and os.fspath(path).isprintable()
            with path.open("rb") as file:
                return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}") from None
    except pickle.UnpicklingError as err:
        named = re.search(r"GLOBAL (\S+)", str(err))
        raise UserError(
            f"{path} holds more than weights{f' ({named[1]})' if named else ''}: opening it could run any code, "
            f"so it was not opened\nif you trust it, {SAVE_AGAIN}"
        ) from None
    except Exception as err:  # a damaged pickle can raise anything
        reason = str(err).partition("\n")[0] or type(err).__name__
        if "weights_only" in reason:  # torch's advice: to open it unsafely
            reason = type(err).__name__
        raise UserError(f"{path} is not a whole file of torch.save: {reason}\n{SAVE_AGAIN}") from err


def _chosen(categories: Sequence[Category], name: str, path: Path) -> Category:
    for category in categories:
        if slug_of(category.name) == slug_of(name):
            return category
    raise UserError(f"no category {name!r} in {path}; have: {', '.join(category.name for category in categories)}")


def _require_classes(path: Path, state: dict[str, Tensor], category: Category, categories: Sequence[Category]) -> None:
    """UserError where the heads are those of another category: better said in its name than key by key."""
    heads: list[int] = []
    while (bias := state.get(LAST.format(len(heads)))) is not None:
        heads.append(bias.numel())
    for other in categories:
        if heads == _classes(other) != _classes(category):
            raise UserError(
                f"{path} has heads of {', '.join(map(str, heads))} classes: {other.name!r}, not {category.name!r}\n"
                f"name it with: --category {shlex.quote(other.name)}"
            )


def _classes(category: Category) -> list[int]:
    return [len(attribute.classes) for attribute in category.attributes]


if __name__ == "__main__":
    raise SystemExit(main())
