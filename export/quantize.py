"""A graph with its matrices as codes; activations stay float32 outside the products.

A table that embeds and is also the head (tied weights) is stored once, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, helper

from export.edit import Edit
from export.products import Product, products, tables
from export.rounding import Codes

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


def quantize(model: onnx.ModelProto, coder: Callable[[Product], Codes | None]) -> None:
    """Put the codes that ``coder`` makes in the place of matrices; where it makes none, they stay.

    In place. accuracy_level 4 also rounds activations to int8 inside the product, which is what
    makes it fast. That costs a draft a little acceptance and no exactness; a target must never use
    it.
    """
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    edit = Edit(model)
    embeds = tables(edit)
    nodes = {out: node for node in model.graph.node for out in node.output}
    for one in products(edit):
        made = coder(one)
        if made is None:
            continue
        names = _stored(edit, one.stored, made)
        if one.tied and one.stored in embeds and not made.width % made.rounding.block:
            _gathered(edit, embeds[one.stored], names, made)
        if one.source:
            _multiplied(edit, nodes[one.name], names, made)
    edit.sweep()


def _stored(edit: Edit, name: str, made: Codes) -> list[str]:
    """The names of codes (rows, blocks, bytes), steps (rows, blocks) and zero points, if any."""
    names = [f"{name}.int{made.rounding.bits}", f"{name}.scale"]
    edit.add_constant(names[0], _packed(made.code, made.rounding.bits))
    edit.add_constant(names[1], made.step)
    if made.rounding.zero_points:
        names.append(f"{name}.zero")
        edit.add_constant(names[2], _packed(made.zero, made.rounding.bits))
    return names


def _packed(code: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes of 4 bits two to a byte, the first in its lower half."""
    if bits == 8:
        return code
    if code.shape[-1] % 2:
        code = np.concatenate([code, np.zeros_like(code[..., :1])], axis=-1)
    packed: NDArray[np.uint8] = code[..., ::2] | code[..., 1::2] << np.uint8(4)
    return packed


def _gathered(edit: Edit, node: NodeProto, names: list[str], made: Codes) -> None:
    """The embedding of the input ids."""
    stored = names[0]
    shape = edit.add_constant(f"{stored}.shape", np.array([len(made.code), -1]))
    flat = helper.make_node("Reshape", [stored, shape], [f"{stored}.flat"], f"{stored}.flat")
    edit.before(node, [flat])
    new = helper.make_node(
        "GatherBlockQuantized",
        [flat.output[0], node.input[1], *names[1:]],
        list(node.output),
        node.name,
        domain="com.microsoft",
        gather_axis=0,
        quantize_axis=1,
        block_size=made.rounding.block,
        bits=made.rounding.bits,
    )
    node.CopyFrom(new)


def _multiplied(edit: Edit, node: NodeProto, names: list[str], made: Codes) -> None:
    """x W, or x Wᵀ, and the bias that is added to it."""
    bias, output = "", node.output[0]
    if node.op_type == "Gemm":
        bias = node.input[2] if len(node.input) > 2 else ""
    elif added := edit.added_bias(output):
        bias, output = added[1], added[0].output[0]
        edit.graph.node.remove(added[0])
    inputs = [node.input[0], *names]
    if bias:
        inputs += [""] * (5 - len(inputs)) + [bias]
    new = helper.make_node(
        "MatMulNBits",
        inputs,
        [output],
        node.name,
        domain="com.microsoft",
        K=made.width,
        N=len(made.code),
        bits=made.rounding.bits,
        block_size=made.rounding.block,
        accuracy_level=4,
    )
    node.CopyFrom(new)


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; where its weights are many, they lie in a file beside it."""
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EMBEDDED_BYTES
    onnx.save(model, path, save_as_external_data=large, location=path.name + ".data")
    if large:  # they were taken out of the model, too
        onnx.load_external_data_for_model(model, str(path.parent))
