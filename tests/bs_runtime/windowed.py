"""Tiny random models some or all of whose layers see a few tokens back."""

from __future__ import annotations

from typing import Any

from transformers import Gemma2Config, Gemma3TextConfig, MistralConfig, Phi3Config, Qwen2Config

from tests.bs_runtime.tiny import SHAPE

WINDOW = 8
CONTEXT = 96
SIZES = {**SHAPE, "max_position_embeddings": CONTEXT}
MIXED: dict[str, Any] = {
    "head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 24,
}
LOCAL = {**SIZES, "sliding_window": WINDOW}
CONFIGS = {
    "gemma3": Gemma3TextConfig(**LOCAL | MIXED),  # two rotary bases
    "gemma2": Gemma2Config(**LOCAL | MIXED, attn_logit_softcapping=2.0),
    "mistral": MistralConfig(**LOCAL),
    "phi3": Phi3Config(**LOCAL),
    "qwen2": Qwen2Config(**LOCAL, use_sliding_window=True, max_window_layers=1),
}
