"""What cannot be a draft is refused, in one line that says why."""

from __future__ import annotations

import json
import sys

import pytest
from transformers import BertConfig, T5Config

import tinypair
from export import ExportError, source
from export.bundle import export_bundle
from tests.conftest import needs_portable, save_random


def refused(folder, tmp_path, **options):
    with pytest.raises(ExportError) as caught:
        export_bundle(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_no_folder(tmp_path):
    assert "there is no folder" in refused(tmp_path / "nowhere", tmp_path)
    assert "has no config.json" in refused(tmp_path, tmp_path / "x")


def test_no_hub(tmp_path, monkeypatch):
    # Not HF_HUB_OFFLINE: a session that is made in offline mode is kept by its thread's number,
    # which a thread of a later test may have.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "check the name and the network" in refused("no-one/no-such-model", tmp_path)


def test_other_kinds_of_model(tmp_path, tokenizer):
    T5Config(vocab_size=300, architectures=["T5ForConditionalGeneration"]).save_pretrained(
        tmp_path / "t5"
    )
    assert "encoder-decoder" in refused(tmp_path / "t5", tmp_path)
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, architectures=["BertForMaskedLM"],
    )  # fmt: skip
    config.save_pretrained(tmp_path / "bert")
    assert "not a decoder-only language model" in refused(tmp_path / "bert", tmp_path)


def test_broken_folders(tmp_path, tokenizer):
    folder = save_random(tmp_path / "model", "llama", tokenizer)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    assert "cannot load the weights" in refused(folder, tmp_path)
    (folder / "model.safetensors").unlink()
    assert "cannot load the weights" in refused(folder, tmp_path)
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(folder, tmp_path)
    (folder / "config.json").write_text("{")
    assert "cannot read" in refused(folder, tmp_path)


def test_missing_weights(tmp_path, tokenizer):
    """transformers would fill them with random numbers."""
    folder = save_random(tmp_path / "model", "llama", tokenizer)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "lack model.layers.2" in refused(folder, tmp_path)


def test_a_context_beyond_the_models(model_folder, tmp_path):
    for context in (0, 4096):
        text = refused(model_folder("llama"), tmp_path, context=context)
        assert "between 1 and the model's 128" in text


def test_recurrent_states(tmp_path, tokenizer):
    folder = save_random(
        tmp_path / "mamba", "mamba", tokenizer, num_hidden_layers=1, state_size=4, hidden_size=16
    )
    assert "recurrent state that cannot be rolled back" in refused(folder, tmp_path)


def test_layers_of_another_kind(model_folder):
    model, _ = source.load(model_folder("llama"))
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ExportError, match=r"linear_attention \(llama\) keep a state that"):
        source.context(model, None)


def test_long_rope_ends_where_its_frequencies_change(model_folder):
    model, _ = source.load(model_folder("llama"))
    model.config.rope_scaling = {"rope_type": "longrope"}
    model.config.original_max_position_embeddings = 32
    assert source.context(model, None) == 32


def test_no_context_length(model_folder):
    model, _ = source.load(model_folder("llama"))
    object.__setattr__(model.config, "max_position_embeddings", None)  # which 5.x looks at
    with pytest.raises(ExportError, match="llama states no context length; give one with --cont"):
        source.context(model, None)
    assert source.context(model, 64) == 64


@needs_portable
def test_an_architecture_without_the_graph(tmp_path, tokenizer):
    """CodeGen has no attention interface, and optimum does not know StarCoder 2."""
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8}
    folder = save_random(tmp_path / "codegen", "codegen", tokenizer, **sizes)
    text = refused(folder, tmp_path, context=64)
    assert text.startswith("CodeGenForCausalLM has no shared graph")
    assert text.endswith("try --graph portable")
    made = export_bundle(folder, tmp_path / "out", graph="portable", context=64)
    assert made.manifest.check.passed
    other = save_random(tmp_path / "other", "starcoder2", tokenizer)
    assert "has no portable graph" in refused(other, tmp_path / "x", graph="portable")


def test_another_tokenizer_than_the_targets(model_folder, tokenizer, tmp_path):
    """Padded logits are no difference; the first differing entries are told."""
    words = refused(model_folder("llama"), tmp_path, target=tinypair.TARGET)
    assert "the draft's tokenizer is not that of" in words
    assert " against " in words and "more of this kind" in words
    other = save_random(tmp_path / "padded", "llama", tokenizer, vocab_size=320)
    source.check_target(source.load(model_folder("llama"))[1], other)


def test_the_portable_graph_names_its_extra(model_folder, tmp_path, monkeypatch):
    """Before the model is loaded, which takes minutes."""
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    monkeypatch.setattr(source, "load", None)
    text = refused(model_folder("llama"), tmp_path, graph="portable")
    assert "the portable graph needs optimum-onnx" in text
    assert "pip install 'draftlink[portable]'" in text and "or export another graph" in text


def test_gguf_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(64))
    text = refused(tmp_path / "x.gguf", tmp_path)
    assert "reading a GGUF file needs gguf: pip install 'draftlink[gguf]'" in text
