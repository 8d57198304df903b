"""Rotary position embedding inside the attention operator: ``do_rotary=1`` with two tables.

While the graph is traced, transformers' rotary modules hand out the tables of all positions at
once, and ``apply_rotary_pos_emb`` passes queries and keys through and notes the tables, for the
attention function to give to GroupQueryAttention. That saves some fifteen small nodes a layer.
It is done only where the architecture's own function is shown, on numbers, to be the rotation of
half against half that the operator computes; otherwise the graph keeps transformers' own nodes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

FUNCTION = "apply_rotary_pos_emb"
Tables = tuple[Tensor, Tensor]  # cos, sin: float32 (context, head_dim / 2)


def _is_half_rotation(function: Callable[..., Any]) -> bool:
    """Is ``function(q, k, cos, sin)`` (x₁, x₂) -> (x₁ cos - x₂ sin, x₂ cos + x₁ sin)?"""
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, 3, 8, generator=draw)
    angle = torch.randn(1, 3, 4, generator=draw).repeat(1, 1, 2)
    cos, sin = angle.cos(), angle.sin()
    try:
        found = function(q, k, cos, sin)
    except Exception:  # another signature: not the rotation that we know
        return False
    half = [torch.cat((-x[..., 4:], x[..., :4]), dim=-1) for x in (q, k)]
    wanted = [x * cos[:, None] + y * sin[:, None] for x, y in zip((q, k), half, strict=True)]
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))


def _kinds(module: nn.Module) -> tuple[str | None, ...]:
    """The kinds of layer that a rotary module has tables for: None where it has one for all.

    transformers 5 has one module for a model's windowed and full layers, where 4.57 had two.
    """
    by_kind = "layer_type" in inspect.signature(module.forward).parameters
    return tuple(module.layer_types) if by_kind else (None,)  # type: ignore[arg-type]


def _tables(module: nn.Module, kind: str | None, context: int, size: int) -> Tables | None:
    """The tables of a rotary module, None where they are not those of a whole head."""
    asked = () if kind is None else (kind,)
    with torch.no_grad():
        cos, sin = module(torch.zeros(1, 1, 1), torch.arange(context)[None], *asked)
    half = size // 2
    if cos.shape != (1, context, size) or sin.shape != cos.shape:
        return None
    if not all(torch.equal(x[..., :half], x[..., half:]) for x in (cos, sin)):
        return None
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


@contextmanager
def inside_attention(
    model: nn.Module, context: int, size: int, note: Callable[[Tables], None]
) -> Iterator[bool]:
    """Trace under this. ``note`` is called with the tables before each attention that rotates.

    Yields whether the rotation was moved; if not, nothing is changed.
    """
    rotaries = [m for m in model.modules() if type(m).__name__.endswith("RotaryEmbedding")]
    homes = {
        home
        for home in (sys.modules[type(module).__module__] for module in model.modules())
        if hasattr(home, FUNCTION)
    }
    originals = {home: getattr(home, FUNCTION) for home in homes}
    tables = [{kind: _tables(m, kind, context, size) for kind in _kinds(m)} for m in rotaries]
    whole = all(pair is not None for pairs in tables for pair in pairs.values())
    known = bool(rotaries) and bool(homes) and whole
    if not known or not all(_is_half_rotation(f) for f in originals.values()):
        yield False
        return

    def passed_on(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> Tables:
        note((cos, sin))
        return q, k

    def handing_out(pairs: dict[str | None, Tables | None]) -> Callable[..., Tables | None]:
        def forward(*given: Any, layer_type: str | None = None, **_: Any) -> Tables | None:
            if None in pairs:
                return pairs[None]
            return pairs[given[2] if len(given) > 2 else layer_type]

        return forward

    for module, pairs in zip(rotaries, tables, strict=True):
        module.forward = handing_out(pairs)
    for home in homes:
        setattr(home, FUNCTION, passed_on)
    try:
        yield True
    finally:
        for module in rotaries:
            del module.forward
        for home, function in originals.items():
            setattr(home, FUNCTION, function)
