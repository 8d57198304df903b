"""Accepting what was drafted, and what is drawn where it is rejected, in torch, all rows at once.

Speculative sampling is arXiv 2211.17192, algorithm 1; rows in tiers: ``distribution.sparse``. On a
CPU ``nested`` does the same row by row, in fewer passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bs_runtime.verify import nested
from draftlink.distribution.sparse import Drafted, SparseRow

_TINY = torch.finfo(torch.float64).tiny


def accepts(p: Tensor, drafted: Sequence[Drafted], uniforms: Sequence[float]) -> Tensor:
    """Accept with probability min(1, p(x) / q̂(x)); p (n,) is wanted of the drafted tokens."""
    counts = torch.tensor([d.reach * d.count for d in drafted], dtype=p.dtype, device=p.device)
    totals = torch.tensor([float(d.total) for d in drafted], dtype=p.dtype, device=p.device)
    return torch.tensor(uniforms, dtype=p.dtype, device=p.device) * counts < p * totals


def wanted(p: Tensor, rows: Sequence[int], drafted: Sequence[Drafted]) -> Tensor:
    """What the target wants of each drafted token, (n,); p (R, V), ``rows`` (n,) of it.

    It is p(x) for a token of the outermost row. What is known of q̂ below depends on the rest's
    having been drawn, an event of probability t: there the target is what ``_passed`` down to it.
    """
    found = entries(p, rows, [d.token for d in drafted])
    below = [i for i, d in enumerate(drafted) if d.above]
    if not below:
        return found
    if p.device.type == "cpu":
        for i in below:
            found[i] = nested.wanted(p[rows[i]].numpy(), drafted[i])
        return found
    return _wanted_below(p, rows, drafted, found, below)


def _wanted_below(
    p: Tensor, rows: Sequence[int], drafted: Sequence[Drafted], found: Tensor, below: Sequence[int]
) -> Tensor:
    """``found`` with what is wanted of the tokens ``below`` the outermost row."""
    left = p[[rows[i] for i in below]]
    for tier in _tiers([drafted[i].above for i in below], p):
        left[tier.index] = _passed(left[tier.index].index_put(tier.entries, tier.zero), tier)
    tokens = [drafted[i].token for i in below]
    return found.index_put(
        (torch.tensor(below, device=p.device),), entries(left, range(len(below)), tokens)
    )


def residuals(p: Tensor, drafted: Sequence[Drafted | None]) -> Tensor:
    """What is drawn from after a rejection, (n, V), not normalised; p itself where it is None.

    max(0, p − q̂) for a token of a single row. In general, of the event that the draw came down to
    the rejected token's row: its ids' max(0, wanted − q̂); of the ids below, what is not passed
    down; and where the rows above passed less down than their rest, what they lack themselves, by
    their own residual.

    After a rejection its mass is above 0. Where rounding leaves none (p and q̂ equal to the last
    bits), p itself is the limit.
    """
    paths = [() if d is None else d.path(p.shape[1]) for d in drafted]
    if p.device.type == "cpu":
        found = [nested.residual(mine.numpy(), path) for mine, path in zip(p, paths, strict=True)]
        return torch.from_numpy(np.stack(found)) if found else p
    return _residuals(p, paths)


def _residuals(p: Tensor, paths: Sequence[Sequence[SparseRow]]) -> Tensor:
    left, law = p.clone(), p.clone()  # what is still wanted of ids not yet listed; the residual
    for depth, tier in enumerate(_tiers(paths, p)):
        mine = left[tier.index]
        below = mine.index_put(tier.entries, tier.zero)
        passed = _passed(below, tier)
        over = (mine[tier.entries] - tier.shares).clamp_(min=0.0)
        rest = (below - passed).index_put_(tier.entries, over)
        if depth:
            outer = law[tier.index]
            lacking = (tier.reach - mine.sum(-1)).clamp_(min=0.0)
            rest += outer * (lacking / outer.sum(-1).clamp_(min=_TINY))[:, None]
        law[tier.index], left[tier.index] = rest, passed
    return torch.where(law.sum(-1, keepdim=True) > 0.0, law, p)


@dataclass(frozen=True)
class _Tier:
    """The rows of one depth, of those that have one there; reach and q̂ are of the whole."""

    index: Tensor  # (m,), whose they are
    entries: tuple[Tensor, Tensor]  # which of the m, and the id, of each listed id
    shares: Tensor  # q̂ of each listed id
    reach: Tensor  # (m,), the probability of coming here
    rest: Tensor  # (m,), and of going on
    least: Tensor  # (m,), the smallest share of the row
    zero: Tensor


def _tiers(paths: Sequence[Sequence[SparseRow]], like: Tensor) -> Iterator[_Tier]:
    def tensor(values: Sequence[float] | np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=like.dtype, device=like.device)

    reach = [1.0] * len(paths)
    for depth in range(max(map(len, paths), default=0)):
        here = [i for i, path in enumerate(paths) if len(path) > depth]
        rows = [paths[i][depth] for i in here]
        shares = [reach[i] * row.probabilities() for i, row in zip(here, rows, strict=True)]
        came = [reach[i] for i in here]
        for i, row in zip(here, rows, strict=True):
            reach[i] *= row.rest / row.total
        where = np.repeat(np.arange(len(here)), [len(row.ids) for row in rows])
        ids = np.concatenate([row.ids for row in rows])
        yield _Tier(
            torch.tensor(here, device=like.device),
            (torch.from_numpy(where).to(like.device), torch.from_numpy(ids).to(like.device)),
            tensor(np.concatenate(shares)),
            tensor(came),
            tensor([reach[i] for i in here]),
            tensor([share.min(initial=1.0) for share in shares]),
            like.new_zeros(()),
        )


def _passed(below: Tensor, tier: _Tier) -> Tensor:
    """What of ``below`` (m, V), wanted of the ids that rows do not list, is passed down.

    All of it, unless it is more than the rest's probability: then the other events have to write
    what is over, without knowing the rows below. It is taken, as far as it goes, from what exceeds
    the row's smallest share, for below no id of a Top-K row has more; and then from all alike.
    """
    capped = torch.minimum(below, tier.least[:, None])
    low, high = capped.sum(-1), below.sum(-1)
    kept = (tier.rest / low.clamp(min=_TINY)).clamp_(max=1.0)
    kept_above = ((tier.rest - low) / (high - low).clamp_(min=_TINY)).clamp_(0.0, 1.0)
    return capped * kept[:, None] + (below - capped) * kept_above[:, None]


def draw(weights: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Per row of weights (n, V), not normalised: the token whose share holds the uniform."""
    u = torch.tensor(uniforms, dtype=weights.dtype, device=weights.device)
    tokens: list[int] = _owners(weights, u[:, None])[:, 0].tolist()
    return tokens


def draws(weights: Tensor, uniforms: Sequence[float]) -> list[int]:
    """``draw`` from the same weights (V,) by each of some uniforms."""
    u = torch.tensor(uniforms, dtype=weights.dtype, device=weights.device)
    tokens: list[int] = _owners(weights[None], u[None])[0].tolist()
    return tokens


def _owners(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Whose share of weights (n, V) each of uniforms (n, m) lies in, (n, m)."""
    edges = weights.cumsum(-1)
    total = edges[:, -1:]
    index = torch.searchsorted(edges, uniforms * total, right=True)
    # u * total can round up to the total; the token that ends there is then the right one.
    last = torch.searchsorted(edges, total.contiguous())
    return torch.minimum(index, last)


def entries(p: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """Entries (n,) of p at (row, token)."""
    index = torch.tensor([rows, tokens], dtype=torch.long, device=p.device)
    return p[index[0], index[1]]
