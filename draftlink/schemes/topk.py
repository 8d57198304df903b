"""``topk``: Top-K sparse probabilities (TK-SLT, arXiv 2509.04576), lossless by construction.

The device truncates, rounds and draws; the base station rebuilds the same rationals bit for bit
and judges by speculative sampling (arXiv 2211.17192, algorithm 1): accept with probability
min(1, p(x) / q̂(x)), else draw from norm(max(0, p − q̂)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from draftlink import halfcode, rowcode, sparse
from draftlink.bitcode import width_for
from draftlink.idcode import IdModel
from draftlink.schemes import base
from draftlink.sparse import Drafted

Coding = Literal["lattice", "fp16"]


class TopK(base.Scheme, frozen=True, tag="topk"):
    """At most ``k`` entries of a row are sent; ``mass`` below 1 is the top-p variant (TSLT)."""

    k: int = 16
    total: int = 256  # ℓ, the sum of a row's counts; ``lattice`` only
    coding: Coding = "lattice"  # ``fp16`` is TK-SLT as published: K FP16 values, plain ids
    mass: float = 1.0

    @property
    def name(self) -> str:
        """The scheme and its coding."""
        return f"topk-{self.coding}"

    def check(self, vocab_size: int) -> None:
        """Raise ValueError for impossible parameters."""
        base.check_row(self.k, self.total, vocab_size)
        if self.coding == "lattice" and self.k > rowcode.MAX_ENTRIES:
            raise ValueError(
                f"k must be at most {rowcode.MAX_ENTRIES} in the lattice coding, not {self.k};"
                " send more with --coding fp16"
            )
        if not 0.0 < self.mass <= 1.0:
            raise ValueError(f"the mass must be above 0 and at most 1, not {self.mass}")

    def most_bits(self, vocab_size: int) -> int:
        """As fixed fields; the coder needs less for any row that a language model makes."""
        width = 16 if self.coding == "fp16" else width_for(self.total) + 2
        return (self.k + 1) * (width + width_for(vocab_size))

    def propose(self, q: NDArray[np.floating], key: bytes, position: int) -> Drafted:
        """Truncate, round, draw."""
        return base.draw(self.row(q), key, position)

    def row(self, q: NDArray[np.floating]) -> sparse.SparseRow:
        """What is sent of the draft's distribution q (V,)."""
        if self.coding == "fp16":
            return sparse.half(q, self.k, self.mass)
        return sparse.lattice(q, self.k, self.total, self.mass)

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """Rows and drawn entries to a payload."""
        if self.coding == "fp16":
            return halfcode.encode(drafted, self.k, ids.vocab_size)
        rows = [(d.row, d.index) for d in drafted if d.row is not None]
        return rowcode.encode(rows, self.k, self.total, ids.vocab_size)

    def decode(self, payload: bytes, length: int, ids: IdModel) -> list[Drafted]:
        """Rows and drawn entries back. Raises ValueError for anything but true rows."""
        if self.coding == "fp16":
            return halfcode.decode(payload, length, self.k, ids.vocab_size)
        rows = rowcode.decode(payload, length, self.k, self.total, ids.vocab_size)
        return [Drafted.of(row, index) for row, index in rows]
