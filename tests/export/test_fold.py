"""Rescaled channels leave the function as it is, in every architecture that takes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export import calibrate, fold
from export.edit import Edit
from tests.conftest import save_random

# What each has of norms before products, gates before the way down, values before the way out, and
# heads that are their own table. (GPT-2 has no gate, and reshapes its values; Gemma 3 has norms
# behind its products, too.)
FOLDS = {
    "llama": (4, 2, 2, 1),
    "qwen2": (5, 2, 2, 0),
    "qwen3": (4, 2, 2, 1),
    "gemma": (4, 2, 2, 1),
    "gemma3_text": (4, 2, 2, 1),
    "gpt2": (4, 0, 0, 1),
}


def logits(model: onnx.ModelProto, ids: list[int]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = calibrate.feed(session, ids, session.get_inputs()[-1].shape[2])
    return session.run(["logits"], feed)[0]


def kinds(found: list[fold.Fold]) -> tuple[int, ...]:
    norms = [f for f in found if f.norm is not None and f.table is None]
    rows = [f for f in found if f.rows is not None]
    through = [f for f in rows if "GroupQuery" in f.value or not np.array_equal(
        f.spread, np.arange(len(f.spread)))]  # fmt: skip
    return (
        len(norms),
        len(rows) - len(through),
        len(through),
        sum(f.table is not None for f in found),
    )


@pytest.mark.parametrize("architecture", FOLDS)
def test_a_rescaled_graph_is_the_same_function(bundle, tmp_path, tokenizer, architecture):
    if architecture == "gemma3_text":
        from export.bundle import export_bundle

        folder = save_random(
            tmp_path / "model", architecture, tokenizer, sliding_window=64,
            layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=16,
        )  # fmt: skip
        graph = export_bundle(folder, tmp_path / "out", "fp32", context=64).graph
    else:
        graph = bundle(architecture).graph
    model = onnx.load(graph)
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:  # no two norms alike, and biases that are there
        value = numpy_helper.to_array(tensor)
        if value.ndim == 1 and value.dtype == np.float32 and value.size > 1:
            value = value + rng.normal(0, 0.1, value.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    ids = [5, 17, 3, 99, 250, 8]
    before = logits(model, ids)
    edit = Edit(model)
    found = fold.folds(edit)
    assert kinds(found) == FOLDS[architecture]
    for one in found:
        factors = np.exp(rng.normal(0, 1.0, one.spread.max() + 1)).astype(np.float32)
        fold.apply(edit, one, factors)
    edit.sweep()
    after = logits(model, ids)
    assert np.abs(after - before).max() < 1e-5 * max(1.0, np.abs(before).max())


def test_what_others_read_is_left_alone(bundle):
    """A norm whose output is also a result; a gate's value that a second node takes."""
    model = onnx.load(bundle("llama").graph)
    edit = Edit(model)
    first = fold.folds(edit)[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(first.value, 1, None))
    assert first.value not in {one.value for one in fold.folds(Edit(model))}
