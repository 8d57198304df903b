"""Rows that can be sent: truncate, round to integer counts, and only then draw.

The device draws its token from exactly the row that it sends. Drawing first and rounding
afterwards would be biased: the base station would test against a distribution that was never
drawn from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draftlink import largest

FP16_UNIT = 2.0**-24  # every finite float16 in [0, 1] is an integer multiple of it


@dataclass(frozen=True)
class SparseRow:
    """The distribution q̂(ids[i]) = counts[i] / total, and 0 elsewhere.

    ``ids`` int64 (n,), ascending and distinct; ``counts`` int64 (n,), each at least 1, with
    sum ``total``.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    total: int

    def draw(self, number: int) -> int:
        """The index into ``ids`` whose share of [0, total) holds ``number``."""
        return int(np.searchsorted(np.cumsum(self.counts), number, side="right"))

    def probabilities(self) -> NDArray[np.float64]:
        """q̂ over ``ids``, float64 (n,)."""
        return self.counts / float(self.total)


@dataclass(frozen=True)
class Drafted:
    """A drafted token, and what is known of the distribution q̂ that it was drawn from.

    q̂(token) = count / total. ``row`` is the whole of q̂, None at a base station whose scheme does
    not send it. Schemes without probabilities have a count and a total of 0.
    """

    token: int
    count: int = 0
    total: int = 0
    row: SparseRow | None = None

    @classmethod
    def of(cls, row: SparseRow, index: int) -> Drafted:
        """Entry ``index`` of a row."""
        return cls(int(row.ids[index]), int(row.counts[index]), row.total, row)

    @property
    def index(self) -> int:
        """The token's place in its row."""
        assert self.row is not None
        return int(np.searchsorted(self.row.ids, self.token))


def top(q: NDArray[np.floating], k: int, mass: float = 1.0) -> NDArray[np.int64]:
    """Ids (≤ k,), ascending, of the k largest entries of q (V,); entries of 0 are left out.

    Below a ``mass`` of 1 only as many of them, largest first, as it takes to hold that mass (the
    top-p truncation of TSLT): a peaked row then needs few entries.
    """
    if k >= len(q) and mass == 1.0:
        return largest.at_least(q, k)
    ids = largest.ranked(q, k)
    if mass < 1.0:
        ids = ids[np.cumsum(q[ids]) - q[ids] < mass]
    return np.sort(ids)


def lattice(q: NDArray[np.floating], k: int, total: int, mass: float = 1.0) -> SparseRow:
    """``top`` of q (V,), renormalised and rounded to counts with sum ``total``.

    Largest remainders go up, which is nearest in total variation. K is a cap: entries that round
    to 0 leave the set.
    """
    ids = top(q, k, mass)
    share = q[ids].astype(np.float64)
    share *= total / share.sum()
    counts = np.floor(share).astype(np.int64)
    missing = total - int(counts.sum())
    if missing > 0:
        # Stable, so that equal remainders are settled the same way everywhere.
        counts[np.argsort(counts - share, kind="stable")[:missing]] += 1
    elif missing < 0:  # share rounded up past an integer; take the excess off the largest
        counts[np.argmax(counts)] += missing
    kept = counts > 0
    return SparseRow(ids[kept], counts[kept], total)


def half(q: NDArray[np.floating], k: int, mass: float = 1.0) -> SparseRow:
    """``top`` of q (V,), renormalised and rounded to FP16, as TK-SLT sends it.

    An FP16 value is an integer times 2**-24: those integers are the counts, so the row is as
    exact as the lattice.
    """
    ids = top(q, k, mass)
    values = (q[ids] / q[ids].sum()).astype(np.float16)
    counts = (values.astype(np.float64) / FP16_UNIT).astype(np.int64)
    kept = counts > 0
    return SparseRow(ids[kept], counts[kept], int(counts.sum()))
