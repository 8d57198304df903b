"""The costs of products on this machine, measured: see ``costs``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.model import kernels, threads, tiny_onnx
from device_runtime.model.costs import FORMAT, Cost, Costs, Kernel
from device_runtime.model.tiny_onnx import FLOAT, UINT8

# Shapes (rows, width) for a board that does not know the model, from small drafts' to large ones'.
SHAPES = ((576, 576), (1536, 576), (576, 1536), (2048, 2048), (8192, 1024), (1024, 4096))
BLOCKS = {8: (256, 128, 64, 32, 16), 4: (64, 32, 16)}
RARE = 16  # a block that is slower than the others, and for widths that those do not divide
READ_BYTES = 48 << 20  # by the products of one measurement: more than caches hold
REPEATS = 9  # at least, and as many as there are in
LASTS_S = 0.25  # since another process has a core for some hundredths of a second at a time
NODES = 200  # of the measurement of what a node costs besides


def all_kernels(machine: str, width: int) -> list[Kernel]:
    """Those worth measuring on a processor for rows of a width: blocks without a rest.

    4 bits have zero points where they cost nothing.
    """
    zero_points = kernels.takes_zero_points(machine)
    return [
        Kernel(bits, block, zero_points and bits == 4)  # type: ignore[arg-type]
        for bits, blocks in BLOCKS.items()
        for block in blocks
        if (width % block == 0 and block > RARE) or (width % (2 * RARE) and block == RARE)
    ]


def measure(
    shapes: Iterable[tuple[int, int]] = SHAPES,
    count: int | None = None,
    read_bytes: int = READ_BYTES,
    progress: Callable[[float], None] = lambda share: None,
) -> Costs:
    """The costs of this machine for products of some shapes (rows, width).

    ``count`` threads, by default as many as may run. ``read_bytes``: of weights that are read
    between two uses of one, so of the model where it is small.
    """
    machine, present = kernels.features()
    used = count or threads.available()
    wanted = [
        (kernel, rows, width)
        for rows, width in sorted(set(shapes))
        for kernel in all_kernels(machine, width)
    ]
    found = []
    for index, (kernel, rows, width) in enumerate(wanted):
        progress(index / len(wanted))
        found.append(Cost(kernel, rows, width, _product(kernel, rows, width, used, read_bytes)))
    return Costs(FORMAT, machine, present, ort.__version__, used, _node(used), found)


def _product(kernel: Kernel, rows: int, width: int, count: int, read_bytes: int) -> float:
    """Products with matrices that lie apart, in turn: some kernels pack them, others do not."""
    rng = np.random.default_rng(0)
    bits, block = kernel.bits, kernel.block
    blocks = -(-width // block)
    shape = (rows, blocks, block * bits // 8)
    code = rng.integers(0, 256, shape, np.uint8).tobytes()
    step = rng.standard_normal((rows, blocks), np.float32)
    copies = max(1, min(256, -(-read_bytes // len(code))))
    names = [f"y{index}" for index in range(copies)]
    tensors = [tiny_onnx.tensor("s", FLOAT, step.shape, step.tobytes())]
    tensors += [tiny_onnx.tensor(f"w{name}", UINT8, shape, code) for name in names]
    besides = ["s"]
    if kernel.zero_points:
        zero = rng.integers(0, 256, (rows, -(-blocks * bits // 8)), np.uint8)
        tensors.append(tiny_onnx.tensor("z", UINT8, zero.shape, zero.tobytes()))
        besides.append("z")
    options = {"K": width, "N": rows, "bits": bits, "block_size": block, "accuracy_level": 4}
    nodes = [
        tiny_onnx.node("MatMulNBits", ["x", f"w{name}", *besides], name, "com.microsoft", **options)
        for name in names
    ]
    given = {"x": rng.standard_normal((1, width), np.float32)}
    graph = tiny_onnx.model(
        nodes, tensors, [tiny_onnx.value("x", (1, width))],
        [tiny_onnx.value(name, (1, rows)) for name in names],
    )  # fmt: skip
    return _seconds(graph, given, count) / copies


def _node(count: int) -> float:
    """A small sum after a small sum."""
    names = ["x", *(f"y{index}" for index in range(NODES))]
    nodes = [
        tiny_onnx.node("Add", [before, "x"], name) for before, name in itertools.pairwise(names)
    ]
    shape = (1, 1024)
    graph = tiny_onnx.model(
        nodes, [], [tiny_onnx.value("x", shape)], [tiny_onnx.value(names[-1], shape)]
    )
    return _seconds(graph, {"x": np.zeros(shape, np.float32)}, count) / NODES


def _seconds(graph: bytes, given: dict[str, NDArray[np.float32]], count: int) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = count
    options.log_severity_level = 4
    # Equal nodes would be made one.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    session.run(None, given)
    times: list[float] = []
    while len(times) < REPEATS or sum(times) < LASTS_S:
        begun = time.perf_counter()
        session.run(None, given)
        times.append(time.perf_counter() - begun)
    return min(times)  # what disturbs only adds
