"""The models that OpenVINO's ways answer with: as ov.convert_model gives it, and as NNCF quantises that."""

# N photos, C channels, H height, W width

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import openvino

from benchmarks.cache import loaded

if TYPE_CHECKING:
    from benchmarks.works import Work


def converted(work: Work) -> Path:
    """The model as ov.convert_model gives it, for one photo, float32."""

    def make(folder: Path) -> None:
        import torch

        from benchmarks.ways import plain

        model, _ = plain.load(work.checkpoint)
        sample = torch.zeros(1, 3, work.size, work.size)
        made = openvino.convert_model(model, example_input=sample, input=[1, 3, work.size, work.size])
        openvino.save_model(made, folder / "model.xml", compress_to_fp16=False)

    return loaded(work.made / "openvino", make, _readable)


def quantised(work: Work) -> Path:
    """The model as nncf.quantize gives it at its defaults."""

    def make(folder: Path) -> None:
        import nncf

        photos = list(work.calibration())
        model = openvino.Core().read_model(converted(work))
        made = nncf.quantize(model, nncf.Dataset(photos), subset_size=len(photos))
        openvino.save_model(made, folder / "model.xml", compress_to_fp16=False)

    return loaded(work.made / "nncf", make, _readable)


def _readable(folder: Path) -> Path:
    path = folder / "model.xml"
    openvino.Core().read_model(path)
    return path
