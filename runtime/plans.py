"""Whether a plan fits the library and the GPU that are here, asked before it is opened."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

from runtime.bundle import Artifact, rebuild
from runtime.engines import ENGINES
from runtime.engines.cuda import gpu_here

RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPU kinds that TensorRT-RTX builds for on any machine: Turing, A100, Ampere, Ada, Blackwell, GB10."""


def misfit(artifact: Artifact, engine: str) -> str:
    """Why the plan cannot run here, in one line; empty for a graph, and where nothing is known against it."""
    if ENGINES[engine].suffix != ".plan":
        return ""
    built, here = artifact.built_with.get(engine, ""), version_here(engine)
    if built and here and not _reads(engine, built, here):
        return f"built with {engine} {built}, here is {here}"
    gpu = gpu_here() if artifact.target else ""
    if gpu not in ("", artifact.target):
        return f"built for a GPU of kind {artifact.target}, here is {gpu}"
    return ""


def rebuild_here(folder: Path, artifact: Artifact) -> str:
    """What to type for a plan that fits this machine in place of one that does not."""
    gpu = gpu_here() if artifact.target else ""
    if gpu and gpu not in RTX_TARGETS:
        return (
            f"{unknown(gpu)}\nthen: python -m export.engine {shlex.quote(str(folder))} --precision {artifact.precision}"
        )
    return rebuild(folder, artifact.file, target=gpu)


def unknown(gpu: str) -> str:
    """What to type where TensorRT-RTX builds for no such GPU."""
    return (
        f"tensorrt-rtx builds for {', '.join(RTX_TARGETS)}, and this GPU is {gpu}\n"
        f"TensorRT builds for it: {ENGINES['tensorrt'].install}"
    )


def _reads(engine: str, built: str, here: str) -> bool:
    """Whether the version that is here may read a plan of the one that built it.

    TensorRT-RTX reads its own alone. TensorRT does too, but for plans that were built version-compatible, which a
    later one of the same major version reads; the page does not tell them apart, so those are for it to refuse.
    """
    if engine == "tensorrt-rtx":
        return built == here
    built_numbers, here_numbers = ([int(part) for part in re.findall(r"\d+", text)[:3]] for text in (built, here))
    return built_numbers[:1] == here_numbers[:1] and built_numbers <= here_numbers


def version_here(engine: str) -> str:
    """Of the library; empty where it cannot be loaded, which opening the plan will tell with its reason."""
    try:
        return str(importlib.import_module(ENGINES[engine].package).__version__)
    except (ImportError, OSError):
        return ""
