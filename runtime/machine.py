"""The machine that this runs on, as far as speed hangs on it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

# What decides how fast a processor multiplies matrices, as Linux names it.
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What multiplies."""

    name: str
    cores: int
    instructions: tuple[str, ...]
    """Those of INSTRUCTIONS that it has."""


def processor() -> Processor:
    """This machine's processor."""
    fields = _fields("/proc/cpuinfo")
    known = set(fields.get("flags", fields.get("Features", "")).split())
    return Processor(
        name=fields.get("model name") or platform.processor() or platform.machine(),
        cores=cores(),
        instructions=tuple(name for name in INSTRUCTIONS if name in known),
    )


def saturates_int8() -> bool:
    """Whether its fastest products of uint8 and int8 lose what does not fit in 16 bits: x86 before VNNI, and where
    nobody tells what it has."""
    has_vnni = any(name.endswith("vnni") or name == "amx_int8" for name in processor().instructions)
    return platform.machine() in ("x86_64", "AMD64") and not has_vnni


def cores() -> int:
    """Those that this process may use: in a container fewer, perhaps, than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float:
    """Of the machine, in 10^9 bytes; 0 where it cannot be told."""
    kib = re.match(r"\d+", _fields("/proc/meminfo").get("MemTotal", ""))
    return int(kib[0]) * 1024 / 1e9 if kib else 0.0


def version_of(package: str) -> str:
    """Of an installed distribution; empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # as slow to import as all the rest of a command

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _fields(path: str) -> dict[str, str]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        lines = []
    return dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
