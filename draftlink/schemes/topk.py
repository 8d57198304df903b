"""``topk``: Top-K sparse probabilities (TK-SLT, arXiv 2509.04576), lossless by construction.

The device truncates, rounds and draws (``propose``); the base station rebuilds the same rationals
bit for bit (``decode``) and judges by speculative sampling (arXiv 2211.17192, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from draftlink import sampling, sparse
from draftlink.bitcode import BitReader, BitWriter, width_for
from draftlink.sparse import SparseRow

Coding = Literal["lattice", "fp16"]


class TopK(msgspec.Struct, frozen=True, tag="topk"):
    """The scheme's parameters, agreed on at the start of a generation."""

    k: int = 16  # at most this many entries of a row are sent
    total: int = 256  # ℓ, the sum of a row's counts; ``lattice`` only
    coding: Coding = "lattice"

    def check(self, vocab_size: int) -> None:
        """Raise ValueError, with a line that says what to change, for impossible parameters."""
        if not 1 <= self.k <= vocab_size:
            raise ValueError(
                f"k must be between 1 and the vocabulary size {vocab_size}, not {self.k}"
            )
        if not 1 <= self.total <= 1 << 24:
            raise ValueError(f"the lattice total must be between 1 and 2**24, not {self.total}")


@dataclass(frozen=True)
class Drafted:
    """One drafted token: the row that it was drawn from, and which entry it is."""

    row: SparseRow
    index: int

    @property
    def token(self) -> int:
        """The drafted token's id."""
        return int(self.row.ids[self.index])


def propose(q: NDArray[np.float64], scheme: TopK) -> SparseRow:
    """The row that will be sent for the draft's distribution q (V,); draw from it, not from q."""
    if scheme.coding == "fp16":
        return sparse.half(q, scheme.k)
    return sparse.lattice(q, scheme.k, scheme.total)


def encode(drafted: Sequence[Drafted], scheme: TopK, vocab_size: int) -> tuple[bytes, int]:
    """Drafted tokens to a payload: its bytes, and its length in bits before padding.

    Per token: K_j − 1, the ids, the counts (``lattice``: count − 1 each; ``fp16``: the values'
    bit patterns), and which entry was drawn.
    """
    out = BitWriter()
    for token in drafted:
        row = token.row
        out.write(len(row.ids) - 1, width_for(scheme.k))
        out.write(row.ids, width_for(vocab_size))
        if scheme.coding == "fp16":
            values = (row.counts * sparse.FP16_UNIT).astype(np.float16)
            out.write(values.view(np.uint16), 16)
        else:
            out.write(row.counts - 1, width_for(scheme.total))
        out.write(token.index, width_for(len(row.ids)))
    return out.bytes(), out.bits


def decode(payload: bytes, length: int, scheme: TopK, vocab_size: int) -> list[Drafted]:
    """The payload of ``length`` drafted tokens. Raises ValueError for anything but a true row."""
    source = BitReader(payload)
    drafted = []
    for _ in range(length):
        count = int(source.read(1, width_for(scheme.k))[0]) + 1
        if count > scheme.k:
            raise ValueError(f"a row of {count} entries, where k is {scheme.k}")
        ids = source.read(count, width_for(vocab_size))
        if ids[-1] >= vocab_size or (np.diff(ids) <= 0).any():
            raise ValueError("a row's ids are out of range, repeated or out of order")
        if scheme.coding == "fp16":
            values = source.read(count, 16).astype(np.uint16).view(np.float16)
            # The order matters: NaN fails the first comparison, infinity the second.
            if not ((values > 0) & (values <= 1)).all():
                raise ValueError("a row's FP16 values are not probabilities")
            counts = (values.astype(np.float64) / sparse.FP16_UNIT).astype(np.int64)
            total = int(counts.sum())
        else:
            counts = source.read(count, width_for(scheme.total)) + 1
            total = scheme.total
            if int(counts.sum()) != total:
                raise ValueError(f"a row's counts sum to {int(counts.sum())}, not {total}")
        index = int(source.read(1, width_for(count))[0])
        if index >= count:
            raise ValueError(f"the drawn entry is {index}, where the row has {count}")
        drafted.append(Drafted(SparseRow(ids, counts, total), index))
    source.finish()
    return drafted


def accepted(p: NDArray[np.float64], drafted: Drafted, uniform: float) -> bool:
    """Accept with probability min(1, p(x) / q̂(x)); p (V,) is the target's distribution."""
    row = drafted.row
    return uniform * float(row.counts[drafted.index]) < float(p[drafted.token]) * row.total


def residual(p: NDArray[np.float64], drafted: Drafted) -> NDArray[np.float64]:
    """max(0, p − q̂), (V,), not normalised: what the token after a rejection is drawn from.

    After a rejection its mass is TV(p, q̂) > 0. Where rounding leaves none (p and q̂ equal to the
    last bits), p itself is the limit.
    """
    rest = p.copy()
    rest[drafted.row.ids] -= drafted.row.probabilities()
    np.maximum(rest, 0.0, out=rest)
    return rest if rest.any() else p


def correction(p: NDArray[np.float64], drafted: Drafted, uniform: float) -> int:
    """The token after a rejection."""
    return sampling.draw(residual(p, drafted), uniform)
