"""A head that takes its input in another basis is the same function, in every architecture."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import calibrate, fold, rotate, smooth, source
from export.bundle import export_bundle
from export.calibrate import vocabulary
from export.edit import Edit
from export.products import PASSED, Product, products, tables
from tests.conftest import save_random
from tests.export.test_fold import logits

IDS = [5, 17, 3, 99, 250, 8]
# Whether an architecture's table is its head.
TIED = {
    "llama": True,
    "qwen2": False,  # biases on query, key and value
    "gemma": True,  # what is embedded is scaled
    "llama with biases": False,
    "gemma3_text": True,  # norms behind products
    "gpt2": True,  # norms that centre, learnt positions
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
    assert np.array_equal(basis, basis.T)  # so it turns back, too
    assert np.abs(basis).max() <= np.sqrt(2 / size) + 1e-12
    if size > 3:
        signs = np.random.default_rng(1).choice([-1.0, 1.0], (size, size)) / np.sqrt(size)
        assert np.abs(signs.T @ signs - np.eye(size)).max() > 0.1


def head_of(edit: Edit) -> Product:
    (found,) = (one for one in products(edit) if one.source and one.shape[0] == vocabulary(edit))
    return found


def turn(model: onnx.ModelProto) -> tuple[str, str]:
    """The graph with its head rotated; the names of what it takes and of what is gathered."""
    edit = Edit(model)
    head = head_of(edit)
    table = tables(edit)[head.stored] if head.tied else None
    taken = rotate.rotate(edit, head, table)
    edit.sweep()
    return taken, "" if table is None else table.output[0]


@pytest.mark.parametrize("architecture", TIED)
def test_a_turned_graph_is_the_same_function(graph, architecture):
    """And the control: without what turns the head's input it is another one."""
    model = graph(architecture)
    before, edit = logits(model, IDS), Edit(model)
    weights = {one.name: one.weight.copy() for one in products(edit) if one.source}
    head = head_of(edit).name
    taken, _ = turn(model)
    least = 1e-5 * max(1.0, np.abs(before).max())
    assert np.abs(logits(model, IDS) - before).max() < least
    edit = Edit(model)
    after = {one.name: one for one in products(edit) if one.source}
    assert after.keys() == weights.keys() and after[head].tied == TIED[architecture]
    same = {name for name in weights if np.array_equal(weights[name], after[name].weight)}
    assert same == weights.keys() - {head}
    maker = edit.maker[taken]
    maker.CopyFrom(onnx.helper.make_node("Identity", [maker.input[0]], [taken]))
    assert np.abs(logits(model, IDS) - before).max() > 100 * least


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "llama with biases"])
def test_turned_values_are_the_same_function(graph, architecture):
    """Biases with them. The control: rows that are turned, and nobody turns back."""
    model = graph(architecture)
    before, edit = logits(model, IDS), Edit(model)
    turned = [one for one in fold.folds(edit) if one.heads]
    weights = [fold.weight(edit, one.readers[0]).copy() for one in turned]
    assert len(turned) == 2
    for one in turned:
        rotate.rotate_values(edit, one, len(one.spread) // one.heads)
    least = 1e-5 * max(1.0, np.abs(before).max())
    assert np.abs(logits(model, IDS) - before).max() < least
    for one, weight in zip(turned, weights, strict=True):
        assert not np.allclose(fold.weight(edit, one.readers[0]), weight, atol=1e-2)
        fold.change_weight(edit, one.readers[0], lambda _, old=weight: old)
    assert np.abs(logits(model, IDS) - before).max() > 100 * least


def test_the_sample_turns_with_the_graph(bundle, model_folder, tmp_path, monkeypatch):
    """Rows that are gathered, and what a change of them costs, are in one basis."""
    monkeypatch.setattr(smooth, "TURNS", (True,))  # what is small here gains nothing by it
    path = bundle("llama").graph
    model, rows = onnx.load(path), [IDS * 5, IDS[::-1] * 5]
    loaded = source.load(model_folder("llama"))[0]
    seen = calibrate.sample(path, loaded, rows, 2, tmp_path)
    edit = Edit(model)
    head, value = head_of(edit), edit.behind(head_of(edit).source, PASSED)
    gathered = tables(edit)[head.stored].output[0]
    before, slope = head.weight.copy(), seen.gradients[gathered].copy()
    told = smooth.smooth(model, seen, 8, 64)
    assert told[value].endswith("rotated")
    edit = Edit(model)
    head = head_of(edit)
    turned = seen.inputs[edit.behind(head.source, PASSED)] @ head.weight.T
    assert np.allclose(turned, calibrated_logits(path, loaded, rows), atol=1e-4)
    after = seen.gradients[tables(edit)[head.stored].output[0]]
    assert np.allclose(after @ head.weight.T, slope @ before.T, atol=1e-5)


def calibrated_logits(path, loaded, rows) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return np.concatenate([loaded(torch.tensor([row])).logits[0].numpy() for row in rows])
