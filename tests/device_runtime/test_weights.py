"""A graph's weights lie in its bundle, wherever in the graph they are named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import pairwise

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from device_runtime.model import weights
from device_runtime.model.bundle import BundleError

FILES = {"model.onnx": 10_000, "model.onnx.data": 64}
INSIDE = {"location": "model.onnx.data", "offset": "16", "length": "48"}


def tensor(place: dict[str, str]) -> TensorProto:
    made = TensorProto(name="w", data_type=1, dims=[12], data_location=1)
    for key, value in place.items():
        made.external_data.add(key=key, value=value)
    return made


def constant(value: TensorProto) -> NodeProto:
    return onnx.helper.make_node("Constant", [], ["y"], value=value)


def graph(*nodes: NodeProto, weights: tuple[TensorProto, ...] = ()) -> GraphProto:
    return onnx.helper.make_graph(list(nodes), "g", [], [], initializer=list(weights))


def within(node: NodeProto) -> ModelProto:
    """In a subgraph of a subgraph."""
    inner = onnx.helper.make_node("If", ["c"], ["y"], then_branch=graph(node))
    return model(graph(onnx.helper.make_node("If", ["c"], ["y"], else_branch=graph(inner))))


def model(made: GraphProto) -> ModelProto:
    return ModelProto(ir_version=9, graph=made)


def in_function(value: TensorProto) -> ModelProto:
    made = model(graph())
    made.functions.add(name="f").node.append(constant(value))
    return made


def default_of_function(value: TensorProto) -> ModelProto:
    made = model(graph())
    made.functions.add(name="f").attribute_proto.append(AttributeProto(name="a", type=4, t=value))
    return made


def in_training(value: TensorProto) -> ModelProto:
    made = model(graph())
    made.training_info.add().algorithm.initializer.append(value)
    return made


def sparse(value: TensorProto) -> ModelProto:
    made = model(graph())
    made.graph.sparse_initializer.add().indices.CopyFrom(value)
    return made


def sparse_attributes(value: TensorProto) -> ModelProto:
    node = NodeProto(op_type="Constant")
    node.attribute.add(name="a", type=12).sparse_tensors.add().values.CopyFrom(value)
    return model(graph(node))


def tensors_and_graphs(value: TensorProto) -> ModelProto:
    node = NodeProto(op_type="Loop")
    node.attribute.add(name="a", type=9).tensors.append(tensor(INSIDE))
    node.attribute.add(name="b", type=10).graphs.append(graph(weights=(tensor(INSIDE), value)))
    return model(graph(node))


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda value: model(graph(weights=(tensor(INSIDE), value))),
    "sparse initializer": sparse,
    "attribute": lambda value: model(graph(constant(value))),
    "sparse attributes": sparse_attributes,
    "lists of an attribute": tensors_and_graphs,
    "subgraph": lambda value: within(constant(value)),
    "function": in_function,
    "default of a function": default_of_function,
    "training": in_training,
}
OUTSIDE = {
    "above": {"location": "../secret"},
    "absolute": {"location": "/etc/passwd"},
    "below": {"location": "folder/weights"},
    "here, roundabout": {"location": "./model.onnx.data"},
    "not listed": {"location": "link"},
    "the folder": {"location": "."},
    "nothing": {"location": ""},
    "no location": {"offset": "0"},
    "memory": {"location": "*/_ORT_MEM_ADDR_/*", "offset": "140000000000", "length": "8"},
    "long name": {"location": "x" * 5000},
    "behind the end": INSIDE | {"offset": "17"},
    "huge length": INSIDE | {"length": str(1 << 62)},
    "digits": INSIDE | {"length": "9" * 4000},
    "negative": INSIDE | {"offset": "-1"},
    "float": INSIDE | {"length": "1e1"},
    "other digits": INSIDE | {"length": "４"},
    "prepacked": INSIDE | {"prepacked_0": "x|0;8"},
}


def check(tmp_path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    weights.check(path, FILES)


@pytest.mark.parametrize("where", PLACES)
def test_weights_of_the_bundle_may_be_anywhere_in_the_graph(tmp_path, where):
    """The control: the same graph, with a place that is allowed."""
    check(tmp_path, PLACES[where](tensor(INSIDE)).SerializeToString())


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("where", PLACES)
def test_weights_outside_the_bundle_are_refused(tmp_path, where, place):
    data = PLACES[where](tensor(OUTSIDE[place])).SerializeToString()
    with pytest.raises(BundleError, match=r"onnxruntime cannot load .* weights") as caught:
        check(tmp_path, data)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 1000


def test_a_place_that_is_named_twice_is_refused(tmp_path):
    """A reader takes the last key, or the first; and makes one tensor of two halves."""
    twice = tensor(INSIDE)
    twice.external_data.add(key="location", value="../secret")
    with pytest.raises(BundleError, match="has 'location'"):
        check(tmp_path, model(graph(weights=(twice,))).SerializeToString())
    halves = [AttributeProto(name="v", type=4, t=tensor(INSIDE)), AttributeProto(t=tensor({}))]
    raw = b"".join(half.SerializeToString() for half in halves)
    assert AttributeProto.FromString(raw).t.external_data  # of two, one
    with pytest.raises(BundleError, match="AttributeProto has field 5 twice"):
        check(tmp_path, nested(raw, NODE_ATTRIBUTE, GRAPH_NODE, MODEL_GRAPH))


MODEL_GRAPH, GRAPH_NODE, NODE_ATTRIBUTE, ATTRIBUTE_GRAPH = b"\x3a", b"\x0a", b"\x2a", b"\x32"


def nested(data: bytes, *tags: bytes) -> bytes:
    """``data`` as a field in a field in a field, the innermost first."""
    for tag in tags:
        size, length = len(data), []
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        data = tag + bytes([*length, size]) + data
    return data


def test_a_compiled_context_is_refused(tmp_path):
    """Libraries of NPUs and GPUs read the file that it names."""
    node = onnx.helper.make_node("EPContext", [], [], domain="com.microsoft", ep_cache_context="..")
    with pytest.raises(BundleError, match="compiled context"):
        check(tmp_path, model(graph(node)).SerializeToString())


@pytest.mark.parametrize("data", [b"{}", b"\xff" * 20, b"\x3a\x7f", b"\x08", b"\x00\x01", b"\x3d"])
def test_what_is_no_graph_is_refused(tmp_path, data):
    with pytest.raises(BundleError, match=r"cut off|no ONNX graph"):
        check(tmp_path, data)


def test_depth_and_number_cost_little(tmp_path, monkeypatch):
    """A graph in an attribute of a node of a graph, deeper than any stack."""
    deeper = (ATTRIBUTE_GRAPH, NODE_ATTRIBUTE, GRAPH_NODE) * 2_000
    check(tmp_path, nested(b"", *deeper, MODEL_GRAPH))
    place = graph(weights=(tensor({"location": ".."}),)).SerializeToString()
    with pytest.raises(BundleError, match="no file of the bundle"):
        check(tmp_path, nested(place, *deeper, MODEL_GRAPH))
    monkeypatch.setattr(weights, "MAX_FIELDS", 10)
    with pytest.raises(BundleError, match="over 10 fields"):
        check(tmp_path, b"\x08\x01" * 11)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_refused(tmp_path_factory, data):
    with contextlib.suppress(BundleError):
        check(tmp_path_factory.mktemp("any", numbered=True), data)


def test_every_message_that_may_hold_a_tensor_is_known():
    """By onnx's own description of the format, whichever version is here."""
    found: dict[str, dict[int, weights.Child]] = {}
    messages, paths = [[ModelProto.DESCRIPTOR]], []
    while messages:  # all paths without a circle
        path = messages.pop()
        for field in path[-1].fields:
            to = field.message_type
            if to is None or to in path[:-1]:
                continue
            paths.append([*path, to])
            if to not in path:
                messages.append([*path, to])
    for path in paths:
        names = [message.name for message in path]
        if "TensorProto" not in names:
            continue
        for a, b in pairwise(path[: names.index("TensorProto") + 1]):
            for field in a.fields:
                if field.message_type is b:
                    child = weights.Child(b.name, field.is_repeated)
                    found.setdefault(a.name, {})[field.number] = child
    place = TensorProto.DESCRIPTOR.fields_by_name["external_data"]
    known = {name: fields for name, fields in weights.MESSAGES.items() if name != "TensorProto"}
    assert {k: v for k, v in found.items() if k in known} == known
    assert set(weights.MESSAGES["TensorProto"]) == {place.number}
    assert NodeProto.DESCRIPTOR.fields_by_name["op_type"].number == weights.OP_TYPE[1]
    assert set(found) <= set(known) | {"TypeProto", "ValueInfoProto"}
