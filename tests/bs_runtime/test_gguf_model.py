"""A GGUF file is the model that it was made of, or is refused by the name of what is not known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_config import read_gguf_config
from bs_runtime.checkpoint.gguf_file import open_gguf
from bs_runtime.checkpoint.gguf_model import load_gguf_model
from bs_runtime.checkpoint.words import read_gguf_words
from tests.device_runtime.tokenizers_by_kind import gpt2
from tests.gguf_files import TEMPLATE, write

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 777.0,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_hidden_layers": 2, "head_dim": 16}),
    "qwen2": ("qwen2", {"num_hidden_layers": 2, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"num_hidden_layers": 2, "tie_word_embeddings": False}),
    "gemma2": ("gemma2", {
        "num_hidden_layers": 4, "query_pre_attn_scalar": 32, "sliding_window": 9,
    }),
    "gemma3": ("gemma3_text", {
        "num_hidden_layers": 7, "query_pre_attn_scalar": 32, "sliding_window": 9,
    }),
}  # fmt: skip
IDS = torch.arange(3, 43)[None]
WORDS = gpt2()


def source(architecture: str, **changes: Any) -> Any:
    kind, own = KINDS[architecture]
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, **SHAPE | own | {"vocab_size": WORDS.get_vocab_size()} | changes
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases, too, are apart from where they begin.
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def load(path: Path, **options: Any) -> Any:
    file = open_gguf(path)
    config = read_gguf_config(file)
    return load_gguf_model(file, config, attn_implementation="eager", **options).eval()


def rows(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS, use_cache=False).logits[0].float()


@pytest.mark.parametrize("architecture", KINDS)
def test_it_is_the_model_that_it_was_made_of(architecture, tmp_path):
    model = source(architecture)
    path = write(tmp_path / "x.gguf", architecture, model, WORDS)
    found = load(path, dtype=torch.float32)
    torch.testing.assert_close(rows(found), rows(model), rtol=0, atol=1e-5)
    assert found.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert load(path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16"])
def test_quantized_weights_are_what_their_blocks_say(name, tmp_path):
    model, kind = source("llama"), gguf.GGMLQuantizationType[name]
    path = write(tmp_path / "x.gguf", "llama", model, WORDS, quantization=kind)
    found = load(path, dtype=torch.float32)
    for key, weight in found.state_dict().items():
        expected = model.state_dict()[key].numpy()
        if expected.ndim == 2:
            expected = gguf.dequantize(gguf.quantize(expected, kind), kind)
        if "q_proj" not in key and "k_proj" not in key:  # whose rows were quantized elsewhere
            np.testing.assert_array_equal(weight.numpy(), expected)


SCALINGS = {
    "linear": (
        lambda w: (w.add_string("llama.rope.scaling.type", "linear"),
                   w.add_float32("llama.rope.scaling.factor", 4.0)),
        {"rope_type": "linear", "factor": 4.0},
    ),
    "yarn": (
        lambda w: (w.add_string("llama.rope.scaling.type", "yarn"),
                   w.add_float32("llama.rope.scaling.factor", 4.0),
                   w.add_uint32("llama.rope.scaling.original_context_length", 32)),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    ),
    "llama 3": (
        lambda w: w.add_tensor("rope_freqs.weight", llama_3_divisors(8.0)),
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192},
    ),
}  # fmt: skip


def llama_3_divisors(factor: float, size: int = 16) -> np.ndarray:
    """As llama.cpp's converter computes them."""
    found = []
    for i in range(0, size, 2):
        length = 2 * math.pi * 50_000.0 ** (i / size)
        smooth = (8192 / length - 1.0) / (4.0 - 1.0)
        found.append(
            1.0 if length < 8192 / 4.0 else factor if length > 8192 / 1.0
            else 1 / ((1 - smooth) / factor + smooth)
        )  # fmt: skip
    return np.array(found, np.float32)


@pytest.mark.parametrize("name", SCALINGS)
def test_a_scaled_rotary_embedding(name, tmp_path):
    more, scaling = SCALINGS[name]
    theta = {"rope_theta": 50_000.0}
    model, plain = source("llama", rope_scaling=scaling, **theta), source("llama", **theta)
    found = load(write(tmp_path / "x.gguf", "llama", model, WORDS, more=more), dtype=torch.float32)
    torch.testing.assert_close(rows(found), rows(model), rtol=0, atol=1e-5)
    assert (rows(plain) - rows(model)).abs().max() > 1e-4  # the control


def test_the_words_come_along(tmp_path):
    def more(writer: gguf.GGUFWriter) -> None:
        writer.add_chat_template(TEMPLATE)
        writer.add_eot_token_id(7)
        writer.add_float32("general.sampling.temp", 0.5)
        writer.add_int32("general.sampling.top_k", 20)

    words = gpt2()
    words.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    model = source("llama", vocab_size=words.get_vocab_size())
    path = write(tmp_path / "x.gguf", "llama", model, words, more=more, eos=0, bos=0)
    found, read = load(path, dtype=torch.float32), read_gguf_words(open_gguf(path))
    generation = found.generation_config
    assert generation.eos_token_id == [0, 7]
    read.end_texts(generation)
    assert generation.eos_token_id == [0, 7, words.token_to_id("<|im_end|>")]
    assert (generation.temperature, generation.top_k, generation.do_sample) == (0.5, 20, True)
    assert read.template == TEMPLATE
    assert read.tokens == {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def refused(path: Path, architecture: str = "llama", more: Any = lambda w: None) -> str:
    model = source(architecture)
    with pytest.raises(CheckpointError) as caught:
        read_gguf_config(open_gguf(write(path, architecture, model, WORDS, more=more)))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_not_known_is_refused_by_its_name(tmp_path):
    path = tmp_path / "x.gguf"
    extra = np.zeros(64, np.float32)
    for words, more in {
        "llama.attention.scale, which is not known": lambda w: w.add_attention_scale(0.5),
        "llama.expert_count, which is not known": lambda w: w.add_expert_count(8),
        "tensor blk.0.attn_q.bias, which llama has no place for": lambda w: w.add_tensor(
            "blk.0.attn_q.bias", extra
        ),
        "tensor blk.2.attn_norm.weight, which llama": lambda w: w.add_tensor(
            "blk.2.attn_norm.weight", extra
        ),
        "rope.scaling.type longrope is not read": lambda w: w.add_string(
            "llama.rope.scaling.type", "longrope"
        ),
        "rope_freqs.weight is not Llama 3's scaling": lambda w: w.add_tensor(
            "rope_freqs.weight", np.linspace(1, 9, 8, dtype=np.float32)
        ),
        "rope.dimension_count is 8 and not 16": lambda w: w.add_rope_dimension_count(8),
        "vocab_size is 9 and not": lambda w: w.add_vocab_size(9),
        "of type adapter, not a model": lambda w: w.add_type("adapter"),
        "one part of several": lambda w: w.add_uint16("split.count", 2),
    }.items():
        assert words in refused(path, more=more)

    def changed(key: str, value: Any) -> Any:
        def more(writer: gguf.GGUFWriter) -> None:
            if value is None:
                del writer.kv_data[0][key]
            else:
                writer.kv_data[0][key].value = value

        return more

    assert "its architecture rwkv is not read; llama, qwen2" in refused(
        path, more=changed("general.architecture", "rwkv")
    )
    assert "does not say its llama.embedding_length" in refused(
        path, more=changed("llama.embedding_length", None)
    )
    assert "does not say its llama.attention.head_count" in refused(
        path, more=changed("llama.attention.head_count", 0)
    )
    assert "too few for its 16777215 layers" in refused(
        path, more=changed("llama.block_count", (1 << 24) - 1)
    )
    assert "lacks the tensor blk.2" not in refused(path, more=changed("llama.block_count", 3))
    assert "has the shape (96, 64), not (97, 64)" in refused(
        path, more=changed("llama.feed_forward_length", 97)
    )


def test_a_quantization_that_nobody_reads_is_refused(tmp_path):
    def more(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("output.weight", np.zeros((WORDS.get_vocab_size(), 64), np.float64))

    path = tmp_path / "x.gguf"
    write(path, "llama", source("llama", tie_word_embeddings=True), WORDS, more=more)
    with pytest.raises(CheckpointError, match="its quantization F64 is not read"):
        read_gguf_config(open_gguf(path))
