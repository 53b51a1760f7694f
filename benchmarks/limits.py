"""Command: what this machine can do at best, asked on stdin, a line each, as `benchmarks.worker` is.

python -m benchmarks.limits

Large matrix products in float32, bfloat16 and int8, the best of several shapes, a batch a core, by the kernels that
OpenVINO takes for a network's layers; and a copy of more memory than any cache holds, by as many threads as there are
cores. A network that reached these rates in every layer would lose nothing.
"""

# M rows, N columns, K what each sums over

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runtime import machine

if TYPE_CHECKING:
    import numpy as np
    import onnx

NEEDS = ("openvino", "onnx")
SHAPES_MNK = ((1024, 1024, 4096), (1024, 4096, 1024), (4096, 512, 2048), (256, 4096, 1024))
PRECISIONS = ("f32", "bf16", "int8")
# Of each shape and precision in a turn.
SECONDS = 0.05
COPIED_BYTES = 1 << 28


def main() -> int:
    if lacks := [name for name in NEEDS if find_spec(name) is None]:
        print(json.dumps({"missing": f"not installed: {', '.join(lacks)}"}), flush=True)
        return 0
    import numpy as np
    import openvino

    core = openvino.Core()
    products = {(precision, shape): started(core, precision, shape) for precision in PRECISIONS for shape in SHAPES_MNK}
    print(json.dumps({"what": "the machine's own rates"}), flush=True)
    size = COPIED_BYTES // machine.cores()
    pairs = [(np.ones(size, np.uint8), np.zeros(size, np.uint8)) for _ in range(machine.cores())]
    for _ in sys.stdin:
        found = {
            f"{precision}_gops": max(rate(products[precision, shape], shape) for shape in SHAPES_MNK)
            for precision in PRECISIONS
        }
        print(json.dumps({**found, "copy_gb_per_s": copy_rate(pairs)}), flush=True)
    return 0


def started(core: Any, precision: str, shape: tuple[int, int, int]) -> list[Any]:
    """Requests for one product, of an activation by a weight, as a layer of a network is; each has computed it once."""
    hint = {"INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16"}
    streams = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": machine.cores()}
    model = core.read_model(product(shape, int8=precision == "int8").SerializeToString())
    compiled = core.compile_model(model, "CPU", {**streams, **hint})
    requests = [compiled.create_infer_request() for _ in range(2 * machine.cores())]
    for request in requests:
        request.infer()
    return requests


def product(shape: tuple[int, int, int], *, int8: bool) -> onnx.ModelProto:
    """[M, K] times a constant [K, N]; in int8 both are quantised, and so is what comes of them."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rows, columns, depth = shape
    rng = np.random.default_rng(0)
    weight_KN = rng.integers(-127, 128, (depth, columns)).astype(np.int8)
    made = [numpy_helper.from_array(np.float32(0.01), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    if int8:
        made.append(numpy_helper.from_array(weight_KN, "weight"))
        nodes = [
            helper.make_node("QuantizeLinear", ["given", "scale", "zero"], ["given_q"]),
            helper.make_node("DequantizeLinear", ["given_q", "scale", "zero"], ["given_d"]),
            helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["weight_d"]),
            helper.make_node("MatMul", ["given_d", "weight_d"], ["summed"]),
            helper.make_node("QuantizeLinear", ["summed", "scale", "zero"], ["summed_q"]),
            helper.make_node("DequantizeLinear", ["summed_q", "scale", "zero"], ["found"]),
        ]
    else:
        made.append(numpy_helper.from_array(weight_KN.astype(np.float32), "weight"))
        nodes = [helper.make_node("MatMul", ["given", "weight"], ["found"])]
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, [rows, depth])
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, [rows, columns])
    graph = helper.make_graph(nodes, "product", [given], [found], made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rate(requests: Sequence[Any], shape: tuple[int, int, int]) -> float:
    """10^9 operations a second, a multiplication and an addition counting two, a product a stream at once."""
    done, started = 0, time.perf_counter()
    for request in requests:
        request.start_async()
    while time.perf_counter() - started < SECONDS:
        request = requests[done % len(requests)]
        request.wait()
        request.start_async()
        done += 1
    for request in requests:
        request.wait()
    rows, columns, depth = shape
    return 2 * rows * columns * depth * (done + len(requests)) / (time.perf_counter() - started) / 1e9


def copy_rate(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """10^9 bytes a second, read and written, each pair's by a thread of its own."""
    import numpy as np

    with ThreadPoolExecutor(len(pairs)) as pool:
        best = 0.0
        for _ in range(3):
            started = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            best = max(best, 2 * COPIED_BYTES / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
