"""Command: where one photo's time goes inside the network, layer by layer, as OpenVINO counts it.

python -m benchmarks.layers

ConvNeXt-Base at 512 px in int8, one photo at a time on all cores, in the precision that its gate let through. Layers
that the library has joined stand under the name of the first.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks import busy, record
from benchmarks.cache import ROOT
from benchmarks.networks import CONVNEXT_BASE
from runtime import bundle, images, inputs
from runtime.errors import DONE
from runtime.terminal import note, print_table

CALLS = 20
COLUMNS = ("layers of a kind", "computed by", "how many", "ms", "share")


def parser() -> argparse.ArgumentParser:
    return record.parser("layers", "Say where a photo's time goes inside ConvNeXt-Base in int8, by kind of layer.")


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Count, print by kind and keep layer by layer."""
    load_before = busy.before()
    CONVNEXT_BASE.make(["int8"])
    page = bundle.load(CONVNEXT_BASE.bundle)
    # Not the only one where float32 was asked for too.
    artifact = next(one for one in page.artifacts if one.precision == "int8")
    hint = next(one.hint for one in reversed(artifact.verdicts) if one.engine == "openvino" and one.state == "passed")
    photo = inputs.find([ROOT / "examples" / "photos"])[0]
    layers = counted(CONVNEXT_BASE.bundle / artifact.file, hint, images.load(photo, page.preprocess)[None])
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for layer in layers:
        kinds[str(layer["kind"]), str(layer["by"])].append(float(str(layer["ms"])))
    total = sum(map(sum, kinds.values()))
    rows = [
        {"kind": kind, "by": by, "layers": len(each), "ms": round(sum(each), 2), "share": round(sum(each) / total, 4)}
        for (kind, by), each in sorted(kinds.items(), key=lambda item: -sum(item[1]))
    ]
    shown = [(row["kind"], row["by"], row["layers"], row["ms"], f"{row['share']:.1%}") for row in rows if row["ms"]]
    print_table(
        f"{CONVNEXT_BASE.name}, {hint} between, {total:.0f} ms", COLUMNS, [list(map(str, row)) for row in shown]
    )
    head = {"model": "layers", "what": f"int8 on openvino {hint}", "ms": round(total, 2)}
    path = record.keep(head, {"kinds": rows, "layers": layers}, full=True, load_before=load_before, into=into)
    note(f"kept in {path}")
    return DONE


def counted(path: Path, hint: str, images_1HWC: object) -> list[dict[str, object]]:
    """Each layer that took time: its name, kind, what computed it, and its milliseconds, the median of the calls."""
    import statistics

    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    shape = model.input("images").partial_shape
    shape[0] = 1
    model.reshape({"images": shape})
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    found: dict[str, tuple[str, str, list[float]]] = {}
    for number in range(CALLS + 1):
        request.infer({"images": images_1HWC})
        if number:  # the first pays for what is only done once
            for one in request.get_profiling_info():
                found.setdefault(one.node_name, (one.node_type, one.exec_type, []))[2].append(
                    one.real_time.total_seconds() * 1000
                )
    return [
        {"name": name, "kind": kind, "by": by, "ms": round(statistics.median(times), 4)}
        for name, (kind, by, times) in found.items()
        if any(times)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
