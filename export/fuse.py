"""Fewer, larger nodes: much of a small draft's time goes into starting nodes, not into weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx import NodeProto, helper
from onnxscript.rewriter.ort_fusions import optimize_for_ort

from export.edit import Edit


def fuse(model: onnx_ir.Model) -> onnx.ModelProto:
    """The traced graph with fused norms, and one product for all that take the same input."""
    optimize_for_ort(model)
    proto: onnx.ModelProto = onnx_ir.to_proto(model)
    edit = Edit(proto)
    for node in list(proto.graph.node):
        if node.op_type == "GroupQueryAttention":
            _drop_reshapes(edit, node)
            _pack(edit, node)
    edit.sweep()
    edit = Edit(proto)
    _join(edit)
    edit.sweep()
    return proto


def _drop_reshapes(edit: Edit, attention: NodeProto) -> None:
    """(1, n, heads d) -> (1, n, heads, d) -> (1, n, heads d), on both sides, does nothing."""
    for index in range(3):
        source = edit.behind(attention.input[index], ("Reshape",))
        if _product(edit, source) is not None:
            attention.input[index] = source
    pending = list(edit.readers.get(attention.output[0], []))
    while pending:
        node = pending.pop()
        if node.op_type == "Reshape":
            pending += edit.readers.get(node.output[0], [])
        elif node.op_type == "MatMul":
            node.input[0] = edit.behind(node.input[0], ("Reshape",))


Product = tuple[str, NDArray[Any], NDArray[Any] | None]  # x, W and b of x W + b


def _product(edit: Edit, name: str) -> Product | None:
    """The product that the value ``name`` is, if it is one."""
    node = edit.maker.get(name)
    bias = None
    if node is not None and node.op_type == "Add":
        constant = [i for i in node.input if i in edit.constants]
        other = [i for i in node.input if i not in edit.constants]
        if len(constant) != 1:
            return None
        bias, node = edit.array(constant[0]), edit.maker.get(other[0])
        if bias is None or bias.ndim != 1:
            return None
    if node is None or node.op_type != "MatMul":
        return None
    weight = edit.array(node.input[1])
    return None if weight is None else (node.input[0], weight, bias)


def _pack(edit: Edit, attention: NodeProto) -> None:
    """Three products of the same input to one, where nothing lies between them and attention."""
    found = [_product(edit, name) for name in attention.input[:3]]
    parts = [part for part in found if part is not None]
    if len(parts) != 3 or len({source for source, _, _ in parts}) != 1:
        return
    made = _joined(edit, parts, attention.output[0] + ".qkv")
    edit.before(attention, made)
    attention.input[0] = made[-1].output[0]
    attention.input[1] = attention.input[2] = ""


def _joined(edit: Edit, parts: Sequence[Product], name: str) -> list[NodeProto]:
    """Nodes for the products of one input side by side; the last one's output is their sum."""
    weight = edit.add_constant(name + ".weight", np.concatenate([w for _, w, _ in parts], axis=1))
    made = [helper.make_node("MatMul", [parts[0][0], weight], [name], name)]
    if any(bias is not None for _, _, bias in parts):
        biases = [np.zeros(w.shape[1], w.dtype) if b is None else b for _, w, b in parts]
        bias = edit.add_constant(name + ".bias", np.concatenate(biases))
        made.append(helper.make_node("Add", [name, bias], [name + ".sum"], name + ".sum"))
    return made


def _join(edit: Edit) -> None:
    """Other products of the same input, a gated layer's say, to one that is split behind."""
    found: dict[str, list[NodeProto]] = {}
    for node in edit.graph.node:
        weight = edit.constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and len(weight.dims) == 2:
            found.setdefault(node.input[0], []).append(node)
    for source, nodes in found.items():
        if len(nodes) > 1:
            added = [edit.added_bias(node.output[0]) for node in nodes]
            ends = [bias[0] if bias else node for node, bias in zip(nodes, added, strict=True)]
            outputs = [end.output[0] for end in ends]
            parts = [part for part in (_product(edit, o) for o in outputs) if part is not None]
            made = _joined(edit, parts, source + ".joined")
            sizes = np.array([weight.shape[1] for _, weight, _ in parts])
            inputs = [made[-1].output[0], edit.add_constant(source + ".sizes", sizes)]
            made.append(helper.make_node("Split", inputs, outputs, source + ".split", axis=-1))
            edit.before(nodes[0], made)
            for end in ends:
                edit.graph.node.remove(end)
