"""A turned basis leaves the function as it is, wherever there is one that can be turned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import rotate
from export.bundle import export_bundle
from export.edit import Edit
from export.products import products
from tests.conftest import save_random
from tests.export.test_fold import logits

IDS = [5, 17, 3, 99, 250, 8]
# Whether an architecture's stream may be turned, and whether its table stays the head's.
TURNED = {
    "llama": (True, True),  # tied
    "qwen2": (True, False),  # a head of its own; biases on query, key and value
    "qwen3": (True, True),  # norms of query and key, which are none of the stream's
    "gemma": (True, True),  # what is embedded is scaled
    "llama with biases": (True, False),  # biases on the way out and down, too
    "gemma3_text": (False, True),  # norms behind products
    "gpt2": (False, True),  # norms that centre, learnt positions
}
CHANGES = {
    "gemma3_text": {
        "sliding_window": 64, "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "llama with biases": {
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
        "hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def graph(bundle, tmp_path_factory, tokenizer):
    """A function to a float graph of an architecture, with gains and biases that are there."""

    def make(name: str) -> onnx.ModelProto:
        if name in CHANGES:
            home = tmp_path_factory.mktemp("rotated")
            folder = save_random(home / "model", name.split()[0], tokenizer, **CHANGES[name])
            model = onnx.load(export_bundle(folder, home / "out", "fp32", context=64).graph)
        else:
            model = onnx.load(bundle(name).graph)
        rng = np.random.default_rng(0)
        for tensor in model.graph.initializer:
            value = numpy_helper.to_array(tensor)
            if value.ndim == 1 and value.dtype == np.float32 and value.size > 1:
                value = value + rng.normal(0, 0.1, value.shape).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return model

    return make


@pytest.mark.parametrize("size", [1, 2, 3, 16, 48, 64, 576, 640, 896])
def test_the_basis_is_orthogonal_and_flat(size):
    """In float64 to the last digits; the control is a matrix of such entries with random signs."""
    basis = rotate.orthogonal(size)
    assert np.abs(basis.T @ basis - np.eye(size)).max() < 1e-12
    assert np.abs(basis).max() <= np.sqrt(2 / size) + 1e-12
    if size > 3:
        signs = np.random.default_rng(1).choice([-1.0, 1.0], (size, size)) / np.sqrt(size)
        assert np.abs(signs.T @ signs - np.eye(size)).max() > 0.1


@pytest.mark.parametrize("architecture", TURNED)
def test_a_turned_graph_is_the_same_function(graph, architecture):
    model = graph(architecture)
    before = logits(model, IDS)
    weights = {one.name: one.weight.copy() for one in products(Edit(model)) if one.source}
    turned, shared = TURNED[architecture]
    assert rotate.rotate(model, {}) == turned
    assert np.abs(logits(model, IDS) - before).max() < 1e-5 * max(1.0, np.abs(before).max())
    after = {one.name: one for one in products(Edit(model)) if one.source}
    assert after.keys() == weights.keys()
    same = {name for name in weights if np.allclose(weights[name], after[name].weight)}
    assert bool(same) != turned, "all products have other weights, or some have the same"
    assert any(one.tied for one in after.values()) == shared


def test_gradients_turn_with_their_outputs(graph):
    """What a change of an output costs is the same in the new basis: g · d = gQ · dQ."""
    model = graph("llama")
    edit = Edit(model)
    table = edit.maker["embedding"]
    old = {one.name: one.weight.copy() for one in products(edit) if one.source}
    (head,) = (one.name for one in products(edit) if one.tied)
    downs = [name for name, weight in old.items() if weight.shape == (64, 96)]
    rng = np.random.default_rng(0)
    before = {name: rng.normal(size=(1, 64)).astype(np.float32) for name in [*downs, "embedding"]}
    after = dict(before)
    assert table.output[0] == "embedding" and rotate.rotate(model, after)
    new = {one.name: one.weight for one in products(Edit(model)) if one.source}
    for name in downs:  # what goes into them is in no basis but its own
        assert np.allclose(before[name] @ old[name], after[name] @ new[name], atol=1e-5)
        assert not np.allclose(before[name] @ old[name], before[name] @ new[name], atol=0.1)
    gathered = after[table.output[0]] @ new[head].T
    assert np.allclose(before["embedding"] @ old[head].T, gathered, atol=1e-5)
