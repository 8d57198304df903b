"""Tiny random models of the decoder-only architectures that transformers can build."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.bs_runtime.tiny import CONTEXT, SHAPE

# What configurations call their sizes, beside ``SHAPE``; each takes those that it knows.
SIZES: dict[str, Any] = {
    "head_dim": 16,
    "sliding_window": CONTEXT,
    "use_sliding_window": False,
    "layer_types": ["full_attention"] * 2,
    "is_decoder": True,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "global_attn_every_n_layers": 1,
    **dict.fromkeys(("decoder_layers", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_attention_heads", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("max_seq_len", "n_positions", "n_ctx"), CONTEXT),
    **dict.fromkeys(("d_model", "dim_model", "embed_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("ffn_dim", "dim_feedforward", "decoder_ffn_dim", "n_inner", "dim_ff"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts",), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), 16),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank"), 8),
    "ffn_hidden_size": 48,
    "vocab_size_per_layer_input": SHAPE["vocab_size"],
    "num_kv_shared_layers": 0,
    "rotary_dim": 8,
    "dim_head": 8,
    "kv_channels": 16,
    "zero_expert_num": 0,
}
# Multi-head latent attention: the rotary part of a head is all that a rotation knows.
LATENT = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
# Layers that look at an earlier layer's keys and values.
SHARED = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["full_attention"] * 4,
}
# What a kind needs besides, or wants to be tried with: a name behind a dot tells two of a kind.
OWN: dict[str, dict[str, Any]] = {
    "helium": {"head_dim": 8},
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "longcat_flash"), LATENT),
    "modernbert-decoder": {"pad_token_id": 0},
    **dict.fromkeys(("gemma3n_text.shared", "gemma4_text.shared"), SHARED),
}
LARGEST = 3_000_000  # parameters: more, and a configuration calls its sizes something else


def sized(name: str, **changes: Any) -> Any:
    """A small configuration of a kind, with ``changes``."""
    kind = name.partition(".")[0]
    default = AutoConfig.for_model(kind)
    aliases = getattr(default, "attribute_map", {})
    known = {*default.to_dict(), *aliases, *SHAPE}
    sizes = {key: size for key, size in (SHAPE | SIZES).items() if key in known}
    for alias, key in aliases.items():
        if alias in sizes:
            sizes.pop(key, None)
    return AutoConfig.for_model(kind, **sizes | OWN.get(name, {}) | changes)


def tiny(name: str) -> PreTrainedModel:
    """A random model: ``name`` is a transformers model type, or one with a name behind a dot."""
    config = sized(name)
    with suppress(NotImplementedError), torch.device("meta"):  # some cannot be built there
        meta = AutoModelForCausalLM.from_config(copy.deepcopy(config))
        assert sum(parameter.numel() for parameter in meta.parameters()) <= LARGEST
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model
