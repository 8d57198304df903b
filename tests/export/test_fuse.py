"""The shared graph's nodes: few, and only where the architecture's arithmetic allows it."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from export import rotary
from export.bundle import export_bundle
from export.edit import attributes
from tests.conftest import save_random, sizes


def nodes(path):
    found = onnx.load(path).graph.node
    attention = [node for node in found if node.op_type == "GroupQueryAttention"]
    assert len(attention) == 2
    return Counter(node.op_type for node in found), attention


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma"])
def test_attention_rotates_and_takes_one_packed_product(bundle, architecture):
    kinds, attention = nodes(bundle(architecture).graph)
    for node in attention:
        assert attributes(node)["do_rotary"] == 1
        assert list(node.input[1:3]) == ["", ""] and node.input[7] and node.input[8]
    # Query, key and value; out; gate and up; down. And the head.
    assert kinds["MatMul"] + kinds["FusedMatMul"] == 2 * 4 + 1
    assert kinds["Split"] == 2
    assert not set(kinds) & {"Transpose", "Reshape", "Concat", "Cos", "RotaryEmbedding"}
    assert len({tuple(node.input[7:9]) for node in attention}) == 1  # one pair of tables


def test_norms_between_keep_query_key_and_value_apart_behind_their_product(bundle):
    kinds, attention = nodes(bundle("qwen3").graph)
    for node in attention:
        assert attributes(node)["do_rotary"] == 1 and all(node.input[:3])
    assert kinds["MatMul"] + kinds["FusedMatMul"] == 2 * 4 + 1
    assert kinds["Split"] == 2 * 2


def test_joined_products_keep_their_biases(tmp_path, tokenizer):
    """The check would fail if a bias were lost, or went to another product."""
    folder = save_random(tmp_path / "model", "qwen3", tokenizer, attention_bias=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name, values in model.named_parameters():
        if name.endswith("proj.bias"):
            torch.nn.init.normal_(values)
    model.save_pretrained(folder)
    kinds, _ = nodes(export_bundle(folder, tmp_path / "out", "fp32").graph)
    assert kinds["Split"] == 2 * 2


def test_learned_positions_need_no_rotation(bundle):
    _, attention = nodes(bundle("gpt2").graph)
    assert all(attributes(node)["do_rotary"] == 0 for node in attention)


@pytest.mark.parametrize("architecture", ["cohere", "gpt_neox"])
def test_another_rotation_stays_outside(tmp_path, tokenizer, architecture):
    """Cohere rotates neighbours, GPT-NeoX a quarter of the head; the check holds for both."""
    folder = save_random(tmp_path / "model", architecture, tokenizer)
    made = export_bundle(folder, tmp_path / "out", "fp32")
    _, attention = nodes(made.graph)
    assert all(attributes(node)["do_rotary"] == 0 for node in attention)


@pytest.mark.parametrize("scaling", ["yarn", "llama3", "linear", "dynamic"])
def test_scaled_rotations_are_in_the_tables(tmp_path, tokenizer, scaling):
    """The check would fail if the operator's tables were not the model's own."""
    rope = {"rope_type": scaling, "factor": 4.0}
    if scaling in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = 32
    if scaling == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    folder = save_random(tmp_path / "model", "llama", tokenizer, rope_scaling=rope)
    made = export_bundle(folder, tmp_path / "out", "fp32")
    assert all(attributes(node)["do_rotary"] == 1 for node in nodes(made.graph)[1])


def test_the_model_is_itself_again():
    """Also when tracing fails under way."""
    config = AutoConfig.for_model("llama", vocab_size=300, **sizes("llama"))
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(ZeroDivisionError), rotary.inside_attention(model, 128, 16, print) as on:
            assert on
            raise ZeroDivisionError
        assert torch.equal(model(ids).logits, before)
