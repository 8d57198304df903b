"""Rows that can be sent: truncate, round to integer counts, and only then draw.

The device draws its token from exactly the row that it sends. Drawing first and rounding
afterwards would be biased: the base station would test against a distribution that was never
drawn from.

A row can leave a **rest**: one count for all ids that it does not list. Where the draw falls there,
another row, over those ids alone, says more, and so on; what ends the chain is the prior of ids.
Detail is thus paid for only where the draw falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from draftlink.distribution import largest
from draftlink.distribution.prior import prior

SLACK = 1e-3  # of a sum: less may be the rounding of float32
TIE = 1e-9  # of a rest: taken off, so that an id comes first where their remainders are equal
FEW = 128  # entries: are handled in Python, as numpy's code may be out of the caches
FP16_UNIT = 2.0**-24  # every finite float16 in [0, 1] is an integer multiple of it


class SparseRow(msgspec.Struct, frozen=True):
    """The distribution q̂(ids[i]) = counts[i] / total; rest / total for all other ids together.

    ``ids`` int64 (n,), ascending and distinct; ``counts`` int64 (n,), each at least 1, with
    sum ``total`` - ``rest``.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    total: int
    rest: int = 0

    def draw(self, number: int) -> int:
        """The index into ``ids`` whose share of [0, total) holds ``number``; n for the rest."""
        if len(self.counts) > FEW:
            return int(self.counts.cumsum().searchsorted(number, "right"))
        for index, count in enumerate(self.counts.tolist()):
            number -= count
            if number < 0:
                return index
        return len(self.counts)

    def probabilities(self) -> NDArray[np.float64]:
        """q̂ over ``ids``, float64 (n,)."""
        return self.counts / float(self.total)


class Drafted(msgspec.Struct, frozen=True):
    """A drafted token, and what is known of the distribution q̂ that it was drawn from.

    q̂(token) = reach · count / total. ``row`` is what lists the token, None at a base station whose
    scheme does not send it. ``above``: the rows whose rest was drawn before it, the outermost
    first; ``row`` is None too where behind the last of them the prior drew. Schemes without
    probabilities have a count and a total of 0; with them candidates may stand ``beside`` it: other
    tokens that the target may write in its place, the likeliest first.
    """

    token: int
    count: int = 0
    total: int = 0
    row: SparseRow | None = None
    above: tuple[SparseRow, ...] = ()
    beside: tuple[int, ...] = ()

    @classmethod
    def of(cls, row: SparseRow, index: int, above: Sequence[SparseRow] = ()) -> Drafted:
        """Entry ``index`` of a row."""
        return cls(int(row.ids[index]), int(row.counts[index]), row.total, row, tuple(above))

    @property
    def reach(self) -> float:
        """The probability of the rests that were drawn before the token's own row."""
        return float(np.prod([row.rest / row.total for row in self.above]))

    def path(self, vocab_size: int) -> tuple[SparseRow, ...]:
        """All rows that were drawn from, the prior's included; empty where none are known."""
        if self.row is not None:
            return (*self.above, self.row)
        return (*self.above, remainder(self.above, vocab_size)) if self.above else ()

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

    K is a cap: entries that round to 0 leave the set.
    """
    ids = top(q, k, mass)
    values = q[ids].astype(np.float64)
    return _row(ids.tolist(), _rounded((values * (total / values.sum())).tolist(), total), total)


def nested(q: NDArray[np.floating], k: int, total: int, weight: float | None = None) -> SparseRow:
    """The k largest of q (V,), and all others as a rest, rounded to counts with sum ``total``.

    ``weight``: the sum of q, where it is known; the rest is then what the k leave of it.
    """
    held = float(q.sum(dtype=np.float64)) if weight is None else weight
    # What has less cannot get a count (see _rounded): it is left to the rest unseen.
    least = held / (total * (k + 1)) * (1.0 - SLACK)
    found = (q >= least).nonzero()[0]
    if len(found) > k + FEW:  # a flat row
        found = top(q, k)
    ids, values = found.tolist(), q[found].tolist()
    if len(ids) > k:  # of equals the lower ids stay: the sort is stable, in reverse too
        kept = sorted(range(len(ids)), key=values.__getitem__, reverse=True)[:k]
        kept.sort()
        ids, values = [ids[i] for i in kept], [values[i] for i in kept]
    outside = held - sum(values)
    if weight is None or outside < SLACK * held > least:  # else it may be rounding
        left = q.copy()
        left[ids] = 0.0
        outside = float(left.sum(dtype=np.float64))
        held = sum(values) + outside
    scale = total / held
    shares = [value * scale for value in values]
    *counts, rest = _rounded([*shares, outside * scale * (1.0 - TIE)], total)
    return _row(ids, counts, total, rest)


def _rounded(shares: list[float], total: int) -> list[int]:
    """Counts with sum ``total`` for shares of that sum: the largest remainders go up.

    That is nearest in total variation. A share below 1 / n of n gets nothing: the remainders add up
    to the counts that are missing, so the last of those that go up is 1 / n or more.
    """
    counts = [int(share) for share in shares]
    missing = total - sum(counts)
    if missing > 0:
        # By index where they are equal, so that they are settled the same way everywhere.
        order = sorted((count - shares[i], i) for i, count in enumerate(counts))
        for _, i in order[:missing]:
            counts[i] += 1
    elif missing < 0:  # a share rounded up past an integer; take the excess off the largest
        counts[counts.index(max(counts))] += missing
    return counts


def _row(ids: list[int], counts: list[int], total: int, rest: int = 0) -> SparseRow:
    """A row of the entries above 0."""
    if 0 in counts:
        ids = [token for token, count in zip(ids, counts, strict=True) if count]
        counts = [count for count in counts if count]
    return SparseRow(np.array(ids, np.int64), np.array(counts, np.int64), total, rest)


def remainder(above: Sequence[SparseRow], vocab_size: int) -> SparseRow:
    """The prior of ids as a row over all ids that none of ``above`` lists."""
    law = prior(vocab_size)
    listed = np.zeros(vocab_size, dtype=np.bool_)
    for row in above:
        listed[row.ids] = True
    ids = np.flatnonzero(~listed)
    counts = law.weights()[ids]
    return SparseRow(ids, counts, int(counts.sum()))


def draw_remainder(
    above: Sequence[SparseRow], vocab_size: int, below: Callable[[int], int]
) -> Drafted:
    """A token drawn from ``remainder``, which is not made for it: that takes milliseconds.

    ``below(total)`` draws from [0, total).
    """
    law = prior(vocab_size)
    listed = sorted(law.share(int(token)) for row in above for token in row.ids)
    total = law.total - sum(weight for _, weight in listed)
    place = below(total)
    for before, weight in listed:
        if place < before:
            break
        place += weight
    token = law.find(place)
    return Drafted(token, law.share(token)[1], total, None, tuple(above))


def expected_acceptance(p: NDArray[np.float64], rows: Iterable[SparseRow]) -> float:
    """The chance that a token drawn by a chain of rows is accepted where the target's law is p.

    Σ min(p, q̂) for a single row. For more it is what ``bs_runtime.verify`` makes of them: behind a
    rest that is smaller than what the target wants there, that is cut to the rest.
    """
    wanted, reach, accepted = p.copy(), 1.0, 0.0
    for row in rows:
        share = reach * row.probabilities()
        accepted += float(np.minimum(wanted[row.ids], share).sum())
        wanted[row.ids] = 0.0
        reach *= row.rest / row.total
        if not row.rest:
            break
        capped = np.minimum(wanted, share.min(initial=1.0))
        low, high = capped.sum(), wanted.sum()
        if low > reach:
            wanted = capped * (reach / low)
        elif high > reach:
            wanted = capped + (wanted - capped) * ((reach - low) / (high - low))
    return accepted


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
