"""Command: the reference system's network on an NVIDIA GPU, in PyTorch: answering, training, and the card's own rate.

python -m benchmarks.gpu

Every way answers the same photos before it is timed, and is compared with float32 there. The ways take turns, round by
round. Rates count whole calls, the device waited for.
"""

# N photos, B batch, C channels, H height, W width

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks import busy, record
from benchmarks.cache import ROOT
from benchmarks.networks import CONVNEXT_BASE
from benchmarks.ways.reference import ReferenceWay
from runtime import images, inputs
from runtime.errors import DONE, UserError
from runtime.terminal import Bar, note

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from train.network import FacetModel
    from train.table import Table

PHOTOS = 64
BATCHES = (1, 8, 32)
# The reference trains on 4, and as many of the target domain; 16 fill the card.
TRAINING_BATCHES = (4, 16)
ROUNDS = 7
# Of one way in one round: enough calls that the clock's own grain is nothing.
ROUND_S = 0.3
# Training steps timed, after those in which compilers and allocators settle.
STEPS, WARMUP = 40, 12
# A share of the answers' own spread between photos; float16 has 11 bits, and lies far under it.
MOST_OF_SPREAD = 0.1


@dataclass(frozen=True, kw_only=True)
class Way:
    """How PyTorch is asked to compute."""

    name: str
    half: str = ""
    """The type of weights and activations, such as `float16`; float32 where it is empty."""
    compiled: bool = False


WAYS = (
    Way(name="eager float32"),
    Way(name="eager float16, channels last", half="float16"),
    Way(name="eager bfloat16, channels last", half="bfloat16"),
    Way(name="torch.compile float16", half="float16", compiled=True),
)


def parser() -> argparse.ArgumentParser:
    return record.parser(
        "gpu", "Time the reference system's network on this machine's GPU: eager, half precision, torch.compile."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Time every way and keep what was found."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("PyTorch finds no NVIDIA GPU here\ntime this machine's processor: pytest benchmarks/")
    load_before = busy.before()
    CONVNEXT_BASE.write()
    card = torch.cuda.get_device_name()
    body = {
        "card": card,
        "limits": limits(),
        "end_to_end": end_to_end(CONVNEXT_BASE.checkpoint),
        "answering": answering(),
        "training": training(CONVNEXT_BASE.data),
    }
    path = record.keep({"model": "gpu"}, body, full=True, load_before=load_before, into=into, card=card)
    note(f"kept in {path}")
    return DONE


def limits() -> dict[str, float]:
    """The card's rates as PyTorch's own products and copies reach them, in TFLOP/s and GB/s, read and written."""
    import torch

    side = 8192
    found = {}
    for name in ("float32", "bfloat16", "float16"):
        left, right = (torch.randn(side, side, device="cuda", dtype=getattr(torch, name)) for _ in range(2))
        found[f"{name}_tflops"] = round(2 * side**3 / _seconds_a_call(lambda: left @ right) / 1e12, 1)  # noqa: B023
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    found["copy_gb_per_s"] = round(2 * source.nbytes / _seconds_a_call(lambda: target.copy_(source)) / 1e9, 1)
    note(str(found))
    return found


def end_to_end(checkpoint: Path) -> dict[str, object]:
    """The reference's own way on the GPU, photos a second: Pillow, float32, one photo after the other."""
    import torch

    way = ReferenceWay.open(checkpoint, torch.device("cuda"))
    paths = inputs.find([ROOT / "examples" / "photos"])
    for path in paths:  # once untimed
        way.probabilities(way.pixels(path))
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for path in paths:
            way.probabilities(way.pixels(path))
        rates.append(len(paths) / (time.perf_counter() - started))
    note(f"the reference's way: {statistics.median(rates):.1f} photos/s")
    return {"what": "the reference's way", "photos": len(paths), **_ranged(rates)}


def answering() -> dict[str, object]:
    """Photos a second of the model alone, the photos in the GPU's memory as the network takes them, float32."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = CONVNEXT_BASE.seeded().cuda()
    photos_NCHW = _photos().cuda()
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        model(photos_NCHW[:1])
    expected = _probabilities(model, photos_NCHW, torch.float32)
    spread = max(float((each - each[:1]).abs().max()) for each in expected)
    rows: list[tuple[dict[str, object], Callable[[], object]]] = []
    for way in WAYS:
        made, dtype = _made(model, way)
        difference = max(
            float((ours - theirs).abs().max())
            for ours, theirs in zip(_probabilities(made, photos_NCHW, dtype), expected, strict=True)
        )
        if difference > MOST_OF_SPREAD * spread:
            raise RuntimeError(f"{way.name} is off by {difference:.2g}, the photos differ by {spread:.2g}")
        for batch in BATCHES:
            fixed = {"what": way.name, "batch": batch, "largest_difference": record.rounded(difference)}
            rows.append((fixed, _call(made, photos_NCHW[:batch].to(dtype))))
    rates: list[list[float]] = [[] for _ in rows]
    for _ in range(ROUNDS):
        for (fixed, call), found in zip(rows, rates, strict=True):
            found.append(int(str(fixed["batch"])) / _seconds_a_call(call))
    gflop = counted.get_total_flops() / 1e9
    answers = [
        {**fixed, **_ranged(found), "tflops": round(statistics.median(found) * gflop / 1e3, 1)}
        for (fixed, _), found in zip(rows, rates, strict=True)
    ]
    for answer in answers:
        note(f"{answer['what']}, batch {answer['batch']}: {answer['images_per_s']} photos/s")
    return {"gflop_an_image": round(gflop, 1), "between_photos": record.rounded(spread), "ways": answers}


def training(folder: Path) -> list[dict[str, object]]:
    """Photos a second in phase 1 and phase 2 of the reference preset, read, decoded and changed meanwhile."""
    from train import data

    (table,) = data.read(folder)
    found: list[dict[str, object]] = []
    for batch in TRAINING_BATCHES:
        for half, compiled in ((False, False), (True, False), (True, True)):
            for phase in (1, 2) if not compiled else (1,):
                rate = _training_rate(table, batch=batch, half=half, compiled=compiled, phase=phase)
                what = f"{'bfloat16' if half else 'float32'}{', torch.compile' if compiled else ''}"
                found.append({"what": what, "phase": phase, "batch": batch, "photos_per_s": round(rate, 1)})
                note(str(found[-1]))
    return found


def _training_rate(table: Table, *, batch: int, half: bool, compiled: bool, phase: int) -> float:
    import torch

    from runtime.bundle import Preprocess
    from train import phases
    from train.config import Preset
    from train.run import Run

    class Float32Run(Run):
        half = None

    def sized(preset: Preset) -> Preset:
        first = replace(preset.phase1, batch=batch, target_batch=batch, epochs=1000)
        return replace(preset, phase1=first, phase2=replace(preset.phase2, batch=batch, epochs=1000))

    moments: list[float] = []

    def taken(amount: int, state: str) -> None:
        if amount:
            torch.cuda.synchronize()
            moments.append(time.perf_counter())

    preset = sized(CONVNEXT_BASE.preset)
    config = preset.model
    run = (Run if half else Float32Run)(
        model=CONVNEXT_BASE.seeded().cuda().to(memory_format=torch.channels_last),
        table=table,
        spec=Preprocess(height=config.size, width=config.size, mean=config.mean, std=config.std),
        preset=preset,
        seed=0,
        max_steps=STEPS,
        device=torch.device("cuda"),
        compiled=compiled,
        bar=Bar(taken),
    )
    phases.train(run, phase)
    del run
    torch.cuda.empty_cache()
    # The median: between two epochs the validation photos are answered.
    steps = [after - before for before, after in itertools.pairwise(moments[WARMUP:])]
    return batch / statistics.median(steps)


def _made(model: FacetModel, way: Way) -> tuple[Callable[[torch.Tensor], object], torch.dtype]:
    """The network computing in that way, and the type of its input."""
    import copy

    import torch

    if not way.half:
        return model, torch.float32
    dtype: torch.dtype = getattr(torch, way.half)
    made = copy.deepcopy(model).to(dtype=dtype, memory_format=torch.channels_last)
    return (
        torch.compile(made, dynamic=False) if way.compiled else made
    ), dtype  # a kernel a batch size, as an engine has


def _call(model: Callable[[torch.Tensor], object], photos_BCHW: torch.Tensor) -> Callable[[], object]:
    import torch

    def call() -> object:
        with torch.inference_mode():
            return model(photos_BCHW)

    return call


def _probabilities(
    model: Callable[[torch.Tensor], object], photos_NCHW: torch.Tensor, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Float32 [N, K] for each attribute."""
    import torch

    with torch.inference_mode():
        parts = [model(part_BCHW.to(dtype)).logits for part_BCHW in photos_NCHW.split(BATCHES[-1])]  # type: ignore[attr-defined]
    return [torch.cat([logits_BK.float().softmax(1) for logits_BK in column]) for column in zip(*parts, strict=True)]


def _photos() -> torch.Tensor:
    """Example photos as the network takes them: normalised float32 [N, 3, H, W], channels last."""
    import numpy as np
    import torch

    from runtime.bundle import Preprocess
    from train.network import normalise

    config = CONVNEXT_BASE.preset.model
    spec = Preprocess(height=config.size, width=config.size, mean=config.mean, std=config.std)
    paths = inputs.find([ROOT / "examples" / "clothing" / "train_images"])[:PHOTOS]
    return normalise(torch.from_numpy(np.stack([images.fit(images.decode(path), spec) for path in paths])), config)


def _seconds_a_call(call: Callable[[], object]) -> float:
    """The mean of as many calls as fill a round, after two untimed ones."""
    import torch

    def seconds(count: int) -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(count):
            call()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    call()
    count = max(1, int(ROUND_S / seconds(1)))
    return seconds(count) / count


def _ranged(rates: Sequence[float]) -> dict[str, object]:
    median, least, most = (round(value, 1) for value in (statistics.median(rates), min(rates), max(rates)))
    return {"images_per_s": median, "range": [least, most]}


if __name__ == "__main__":
    raise SystemExit(main())
