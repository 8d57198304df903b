"""What the tokens of a feed look at, and how: chain, ancestors, windows, and capped scores.

A token looks at the committed chain and at its ancestors, itself included. In a layer with a window
of W tokens it looks at those of them alone whose positions are among the last W up to its own.
Everything stays cached, so that a rollback across a window's border is a length like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bs_runtime.model.attention import Form
from bs_runtime.model.kv import Feed

MOST_SCORES = 1 << 24  # that are held at once where they are capped


class Look(NamedTuple):
    """What a layer's attention needs to know of a feed's tokens.

    ``begin``: the first entry of the slot that any of them sees. ``mask`` (tokens, length - begin)
    is 0 where a token looks, else -inf. It is None where it would say nothing: a single token looks
    everywhere, and ``causal`` says that the tokens are all there is, each seeing those before it.
    """

    begin: int
    mask: Tensor | None
    causal: bool


class Sight:
    """What ``tokens`` that are fed behind ``past`` entries see; one ``Look`` for each window.

    ``ancestors``: of the last of them, in a block whose first entry has index ``first``; None for a
    plain chain. ``options``: the masks' dtype and device.
    """

    def __init__(
        self,
        past: int,
        tokens: int,
        options: dict[str, Any],
        first: int = 0,
        ancestors: Sequence[int] | None = None,
    ) -> None:
        self._past, self._tokens = past, tokens
        self._options = options
        self._first, self._ancestors = first, ancestors
        self._looks: dict[int | None, Look] = {}

    @classmethod
    def of(cls, feed: Feed, options: dict[str, Any]) -> Sight:
        """Of a feed, before its slot holds it."""
        return cls(feed.slot.length, len(feed.ids), options, feed.first, feed.ancestors)

    @property
    def length(self) -> int:
        """Entries of the slot with the tokens."""
        return self._past + self._tokens

    def through(self, window: int | None) -> Look:
        """What they see in a layer that looks ``window`` tokens back; None: as far as there are."""
        if window is not None and window >= self.length:  # no position is beyond an index
            window = None
        if window not in self._looks:
            self._looks[window] = self._look(window)
        return self._looks[window]

    def _look(self, window: int | None) -> Look:
        past, tokens, ancestors = self._past, self._tokens, self._ancestors
        if ancestors is None and tokens == 1:
            return Look(0 if window is None else self.length - window, None, False)
        if ancestors is None and not past and window is None:
            return Look(0, None, True)
        begin = 0 if window is None else max(0, min(past, self._first) + 1 - window)
        shape = tokens, self.length - begin
        mask = torch.full(shape, float("-inf"), **self._options).triu_(past + 1 - begin)
        if window is not None:
            mask += torch.full_like(mask, float("-inf")).tril_(past - window - begin)
        if ancestors is not None:
            rows = torch.from_numpy(~self._seen(ancestors, begin, window)).to(mask.device)
            block = mask[tokens - len(ancestors) :]
            block.zero_().masked_fill_(rows, float("-inf"))
        return Look(begin, mask, False)

    def _seen(self, ancestors: Sequence[int], begin: int, window: int | None) -> NDArray[np.bool_]:
        """Which entries from ``begin`` on each of the block's tokens sees."""
        related = family(ancestors, self.length - self._first)
        chain = np.ones((len(ancestors), max(0, self._first - begin)), dtype=bool)
        if window is not None:
            depths = related.cumsum(1) - 1  # of a token's ancestors, which are a path of their own
            last = depths[:, -1:]  # its own
            related = related & (last - depths < window)
            chain = self._first + last - np.arange(begin, self._first) < window
        return np.hstack([chain, related[:, max(0, begin - self._first) :]])


def family(ancestors: Sequence[int], size: int) -> NDArray[np.bool_]:
    """Which of the first ``size`` tokens of a block are ancestors of each token; (tokens, size)."""
    masks = np.array(ancestors, dtype=np.uint64)[:, None]
    found: NDArray[np.bool_] = (masks >> np.arange(size, dtype=np.uint64) & np.uint64(1)) != 0
    return found


def attend(query: Tensor, keys: Tensor, values: Tensor, sight: Sight, form: Form) -> Tensor:
    """One slot's query (1, heads, tokens, d), over all its entries, to (1, heads, tokens, d)."""
    begin, mask, causal = sight.through(form.window)
    if begin:
        count = keys.shape[2] - begin
        keys, values = keys.narrow(2, begin, count), values.narrow(2, begin, count)
    if form.softcap is not None:
        if causal:
            shape = query.shape[2], keys.shape[2]
            mask = query.new_full(shape, float("-inf")).triu_(1)
        return _capped(query, keys, values, mask, form.scale, form.softcap)
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        is_causal=causal,
        scale=form.scale,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def _capped(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, cap: float
) -> Tensor:
    """Attention over cap · tanh(score / cap), as Gemma 2 has it (arXiv 2408.00118, 2)."""
    _, heads, tokens, d = query.shape
    kv_heads, length = keys.shape[1:3]
    part = max(1, MOST_SCORES // (heads * length))
    out = []
    for begin in range(0, tokens, part):
        rows = query[0, :, begin : begin + part]
        grouped = rows.reshape(kv_heads, -1, d)
        scores = torch.tanh(grouped @ keys[0].mT * (scale / cap)) * cap
        scores = scores.view(heads, -1, length)
        if mask is not None:
            scores = scores + mask[begin : begin + part]
        wide = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=wide).to(values.dtype).view(kv_heads, -1, length)
        out.append((weights @ values[0]).view(heads, -1, values.shape[-1]))
    return torch.cat(out, 1)[None]
