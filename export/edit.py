"""A graph that is being rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Edit:
    """Who makes a value, who reads it, what is constant. ``sweep`` ends the work."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.maker = {out: node for node in self.graph.node for out in node.output if out}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def array(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer, None for anything else."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """A new initializer, once per name."""
        if name not in self.constants:
            self.constants[name] = self.graph.initializer.add(name=name)
            put(self.constants[name], value)
        return name

    def behind(self, name: str, kinds: Sequence[str]) -> str:
        """The value from which ``name`` comes through nodes of these kinds."""
        while name in self.maker and self.maker[name].op_type in kinds:
            name = self.maker[name].input[0]
        return name

    def added_bias(self, name: str) -> tuple[NodeProto, str] | None:
        """The Add of a constant vector that alone reads ``name``, and the vector's name."""
        readers = self.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            for bias in readers[0].input:
                if bias in self.constants and len(self.constants[bias].dims) == 1:
                    return readers[0], bias
        return None

    def before(self, node: NodeProto, new: Sequence[NodeProto]) -> None:
        """Put ``new`` nodes before ``node``."""
        place = list(self.graph.node).index(node)
        for offset, made in enumerate(new):
            self.graph.node.insert(place + offset, made)

    def sweep(self) -> None:
        """Drop nodes and constants that nothing reads."""
        wanted = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(kept[::-1])
        constants = self.graph.initializer  # none is copied: see ``put``
        for index in reversed(range(len(constants))):
            if constants[index].name not in wanted:
                del constants[index]
        del self.graph.value_info[:]


def put(tensor: TensorProto, value: NDArray[Any]) -> None:
    """Give a tensor of a graph another value, in place, under its name.

    Nothing makes a message of it on the way, as copying does: protobuf's end at 2 GiB, which one
    table of a large vocabulary fills (262,144 tokens by 2,304 numbers).
    """
    name = tensor.name
    tensor.Clear()
    tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor.dims.extend(value.shape)
    tensor.raw_data = np.ascontiguousarray(value).tobytes()


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes, as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
