"""Weights to 8 or 4 bits, in blocks of up to 256; activations stay float32.

A table that embeds and is also the head (tied weights) is stored once, for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, helper

from export.edit import Edit, attributes

Precision = Literal["fp32", "int8", "int4"]
BITS: dict[Precision, int] = {"int8": 8, "int4": 4}
# Where it divides the rows. In blocks of 32, as is usual, 4 bits take 20% more bytes and a quarter
# more time (``bench.decode``), for 0.005 of acceptance (``bench.quantize``).
BLOCK = 256
SMALLEST_BLOCK = 16  # of the operators
# A block's largest weight may be clipped, to this share: the others then get a finer step. (With 8
# bits the step is fine enough, and nothing is gained.)
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
ROWS = 4096  # quantized at a time, to bound the memory
EMBEDDED_BYTES = 1 << 20  # weights in the graph's file; more lie beside it, memory-mapped


def fold(source: Path, target: Path) -> onnx.ModelProto:
    """Constant folding by ONNX Runtime, so that every weight is a plain initializer.

    ``target`` is scratch. Raises what onnxruntime raises for a graph that does not load.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    # Beside the graph, since protobuf ends at 2 GiB.
    weights = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(weights, target.name + ".data")
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return onnx.load(target)


def codes(
    weight: NDArray[Any], bits: int, block: int = BLOCK
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round (rows, width) to codes (rows, blocks, block) and scales (rows, blocks).

    A weight is (code - 2^(bits - 1)) times its block's scale; of the steps in ``SHARES`` each block
    takes the one with the least squared error. Rows are padded with zeros.
    """
    rows, width = weight.shape
    blocks = -(-width // block)
    code = np.empty((rows, blocks, block), np.uint8)
    scale = np.empty((rows, blocks), np.float32)
    for begin in range(0, rows, ROWS):
        part = np.zeros((min(ROWS, rows - begin), blocks * block), np.float32)
        part[:, :width] = weight[begin : begin + ROWS]
        here = slice(begin, begin + ROWS)
        code[here], scale[here] = _rounded(part.reshape(-1, blocks, block), bits)
    return code, scale


def _rounded(part: NDArray[np.float32], bits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    half = 2 ** (bits - 1)
    # The weight that is largest, with its sign, takes code 0: there is one code more on that side.
    place = np.abs(part).argmax(axis=-1, keepdims=True)
    peak = np.take_along_axis(part, place, axis=-1)[..., 0]
    code = np.full(part.shape, half, np.uint8)
    scale = np.zeros_like(peak)
    least = np.full_like(peak, np.inf)
    for share in SHARES if bits == 4 else (1.0,):
        step = peak * np.float32(-share / half)
        inverse = np.divide(1, step, out=np.zeros_like(step), where=np.abs(step) > 1e-30)
        signed = np.clip(np.rint(part * inverse[..., None]), -half, half - 1)
        error = np.square(signed * step[..., None] - part).sum(axis=-1)
        better = error < least
        least[better], scale[better] = error[better], step[better]
        code[better] = (signed[better] + half).astype(np.uint8)
    return code, scale


def rounded(weight: NDArray[Any], bits: int, block: int = BLOCK) -> NDArray[np.float32]:
    """The weights (rows, width) that the codes stand for."""
    code, scale = codes(weight, bits, block)
    value: NDArray[np.float32] = (code.astype(np.float32) - 2 ** (bits - 1)) * scale[..., None]
    return value.reshape(len(weight), -1)[:, : weight.shape[1]]


def block_for(width: int, block: int = BLOCK) -> int:
    """The block that rows of ``width`` are cut into: at most ``block``, and no rest if that can be.

    A table of embeddings must be cut without one.
    """
    while width % block and block > SMALLEST_BLOCK:
        block //= 2
    return block


def quantize(model: onnx.ModelProto, precision: Precision, block: int = BLOCK) -> None:
    """Quantize the embedding and every product with a constant matrix, in place.

    accuracy_level 4 also rounds activations to int8 inside the product, which is what makes it
    fast. That costs a draft a little acceptance and no exactness; a target must never use it.
    """
    if precision == "fp32":
        return
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    work = _Quantizer(Edit(model), BITS[precision], block)
    for node in list(model.graph.node):
        if node.op_type == "Gather":
            work.gather(node)
    for node in list(model.graph.node):
        if node.op_type in ("MatMul", "FusedMatMul", "Gemm"):
            work.product(node)
    work.edit.sweep()


class _Quantizer:
    def __init__(self, edit: Edit, bits: int, block: int) -> None:
        self.edit = edit
        self._bits = bits
        self._block = block
        self._tables: dict[str, NDArray[Any]] = {}  # embeddings: (V, width)

    def _store(self, name: str, weight: NDArray[Any]) -> tuple[str, str]:
        """The names of the codes (rows, blocks, bytes) and the scales of (rows, width)."""
        codes_name, scales_name = f"{name}.int{self._bits}", f"{name}.scale"
        if codes_name not in self.edit.constants:
            code, scale = codes(weight, self._bits, block_for(weight.shape[1], self._block))
            packed = code if self._bits == 8 else code[..., ::2] | code[..., 1::2] << 4
            self.edit.add_constant(codes_name, packed)
            self.edit.add_constant(scales_name, scale)
        return codes_name, scales_name

    def gather(self, node: NodeProto) -> None:
        """The embedding of the input ids; a table whose rows end within a block stays as it is."""
        name = node.input[0]
        ids = self.edit.behind(node.input[1], ("Cast", "Identity", "Reshape"))
        weight = self.edit.array(name)
        if ids != "input_ids" or weight is None or weight.ndim != 2:
            return
        block = block_for(weight.shape[1], self._block)
        if weight.shape[1] % block:
            return
        self._tables[name] = weight
        stored, scales = self._store(name, weight)
        shape = self.edit.add_constant(f"{stored}.shape", np.array([len(weight), -1]))
        flat = helper.make_node("Reshape", [stored, shape], [f"{stored}.flat"], f"{stored}.flat")
        self.edit.before(node, [flat])
        made = helper.make_node(
            "GatherBlockQuantized",
            [flat.output[0], node.input[1], scales],
            list(node.output),
            node.name,
            domain="com.microsoft",
            gather_axis=0,
            quantize_axis=1,
            block_size=block,
            bits=self._bits,
        )
        node.CopyFrom(made)

    def product(self, node: NodeProto) -> None:
        """x W, or x Wᵀ, and the bias that is added to it."""
        found = self._weight(node)
        if found is None:
            return
        name, weight = found
        bias, output = "", node.output[0]
        if node.op_type == "Gemm":
            bias = node.input[2] if len(node.input) > 2 else ""
        elif added := self.edit.added_bias(output):
            bias, output = added[1], added[0].output[0]
            self.edit.graph.node.remove(added[0])
        stored, scales = self._store(name, weight)
        made = helper.make_node(
            "MatMulNBits",
            [node.input[0], stored, scales, *(["", "", bias] if bias else [])],
            [output],
            node.name,
            domain="com.microsoft",
            K=weight.shape[1],
            N=weight.shape[0],
            bits=self._bits,
            block_size=block_for(weight.shape[1], self._block),
            accuracy_level=4,
        )
        node.CopyFrom(made)

    def _weight(self, node: NodeProto) -> tuple[str, NDArray[Any]] | None:
        """The constant of a product as (out, in), and the name that its codes shall have."""
        options = attributes(node)
        turned = bool(options.pop("transB", 0))
        if any(value != (name in ("alpha", "beta")) for name, value in options.items()):
            return None  # a scale, or another operand turned
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            bias = self.edit.constants.get(node.input[2])
            if bias is None or len(bias.dims) != 1:
                return None
        name = node.input[1]
        maker = self.edit.maker.get(name)
        if maker is not None and maker.op_type == "Transpose":
            name, turned = maker.input[0], not turned
        weight = self.edit.array(name)
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            return None
        if not turned:
            weight = weight.T
        for table, values in self._tables.items():
            # Tied weights: folding, and optimum, make the head a constant of its own.
            if values.shape == weight.shape and np.array_equal(values, weight):
                return table, values
        return (name, weight) if turned else (f"{name}.T", weight)


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; where its weights are many, they lie in a file beside it."""
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EMBEDDED_BYTES
    onnx.save(model, path, save_as_external_data=large, location=path.name + ".data")
    if large:  # they were taken out of the model, too
        onnx.load_external_data_for_model(model, str(path.parent))
