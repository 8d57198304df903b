"""Rounding in blocks, and what the operators make of the stored codes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import quantize, rounding
from export.rounding import Rounding, block_for, nearest
from tests.conftest import GRAPHS


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [32, 64, 80, 300])
def test_no_weight_moves_by_more_than_its_step_allows(bits, width):
    weight = np.random.default_rng(0).normal(size=(7, width)).astype(np.float32)
    weight[0] = 0
    block = 256
    made = nearest(weight, Rounding(bits, block))
    code, scale = made.code, made.step
    assert code.shape == (7, -(-width // block), block) and code.max() < 2**bits
    found = made.values()
    step = np.abs(np.repeat(scale, block, axis=1)[:, :width])
    half = 2 ** (bits - 1)
    # Half a step, and for the clipped few the distance to the last code.
    allowed = np.maximum(step / 2, np.abs(weight) - (half - 1) * step)
    assert (np.abs(found - weight) <= allowed * (1 + 1e-5)).all()
    assert (found[0] == 0).all()


def test_a_clipped_step_loses_less(monkeypatch):
    weight = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    best = np.square(nearest(weight, Rounding(4, 256)).values() - weight).sum()
    monkeypatch.setattr(rounding, "SHARES", (1.0,))
    plain = np.square(nearest(weight, Rounding(4, 256)).values() - weight).sum()
    assert best < 0.97 * plain


def test_zero_points_lose_less_where_weights_are_of_one_sign():
    weight = np.random.default_rng(0).uniform(0.5, 1.0, size=(50, 64)).astype(np.float32)
    errors = [
        np.square(nearest(weight, Rounding(4, 32, zero)).values() - weight).sum()
        for zero in (False, True)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("bits", "zero_points"), [(4, False), (4, True), (8, False), (8, True)])
def test_the_operators_see_the_rounded_weights(bits, zero_points):
    """Table, tied head, plain product, Gemm with a bias: all equal to the sums on rounded weights.

    The activations are small integers, for which rounding them to 8 bits changes nothing.
    """
    rng = np.random.default_rng(1)
    table = rng.normal(size=(90, 64)).astype(np.float32)
    inner = rng.normal(size=(64, 48)).astype(np.float32)
    bias = rng.normal(size=48).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["head"]),
        helper.make_node("Gemm", ["x", "inner", "bias"], ["gemm"]),
        helper.make_node("MatMul", ["x", "inner"], ["product"]),
        helper.make_node("Add", ["bias", "product"], ["sum"]),
    ]
    outputs = ["embedded", "head", "gemm", "sum"]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [3]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("table", table), ("inner", inner), ("bias", bias))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def coder(one):
        block = block_for(one.shape[1], 32)  # a rest of half a block in rows of 48
        return nearest(one.weight, Rounding(bits, block, zero_points and not one.tied))

    quantize.quantize(model, coder)
    kinds = sorted(node.op_type for node in model.graph.node)
    assert kinds == ["GatherBlockQuantized", *["MatMulNBits"] * 3, "Reshape"]
    stored = [tensor for tensor in model.graph.initializer if tensor.dims[0] == 90]
    assert len(stored) == 2  # the tied table's codes and scales, once
    session = ort.InferenceSession(
        onnx.ModelProto.SerializeToString(model), providers=["CPUExecutionProvider"]
    )
    x = rng.integers(-3, 4, size=(2, 64)).astype(np.float32)
    x[:, ::32] = 127  # every block's scale is 1
    ids = np.array([4, 0, 89])
    embedded, head, gemm, total = session.run(outputs, {"input_ids": ids, "x": x})
    rows = nearest(table, Rounding(bits, 32)).values()
    columns = nearest(inner.T, Rounding(bits, 32, zero_points)).values().T
    assert np.abs(embedded - rows[ids]).max() < 1e-6
    assert np.abs(head - x @ rows.T).max() < 1e-3
    assert np.abs(gemm - (x @ columns + bias)).max() < 1e-3
    assert np.array_equal(gemm, total)


def test_rows_are_quantized_alike_in_any_number(monkeypatch):
    weight = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    whole = nearest(weight, Rounding(4, 256)).values()
    monkeypatch.setattr(rounding, "ROWS", 7)
    assert np.array_equal(nearest(weight, Rounding(4, 256)).values(), whole)


def test_what_is_no_plain_product_stays():
    """A scaled product, two computed operands, a table with rows of 40: none is touched."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Gemm", ["x", "inner"], ["scaled"], alpha=2.0),
        helper.make_node("MatMul", ["x", "y"], ["computed"]),
    ]
    values = {"table": np.ones((90, 40)), "inner": np.ones((64, 48))}
    sizes = {"x": [2, 64], "y": [64, 2]}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [3])]
        + [helper.make_tensor_value_info(n, TensorProto.FLOAT, size) for n, size in sizes.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in ("embedded", "scaled", "computed")
        ],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    quantize.quantize(
        model, lambda one: nearest(one.weight, Rounding(8, block_for(one.shape[1], 256)))
    )
    assert [node.op_type for node in model.graph.node] == ["Gather", "Gemm", "MatMul"]


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_every_matrix_of_a_model_is_found(bundle, architecture, kind):
    """None stays in float32, and of tied weights one table is left."""
    made = bundle(architecture, "int4", kind)
    graph = onnx.load(made.graph).graph
    weights = graph.initializer
    rows = made.manifest.vocab_size
    tables = [t for t in weights if t.data_type == TensorProto.UINT8 and t.dims[0] == rows]
    assert len(tables) == (2 if architecture == "qwen2" else 1)
    floats = [t for t in weights if t.data_type == TensorProto.FLOAT and len(t.dims) == 2]
    attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    rotation = {name for node in attention for name in node.input[7:9]}
    # What turns the head's input, and back what its table embeds: (width, width), where it gains.
    bases = {t.name for t in floats if t.name.endswith(".basis") and list(t.dims) == [64, 64]}
    assert len(bases) <= len(tables) + 1 and not (bases and kind == "portable")
    left = {t.name for t in floats if not t.name.endswith(".scale")} - rotation - bases
    assert len(left) == (architecture == "gpt2")  # its table of positions
