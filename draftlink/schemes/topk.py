"""``topk``: Top-K sparse probabilities (TK-SLT, arXiv 2509.04576), lossless by construction.

The device truncates, rounds and draws; the base station rebuilds the same rationals bit for bit
and judges by speculative sampling (arXiv 2211.17192, algorithm 1): accept with probability
min(1, p(x) / q̂(x)), else draw from norm(max(0, p − q̂)).

In the ``lattice`` coding rows are nested: where the draw falls on the rest that a row cuts off,
another row, over the other ids and twice as large, says more of them, and the draw goes on there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from draftlink.coding import fp16, lattice
from draftlink.coding.bits import width_for
from draftlink.coding.ids import IdModel
from draftlink.coding.slices import Slices
from draftlink.distribution import noise, sparse
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base

Coding = Literal["lattice", "fp16"]
MAX_TIERS = 8
K, TOTAL, TIERS = 8, 256, 7  # of ``usual``


class TopK(base.Scheme, frozen=True, tag="topk"):
    """At most ``k`` entries of a row are sent; ``mass`` below 1 is the top-p variant (TSLT).

    ``tiers``: rows that a drafted token has at most. The j-th has up to k · 2^j entries with sum
    ℓ · 2^j; the prior of ids stands behind the last. 1 cuts off what the row does not hold, as
    TK-SLT does; so do ``fp16`` and a mass below 1.

    The values here are the wire's, for a Start that leaves them out. What a device asks for where
    nobody says otherwise is ``usual``.
    """

    k: int = 8
    total: int = 64  # ℓ, the sum of a row's counts; ``lattice`` only
    coding: Coding = "lattice"  # ``fp16`` is TK-SLT as published: K FP16 values, plain ids
    mass: float = 1.0
    tiers: int = 3

    @property
    def name(self) -> str:
        """The scheme and its coding."""
        return f"topk-{self.coding}"

    def check(self, vocab_size: int) -> None:
        """Raise ValueError for impossible parameters."""
        base.check_row(self.k, self.total, vocab_size)
        if not 1 <= self.tiers <= MAX_TIERS:
            raise ValueError(f"tiers must be between 1 and {MAX_TIERS}, not {self.tiers}")
        shapes = self._shapes()
        if self.coding == "lattice" and sum(s.k for s in shapes) > lattice.MAX_ENTRIES:
            raise ValueError(
                f"k must be at most {lattice.MAX_ENTRIES // (2 ** len(shapes) - 1)} in the lattice"
                f" coding with {len(shapes)} tiers, not {self.k}; send more with --coding fp16"
            )
        if shapes[-1].total > lattice.MAX_TOTAL:
            raise ValueError(
                f"the lattice total must be at most {lattice.MAX_TOTAL >> len(shapes) - 1} with"
                f" {len(shapes)} tiers, not {self.total}"
            )
        if not 0.0 < self.mass <= 1.0:
            raise ValueError(f"the mass must be above 0 and at most 1, not {self.mass}")

    def most_bits(self, vocab_size: int) -> int:
        """As fixed fields; the coder needs less for any row that a language model makes."""
        bits = 0
        for shape in self._shapes():
            width = 16 if self.coding == "fp16" else width_for(shape.total) + 2
            bits += (shape.k + 2) * (width + width_for(vocab_size))
        return bits

    def entries(self, vocab_size: int) -> int:
        """Those of all rows, full."""
        if self.coding == "fp16":
            return -(-min(self.k, vocab_size) // base.FIXED_ENTRIES)
        return sum(min(s.k, s.total, vocab_size) for s in self._shapes())

    def unspent(self, vocab_size: int, drafted: Sequence[Drafted]) -> int:
        """All but the entries of the rows that were sent: most tokens have one row."""
        if self.coding == "fp16":
            return 0
        rows = ((*d.above, *(() if d.row is None else (d.row,))) for d in drafted)
        entries = (sum(len(row.ids) for row in each) for each in rows)
        return self.work(vocab_size, len(drafted)) - sum(
            max(1, count // base.TOKEN_ENTRIES) for count in entries
        )

    def propose(
        self, q: NDArray[np.floating], key: bytes, position: int, weight: float = 1.0
    ) -> Drafted:
        """Truncate, round, draw; where the draw falls on the rest, once more."""
        above: list[sparse.SparseRow] = []

        def below(total: int) -> int:
            return noise.below(key, position, Purpose.DRAFT, total, len(above))

        for row in self._sent_rows(q, weight):
            index = row.draw(below(row.total))
            if index < len(row.ids):
                return Drafted.of(row, index, above)
            above.append(row)
        return sparse.draw_remainder(above, len(q), below)

    def row(self, q: NDArray[np.floating]) -> sparse.SparseRow:
        """What is sent of the draft's distribution q (V,) for every token."""
        return next(self.rows(q))

    def rows(self, q: NDArray[np.floating]) -> Iterator[sparse.SparseRow]:
        """The row of q (V,), and while the last has a rest, the next, of what q has there.

        Behind the last tier's comes the prior's, unless q has ids of probability 0: those must not
        be drawn (a request's top-p excludes them, or the draft has no such ids).
        """
        above: list[sparse.SparseRow] = []
        for row in self._sent_rows(q):
            yield row
            above.append(row)
        if row.rest:
            yield sparse.remainder(above, len(q))

    def _sent_rows(
        self, q: NDArray[np.floating], weight: float = 1.0
    ) -> Iterator[sparse.SparseRow]:
        """All but the prior's, which both ends know. ``weight`` is the sum of q."""
        if self.mass < 1.0:
            q = q / weight  # of which the mass is a share
        if self.coding == "fp16":
            yield sparse.half(q, self.k, self.mass)
            return
        shapes = self._shapes()
        left = q
        known: float | None = weight
        for tier, shape in enumerate(shapes, 1):
            if tier < len(shapes) or (shape.nested and bool((q > 0.0).all())):
                row = sparse.nested(left, shape.k, shape.total, known)
            else:
                row = sparse.lattice(left, shape.k, shape.total, self.mass)
            yield row
            if not row.rest:
                return
            left, known = left.copy(), None
            left[row.ids] = 0.0

    def _shapes(self) -> tuple[lattice.Shape, ...]:
        """Of a token's rows."""
        cuts = self.coding == "fp16" or self.mass < 1.0
        return lattice.shapes(self.k, self.total, 1 if cuts else self.tiers)

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """Rows and drawn entries to a payload."""
        if self.coding == "fp16":
            return fp16.encode(drafted, self.k, ids.vocab_size)
        return lattice.encode(drafted, self._shapes(), ids.vocab_size)

    def decoding(self, payload: bytes, length: int, ids: IdModel) -> Slices[list[Drafted]]:
        """Rows and drawn entries back. Raises ValueError for anything but true rows."""
        if self.coding == "fp16":
            return fp16.decoding(payload, length, self.k, ids.vocab_size)
        return lattice.decoding(payload, length, self._shapes(), ids.vocab_size)


def usual(k: int | None = None, total: int | None = None, tiers: int | None = None) -> TopK:
    """The rows that a device asks for, where some or none of them are stated.

    docs/rows.md says why these. Of tiers, where they are not stated, as many as rows of this size
    may have, at most ``TIERS``.
    """
    k, total = K if k is None else k, TOTAL if total is None else total
    if tiers is None:
        fit = min(lattice.MAX_ENTRIES // max(k, 1) + 1, 2 * lattice.MAX_TOTAL // max(total, 1))
        tiers = max(1, min(TIERS, fit.bit_length() - 1))
    return TopK(k=k, total=total, tiers=tiers)
