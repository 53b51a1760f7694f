"""The project's own way, through predict's own pipeline.

The bundle's fastest artifact here, as `tune` finds it; or what `pip install .` gives, ONNX Runtime and nothing tuned.
"""

# N photos, B batch, H height, W width, C channels, K classes

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.stages import predict, tune_once
from runtime import bundle, inputs, machine, pipeline
from runtime.fleet import Fleet

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.works import Work


def open_way(work: Work, *, engine: str) -> Facet:
    """The bundle on that engine as it is, or, of `auto`, tuned for this machine."""
    if engine == "auto":
        tune_once(work.bundle)
    return Facet(work, engine)


class Facet:
    """The work's bundle, open."""

    def __init__(self, work: Work, engine: str) -> None:
        self._fleet = Fleet.open(
            [work.bundle],
            category=bundle.load(work.bundle).categories[0].name,
            engine=engine,
            precision=None,
            streams=machine.cores(),
        ).__enter__()
        [self._predictor] = self._fleet.predictors
        self._outputs = work.outputs
        choice = self._predictor.choice
        self.what = str(choice)
        streams = min(machine.cores(), choice.tuned.streams) if choice.tuned else machine.cores()
        self.step = streams * self._predictor.batch
        self.how = dict.fromkeys(("alone", "whole"), f"{streams} batches of {self._predictor.batch} at once")

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name, a batch after the other."""
        import numpy as np

        found = [self._predictor.probabilities(batch_BHWC) for batch_BHWC in self._batches(photos_NHWC)]
        return {name: np.concatenate([batch[name] for batch in found]) for name in self._outputs}

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second, as many batches at once as predict has."""
        batches = self._batches(photos_NHWC)
        with ThreadPoolExecutor(pipeline.workers(self._fleet.engines)) as pool:
            started = time.perf_counter()
            for _ in pool.map(self._predictor.probabilities, batches):
                pass
            return len(photos_NHWC) / (time.perf_counter() - started)

    def whole(self, folder: Path, out: Path) -> None:
        """As `python -m runtime.predict` has it, once its network is loaded."""
        predict(self._fleet, inputs.find([folder]), out)

    def _batches(self, photos_NHWC: np.ndarray) -> list[np.ndarray]:
        size = self._predictor.batch
        return [photos_NHWC[start : start + size] for start in range(0, len(photos_NHWC), size)]
