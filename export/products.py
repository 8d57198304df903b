"""The products with constant matrices in a graph: what is rounded, and what goes into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from export.edit import Edit, attributes

KINDS = ("MatMul", "FusedMatMul", "Gemm")
# What a value may pass on its way to a product with its channels as they are. (A slice takes rows:
# the head sees the last position alone.)
PASSED = ("Slice", "Gather", "Squeeze", "Reshape", "Identity")

# In the names of products that undo a rotation: small, and not rounded.
TURNED = ".turned"


@dataclass(frozen=True)
class Product:
    """x W for a constant W, or a table of embeddings."""

    name: str  # of its output, before any bias
    source: str  # the value x; "" for a table that is no product as well
    stored: str  # what its codes are called
    tensor: onnx.TensorProto
    turned: bool  # the tensor is (out, in)
    tied: bool  # it embeds, too

    @property
    def weight(self) -> NDArray[np.float32]:
        """(out, in)."""
        value = numpy_helper.to_array(self.tensor)
        return value if self.turned else value.T

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight: (out, in)."""
        rows, width = self.tensor.dims
        return (rows, width) if self.turned else (width, rows)

    @property
    def wide(self) -> bool:
        """Whether it takes more than it gives: the way down of a layer, say."""
        return self.shape[1] > self.shape[0]


def tables(edit: Edit) -> dict[str, NodeProto]:
    """The Gathers of input ids, by the constant matrix that they read."""
    found = {}
    for node in edit.graph.node:
        if node.op_type == "Gather" and node.input[0] in edit.constants:
            ids = edit.behind(node.input[1], ("Cast", "Identity", "Reshape"))
            tensor = edit.constants[node.input[0]]
            if ids == "input_ids" and len(tensor.dims) == 2:
                found[node.input[0]] = node
    return found


def products(edit: Edit) -> list[Product]:
    """Those of a graph in its order; and the tables that are none of them."""
    embeds = tables(edit)
    found = [one for node in edit.graph.node if (one := product(edit, node, embeds)) is not None]
    tied = {one.stored for one in found if one.tied}
    alone = [
        Product(node.output[0], "", name, edit.constants[name], True, True)
        for name, node in embeds.items()
        if name not in tied
    ]
    return found + alone


def product(edit: Edit, node: NodeProto, embeds: dict[str, NodeProto]) -> Product | None:
    """The product that a node is, None for one of two computed values, or a scaled one."""
    if node.op_type not in KINDS or node.name.endswith(TURNED):
        return None
    options = attributes(node)
    turned = bool(options.pop("transB", 0))
    if any(value != (name in ("alpha", "beta")) for name, value in options.items()):
        return None  # a scale, or another operand turned
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        bias = edit.constants.get(node.input[2])
        if bias is None or len(bias.dims) != 1:
            return None
    name = node.input[1]
    maker = edit.maker.get(name)
    if maker is not None and maker.op_type == "Transpose":
        name, turned = maker.input[0], not turned
    tensor = edit.constants.get(name)
    if tensor is None or len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    for table in embeds:
        # Tied weights: folding, and optimum, make the head a constant of its own.
        if name == table or _equal(edit.constants[table], tensor, turned):
            return Product(node.output[0], node.input[0], table, edit.constants[table], True, True)
    stored = name if turned else f"{name}.T"
    return Product(node.output[0], node.input[0], stored, tensor, turned, False)


def _equal(table: onnx.TensorProto, tensor: onnx.TensorProto, turned: bool) -> bool:
    shape = list(tensor.dims) if turned else list(tensor.dims)[::-1]
    if list(table.dims) != shape:
        return False
    value: NDArray[Any] = numpy_helper.to_array(tensor)
    return np.array_equal(numpy_helper.to_array(table), value if turned else value.T)
