"""What was found fastest for a bundle on this machine: `tune` writes it, and who opens the bundle reads it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime import cache, machine
from runtime.bundle import Bundle
from runtime.engines import ENGINES
from runtime.files import refuse_pipe, replace_file

# Of streams and of photos at a time: beyond it, the file is not of `tune`.
LARGEST = 4096


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """An artifact, an engine and its options, and how fast they were."""

    sha256: str
    """Of the artifact."""
    engine: str
    hint: str = ""
    streams: int
    """Batches at once."""
    batch: int
    """Photos at a time."""
    images_per_s: float

    def __post_init__(self) -> None:
        numbers = (self.batch, self.streams)
        if not all(type(number) is int and 0 < number <= LARGEST for number in numbers):
            raise ValueError(f"streams and batch: {numbers}")
        if not all(isinstance(text, str) for text in (self.sha256, self.engine, self.hint)):
            raise TypeError(f"sha256, engine and hint: {(self.sha256, self.engine, self.hint)!r}")
        if type(self.images_per_s) not in (int, float) or not 0 <= self.images_per_s < math.inf:
            raise ValueError(f"images_per_s: {self.images_per_s!r}")


def read(page: Bundle) -> Tuned | None:
    """What was found for this bundle, on this processor with these engines; None where nothing was."""
    try:
        if not any(cache.folder("tuned").glob(f"{page.slug}.*.json")):
            return None  # where nobody tuned, a command does not start later for it: the key asks for much
        path = _path(page)
        refuse_pipe(path)
        return Tuned(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None  # none, or of another version of this


def write(page: Bundle, found: Tuned) -> Path:
    """Keep it for those who open the bundle from now on; OSError where it cannot be kept."""
    path = _path(page)
    replace_file(path, (json.dumps(asdict(found), indent=1) + "\n").encode())
    return path


def _path(page: Bundle) -> Path:
    return cache.folder("tuned") / f"{page.slug}.{_key(page)[:16]}.json"


def _key(page: Bundle) -> str:
    """A digest of all that may make something else the fastest."""
    versions = {name: machine.version_of(kind.distribution) for name, kind in ENGINES.items()}
    told = json.dumps([page.digest, asdict(machine.processor()), versions], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
