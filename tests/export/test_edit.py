"""Tables of any size: protobuf's messages end at 2 GiB, and copying a tensor makes one of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import npu, quantize
from export.edit import Edit, put


def graph(rows: int, width: int) -> onnx.ModelProto:
    """A table, another that nothing reads, and the embedding of ids."""
    node = helper.make_node("Gather", ["table", "ids"], ["y"], "embed")
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n", width])
    made = helper.make_model(helper.make_graph([node], "g", [ids], [y]))
    tensors = [made.graph.initializer.add(name=name) for name in ("unread", "table")]
    put(tensors[0], np.zeros((1, 1), np.float32))
    put(tensors[1], np.zeros((rows, width), np.float32))
    return made


def test_no_tensor_is_copied(tmp_path):
    """The objects that stand for them stay the same; a copy is another."""
    made = graph(40, 8)
    edit = Edit(made)
    table = edit.constants["table"]
    added = edit.constants[edit.add_constant("more", np.arange(3))]
    assert made.graph.initializer[2] is added
    node = helper.make_node("Add", ["y", "more"], ["z"], "sum")
    made.graph.node.append(node)
    made.graph.output[0].name = "z"
    put(table, np.ones((40, 8), np.float32))
    edit.sweep()
    assert [tensor.name for tensor in made.graph.initializer] == ["table", "more"]
    assert made.graph.initializer[0] is table and made.graph.initializer[1] is added
    assert numpy_helper.to_array(table).sum() == 320
    assert numpy_helper.to_array(added).tolist() == [0, 1, 2]
    quantize.write(made, tmp_path / "a.onnx")
    assert made.graph.initializer[0] is table
    copied = onnx.ModelProto()  # the control
    copied.graph.initializer.extend([table])
    assert copied.graph.initializer[0] is not table


@pytest.mark.full
@pytest.mark.parametrize("kind", ["one", "buckets"])
def test_a_table_of_more_than_2_gib(tmp_path, kind):
    """Takes 8 GB of memory: a vocabulary of 262,144 by 2,304."""
    made = graph(262_144, 2304)
    edit = Edit(made)
    edit.add_constant("other", np.zeros(3, np.float32))
    edit.sweep()
    if kind == "one":
        quantize.write(made, tmp_path / "model.onnx")
    else:
        npu.write({1: made}, tmp_path)
    read = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert list(read.graph.initializer[0].dims) == [262_144, 2304]
    assert (tmp_path / "model.onnx.data").stat().st_size == 4 * 262_144 * 2304
    assert numpy_helper.to_array(made.graph.initializer[0]).shape == (262_144, 2304)
