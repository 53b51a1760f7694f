"""What an interrupted training goes on from: resume.safetensors beside the checkpoint, gone when training is done."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from runtime.errors import UserError
from runtime.files import replacing
from train.checkpoint import UNFINISHED as FILE
from train.checkpoint import unwritable
from train.config import PHASES
from train.curves import Epoch
from train.metrics import Score

if TYPE_CHECKING:
    from torch import Tensor

    from train.run import Run

VERSION = 1
PAGE = "progress"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training has come; the tensors that go with it are in the same file, which is replaced in one step."""

    version: int = VERSION
    begun_with: str
    """Digest of the data, the preset and the seed: a training goes on with these or not at all."""
    phase: int
    reserve_s: float
    """Of the phase's clock."""
    optimiser: dict[str, Any]
    scores: tuple[Score, ...]
    """Of the best epoch."""
    history: tuple[Epoch, ...]
    unreadable: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.phase not in PHASES or not self.history:
            raise ValueError(f"phase {self.phase} after {len(self.history)} epochs")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The state of a training after an epoch."""

    progress: Progress
    tensors: dict[str, dict[str, Tensor]]
    """By owner (`model`, `averaged`, `best`, `optimiser`), then by name."""


def digest(run: Run) -> str:
    """What makes two trainings the same one."""
    table = run.table
    told = [run.preset, run.seed, run.max_steps, run.phase, run.spec]
    # Names, not paths: a folder may be named from elsewhere, or have been moved.
    seen = [table.categories, table.ids, table.splits.tolist(), [quoted(Path(path.name)) for path in table.targets]]
    return hashlib.sha256(msgspec.json.encode([told, seen]) + table.labels_NL.tobytes()).hexdigest()


def quoted(path: Path) -> str:
    """A path as text that JSON takes: a file's name need not be UTF-8."""
    return quote_from_bytes(os.fsencode(path), safe="/ ")


def unquoted(text: str) -> Path:
    """The path that `quoted` gave as text."""
    return Path(os.fsdecode(unquote_to_bytes(text)))


def write(folder: Path, saved: Saved) -> None:
    """Put the state beside the checkpoint, in one step; where there is no room the old one stays."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        f"{owner}/{name}": tensor.detach().cpu().contiguous().clone()
        for owner, named in saved.tensors.items()
        for name, tensor in named.items()
    }
    page = msgspec.json.encode(saved.progress).decode()
    try:
        with replacing(folder / FILE) as beside:
            save_file(tensors, beside, {PAGE: page})
    except (OSError, SafetensorError) as err:
        raise unwritable(folder, err) from err


def read(folder: Path, run: Run) -> Saved | None:
    """The state to go on from; None where there is none. UserError where it belongs to another training."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    anew = f"start anew with: rm {path}"
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            progress = msgspec.json.decode((file.metadata() or {}).get(PAGE, ""), type=Progress)
            for key in file.keys():  # noqa: SIM118  the file is no mapping
                owner, _, name = key.partition("/")
                tensors.setdefault(owner, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, msgspec.MsgspecError) as err:
        raise UserError(f"{path} is not the state of a training: {err}\n{anew}") from None
    if progress.version != VERSION or progress.begun_with != digest(run):
        raise UserError(f"the training in {folder} was begun with other data or settings\n{anew}")
    return Saved(progress=progress, tensors=tensors)


def remove(folder: Path) -> None:
    """Training is done: nothing is left to go on from."""
    (folder / FILE).unlink(missing_ok=True)
