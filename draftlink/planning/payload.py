"""How many bits a drafted token carries, in closed form, for each scheme and coding.

Of the payload alone: what a message adds (frame, WebSocket, TCP/IP headers) is the link's.
"""

from __future__ import annotations

import math
from typing import Literal

from draftlink.coding.bits import width_for

FP16_BITS = 16

Coding = Literal["paper", "fp16", "lattice"]


def log2_choose(n: int, k: int) -> float:
    """log2 of n over k. Raises ValueError unless 0 ≤ k ≤ n."""
    if not 0 <= k <= n:
        raise ValueError(f"cannot choose {k} of {n}")
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def dense_bits(vocab_size: int) -> int:
    """``dense``: the whole row in FP16."""
    return FP16_BITS * vocab_size


def id_bits(vocab_size: int) -> int:
    """``coupled`` and greedy: the token's id."""
    return width_for(vocab_size)


def split_bits(vocab_size: int, total: int | None = None) -> int:
    """``split`` (DSSD): the id, and its count of ``total``, or an FP16 scalar if not given."""
    return id_bits(vocab_size) + (FP16_BITS if total is None else width_for(total))


def lattice_bits(
    vocab_size: int, entries: int, total: int, *, k: int, drawn_bits: float | None = None
) -> float:
    """A lattice row of ``entries`` entries, at most ``k``: the logarithm of what it chooses from.

    The set, log2 C(V, K_j); the counts, log2 C(ℓ − 1, K_j − 1) (compositions of ℓ into K_j positive
    parts); K_j itself, log2 min(K, ℓ); the drawn entry, −log2 q̂(x): ``drawn_bits``, whose mean is
    the row's entropy and at most log2 K_j, which stands in where it is not given.
    """
    if drawn_bits is None:
        drawn_bits = math.log2(entries)
    return (
        log2_choose(vocab_size, entries)
        + log2_choose(total - 1, entries - 1)
        + math.log2(min(k, total, vocab_size))
        + drawn_bits
    )


def topk_bits(vocab_size: int, k: int, coding: Coding, total: int = 256) -> float:
    """A ``topk`` token whose set is full.

    ``paper``: K FP16 values and nothing else, as TK-SLT (arXiv 2509.04576) counts. ``fp16``: the
    same with everything that has to be known to read it: the ids, K_j, which entry was drawn.
    ``lattice``: ``lattice_bits`` with min(K, ℓ) entries, ℓ = ``total``. Raises ValueError unless
    1 ≤ K ≤ V and ℓ ≥ 1.
    """
    if not 1 <= k <= vocab_size:
        raise ValueError(f"k must be between 1 and the vocabulary size {vocab_size}, not {k}")
    if total < 1:
        raise ValueError(f"the lattice total must be at least 1, not {total}")
    if coding == "paper":
        return FP16_BITS * k
    if coding == "fp16":
        return k * (FP16_BITS + width_for(vocab_size)) + 2 * width_for(k)
    return lattice_bits(vocab_size, min(k, total), total, k=k)
