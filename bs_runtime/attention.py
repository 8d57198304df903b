"""Attention for one sequence behind its own KV cache, as a backend of transformers.

transformers' default builds a mask for every forward and copies the keys and values once per query
head that shares them; for a short draft that costs as much as a third of the forward. A slot is
one sequence without padding, so the mask follows from the two lengths alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "draftlink"


@lru_cache(maxsize=2)  # every layer of a forward asks for the same one
def causal_mask(rows: int, length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(rows, length): 0 where the last ``rows`` of ``length`` positions may look, else -inf."""
    mask = torch.full((rows, length), float("-inf"), dtype=dtype, device=device)
    return mask.triu_(length - rows + 1)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention: query (1, heads, rows, d), key and value (1, kv heads, length, d).

    Returns (1, rows, heads, d), and None for the weights. transformers makes no mask for a
    backend that registers none, so ``attention_mask`` is None.
    """
    rows, length = query.shape[2], key.shape[2]
    if 1 < rows < length:
        attention_mask = causal_mask(rows, length, query.dtype, query.device)
    out = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=1 < rows == length,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
