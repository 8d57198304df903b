"""Attention that the shared graph cannot take is said to be so; what it can take is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export import ExportError, check, source
from export.bundle import export_bundle, traced
from export.graph import cache_shapes
from tests.architecture_rows import MAJOR
from tests.conftest import CONTEXT, save_random

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}


@pytest.fixture
def made(tmp_path, tokenizer):
    """A function from an architecture and changes to a float graph."""

    def make(kind, scratch=tmp_path, **changes):
        model, _ = source.load(save_random(tmp_path / kind, kind, tokenizer, **changes))
        return traced(model, "shared", 64, scratch, lambda step: None, 1)

    return make


@pytest.mark.parametrize("size", [20, pytest.param(24, marks=pytest.mark.full)])
def test_heads_of_no_whole_multiple_of_16_are_padded(tmp_path, tokenizer, size):
    folder = save_random(tmp_path / "model", "llama", tokenizer, head_dim=size)
    manifest = export_bundle(folder, tmp_path / "out", "fp32", context=64).manifest
    assert manifest.head_dim == 32
    assert manifest.check.max_logit_difference < check.MAX_FP32_DIFFERENCE


@pytest.mark.skipif(MAJOR >= 5, reason="they use transformers' attention interface there")
@pytest.mark.parametrize("kind", ["stablelm", pytest.param("nemotron", marks=pytest.mark.full)])
def test_attention_of_a_models_own_is_not_counted_as_ours(made, kind):
    """It is fused into the same node, over no buffer: the graph had no cache."""
    with pytest.raises(ExportError, match=r"\(0 of its 2 layers use transformers' attention int"):
        made(kind)


@pytest.mark.skipif(MAJOR >= 5, reason="they can be traced there")
def test_a_graph_that_cannot_be_traced_is_one_line(made, capfd):
    """torch prints the graph as far as it came: 270 lines of it."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    with pytest.raises(ExportError, match=r"has no shared graph .* try --graph portable") as caught:
        made("qwen3_moe", **experts)
    assert "\n" not in str(caught.value)
    out, err = capfd.readouterr()
    assert "forward" not in out + err


@pytest.mark.skipif(MAJOR >= 5, reason="it caches by layer there")
def test_a_cache_of_a_models_own_form_is_refused(tmp_path, tokenizer):
    folder = save_random(tmp_path / "model", "gpt_bigcode", tokenizer, **GPT2)
    for graph in ("shared", "portable"):
        with pytest.raises(ExportError, match="caches in a form of its own in transformers 4"):
            export_bundle(folder, tmp_path / "out", "fp32", graph=graph)


def test_a_setting_that_the_graph_leaves_out_is_refused_and_says_what_has_it(tmp_path, tokenizer):
    folder = save_random(tmp_path / "model", "gpt2", tokenizer, **GPT2, scale_attn_weights=False)
    if MAJOR >= 5:  # transformers tells its attention of it there
        assert export_bundle(folder, tmp_path / "out", "fp32").manifest.check.passed
        return
    with pytest.raises(ExportError, match="--graph portable may have what this graph leaves out"):
        export_bundle(folder, tmp_path / "out", "fp32")


def test_a_model_of_no_numbers_is_not_called_a_wrong_graph(model_folder, tmp_path):
    model, _ = source.load(model_folder("llama"))
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = np.nan
    with pytest.raises(ExportError, match="the model's own logits are no numbers"):
        cache_shapes(model)


def test_no_memory_is_taken_while_a_long_context_is_traced(monkeypatch, made):
    """The buffers of a million tokens stand in the graph's inputs as one number each."""
    seen = []

    def watched(module, arguments, **_):
        seen.extend(buffer.untyped_storage().nbytes() for buffer in arguments[4])
        raise ValueError("seen")

    monkeypatch.setattr(torch.onnx, "export", watched)
    with pytest.raises(ExportError, match=r"has no shared graph \(seen\)"):
        made("llama")
    assert len(seen) == 4 and max(seen) <= 4
