"""The graphs that ONNX Runtime's ways answer with: as PyTorch exports it, and int8 as its makers and Optimum have it.

Optimum's package asks for an older transformers than the rest has here, and so has an environment of its own:
`make bench-peers`.
"""

# N photos, B batch, C channels, H height, W width

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.cache import CACHE, loaded

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.works import Work

Loaded = TypeVar("Loaded")

OPTIMUM = CACHE / "optimum"
QUANTISE = Path(__file__).resolve().parent / "optimum_quantise.py"


def exported(work: Work, load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` gives of the graph as torch.onnx.export has it with its defaults, for any batch."""

    def make(folder: Path) -> None:
        import torch

        from benchmarks.ways import plain

        model, _ = plain.load(work.checkpoint)
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, work.size, work.size),),
            str(folder / "model.onnx"),
            dynamo=True,
            external_data=False,
            dynamic_shapes={"images_BCHW": {0: torch.export.Dim("batch")}},
        )

    return loaded(work.made / "torch", make, lambda folder: load(folder / "model.onnx"))


def dynamic(work: Work, load: Callable[[Path], Loaded]) -> Loaded:
    """The same of the int8 graph that Optimum makes of it; LookupError where Optimum is not there."""
    python = OPTIMUM / "bin" / "python"
    if not python.exists():
        raise LookupError("Optimum is not installed; install it with: make bench-peers")

    def make(folder: Path) -> None:
        subprocess.run([python, QUANTISE, _checked(work), folder], check=True, stdout=subprocess.DEVNULL)

    # Made by the libraries of that environment, of which the folder's name must tell.
    packages = sorted(path.name for path in OPTIMUM.glob("lib/*/site-packages/*.dist-info"))
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    return loaded(work.made / f"optimum-{digest}", make, lambda folder: load(folder / "model_quantized.onnx"))


def static(work: Work, load: Callable[[Path], Loaded]) -> Loaded:
    """The same of the int8 graph as ONNX Runtime's guide to quantisation has it for convolutional networks."""

    def make(folder: Path) -> None:
        from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static

        prepared = folder / "prepared.onnx"
        quant_pre_process(str(_checked(work)), str(prepared))
        quantize_static(
            str(prepared),
            str(folder / "model.onnx"),
            Photos(work),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        prepared.unlink()

    return loaded(work.made / "static", make, lambda folder: load(folder / "model.onnx"))


class Photos:
    """The photos to calibrate on, one after the other, as ONNX Runtime asks for them: a CalibrationDataReader."""

    def __init__(self, work: Work) -> None:
        import onnx

        graph = onnx.load(_checked(work), load_external_data=False).graph
        self._name = graph.input[0].name
        self._inputs = work.calibration()

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self._inputs, None)
        return None if found is None else {self._name: found}


def _checked(work: Work) -> Path:
    """The exported graph's file, readable."""
    import onnx

    def read(path: Path) -> Path:
        onnx.load(path)
        return path

    return exported(work, read)
