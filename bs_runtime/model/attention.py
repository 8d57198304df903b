"""Attention of a step's packed sessions, as a backend of transformers.

Each session is one sequence behind its own KV slot, so its mask follows from two lengths: there is
no padding, nothing of one session is looked at by another, and keys and values are read where they
are cached. (transformers' default builds a mask for every forward and copies keys and values once
per query head that shares them; for a short draft that costs a third of the forward.) Nothing here
waits for a GPU: all lengths are known to the host.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

NAME = "draftlink"


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of packed tokens: query (1, heads, tokens, d) to (1, tokens, heads, d).

    ``key`` and ``value``, (1, kv heads, tokens, d), are in the slots by now; ``key`` tells which
    (see ``engine.StepCache``). transformers makes no mask for a backend that registers none, so
    ``attention_mask`` is None. The None that is returned stands for the weights.
    """
    step, layer = key.step  # type: ignore[attr-defined]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return step.attend(layer, query, key.shape[1], scale), None


AttentionInterface.register(NAME, attend)
