"""The ways to answer a work's photos: the project's own, the reference system's, and those of the neighbours.

Each is in a module of its own, as its makers document it, and runs in a process of its own (`benchmarks.worker`).
"""

# N photos, H height, W width, C channels, K classes

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.works import Work

OURS, REFERENCE = "facet", "reference"


class Way(Protocol):
    """One way, its network loaded."""

    what: str
    """What computes: engine and precision, as a reader of the table is to know them."""

    @property
    def how(self) -> Mapping[str, str]:
        """How it is given photos, `alone` and `whole`."""
        ...

    @property
    def step(self) -> int:
        """How many photos it has under way at once when it is timed alone: a turn has a multiple of them."""
        ...

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name, for uint8 RGB photos of the network's size."""
        ...

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second of the network alone, its input at hand."""
        ...

    def whole(self, folder: Path, out: Path) -> None:
        """From the folder's photos to a CSV table: a row a photo, its name, then each attribute's label."""
        ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Where a way's code is, and what must be there for it."""

    module: str
    needs: tuple[str, ...] = ()
    """Packages."""
    options: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    """Whether it takes part with --full alone: it takes minutes to get ready."""
    single: bool = False
    """Whether it takes one photo after the other."""
    exact: bool = False
    """Whether it computes in float32, and so must answer as PyTorch does."""

    def missing(self) -> str:
        """Of what it needs, what is not installed; empty where all is."""
        return ", ".join(name for name in self.needs if find_spec(name) is None)


FACET = "benchmarks.ways.facet"
PYTORCH, ORT, OPENVINO = "benchmarks.ways.pytorch", "benchmarks.ways.onnx_runtime", "benchmarks.ways.open_vino"
GRAPH = ("torch", "onnxscript", "onnxruntime")
KINDS = {
    OURS: Kind(module=FACET, options={"engine": "auto"}),
    "facet as installed": Kind(module=FACET, options={"engine": "onnxruntime"}),
    REFERENCE: Kind(module="benchmarks.ways.reference", needs=("torch", "PIL"), single=True, exact=True),
    "pytorch bf16": Kind(module=PYTORCH, needs=("torch", "torchvision")),
    "pytorch compile bf16": Kind(module=PYTORCH, needs=("torch", "torchvision"), options={"compile": "1"}, full=True),
    "onnxruntime fp32": Kind(module=ORT, needs=GRAPH, options={"graph": "fp32"}, single=True, exact=True),
    "onnxruntime int8 static": Kind(module=ORT, needs=GRAPH, options={"graph": "static"}, single=True),
    "optimum int8": Kind(module=ORT, needs=GRAPH, options={"graph": "dynamic"}, single=True),
    "openvino f32": Kind(
        module=OPENVINO, needs=("openvino", "torch"), options={"precision": "f32"}, full=True, exact=True
    ),
    "openvino bf16": Kind(module=OPENVINO, needs=("openvino", "torch"), options={"precision": "bf16"}, full=True),
    "openvino int8": Kind(module=OPENVINO, needs=("openvino", "torch", "nncf"), options={"precision": "int8"}),
}
"""In the order of the tables; ours first."""


def open_way(name: str, work: Work) -> Way:
    """The named way over the work, its network loaded; LookupError says what it lacks here."""
    kind = KINDS[name]
    return cast("Way", importlib.import_module(kind.module).open_way(work, **kind.options))
