"""Small GGUF files, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer

NAMES = {  # transformers' name of a tensor to GGUF's
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PLAIN = {"post_attention_layernorm": "ffn_norm"}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


def tensors(model: Any, architecture: str) -> dict[str, np.ndarray]:
    """A transformers model's weights, in GGUF's names and its order of rotated rows."""
    gemma, config = architecture.startswith("gemma"), model.config
    names = NAMES | (GEMMA if gemma else PLAIN)
    found = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        layer = re.match(r"model\.layers\.(\d+)\.(.+)", stem)
        called = f"blk.{layer[1]}.{names[layer[2]]}" if layer else names[stem]
        array = weight.float().numpy()
        if gemma and "norm" in called:
            array = array + 1
        if (
            architecture == "llama"
            and layer
            and layer[2] in ("self_attn.q_proj", "self_attn.k_proj")
        ):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            halves = array.reshape(heads, 2, -1, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        found[f"{called}.{suffix}"] = np.ascontiguousarray(array)
    return found


def describe(writer: gguf.GGUFWriter, config: Any) -> None:
    """The keys of the architecture, from a transformers configuration."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.rope_theta)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    if config.model_type.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)


def words(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    model: str,
    pre: str,
    scores: dict[str, float] | None = None,
    **ids: int,
) -> None:
    """A tokenizer's vocabulary and merges; ``ids``: special ones, such as ``eos``."""
    whole = json.loads(tokenizer.to_str())
    added = {token["id"]: token for token in whole["added_tokens"]}
    vocab = {index: token for token, index in tokenizer.get_vocab(with_added_tokens=True).items()}
    rows = range(max(vocab) + 1)
    uses = []
    for index in rows:
        if index not in vocab:
            uses.append(gguf.TokenType.UNUSED)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", vocab[index]):
            uses.append(gguf.TokenType.BYTE)
        elif index not in added:
            uses.append(gguf.TokenType.NORMAL)
        else:
            special = added[index]["special"]
            uses.append(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
    tokens = [vocab.get(index, f"[PAD{index}]") for index in rows]
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(uses)
    if scores is None:
        writer.add_token_merges(
            [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"]["merges"]]
        )
    else:
        writer.add_token_scores([scores.get(token, -1000.0) for token in tokens])
    for name, index in ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)


def write(
    path: Path,
    architecture: str,
    model: Any,
    tokenizer: Tokenizer,
    kind: tuple[str, str] = ("gpt2", "smollm"),
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    **special: Any,
) -> Path:
    """A model with its tokenizer, matrices quantized; ``more`` adds keys and tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    describe(writer, model.config)
    words(writer, tokenizer, *kind, **special)
    more(writer)
    for name, array in tensors(model, architecture).items():
        if array.ndim == 1 or quantization == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, array)
        else:
            blocks = gguf.quantize(array, quantization)
            writer.add_tensor(name, blocks, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
