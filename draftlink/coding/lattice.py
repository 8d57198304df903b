"""Drafted tokens with their sparse rows to bytes and back: the entropy-coded form of ``lattice``.

A row goes largest count first. Each count is coded as one of those that are still possible, all
equally likely: at most the count before it and what is left of the sum, at least what the entries
that remain can carry. How many entries there are follows, and costs nothing. Then comes the drawn
entry, at its own -log2 q̂(x), and the ids: a set for each group of equal counts.

Told in this order a row needs fewer bits than log2 C(V, K_j) + log2 C(ℓ-1, K_j-1), the price of a
set and of counts that may be any: a language model's counts fall steeply, and so do ids.
``bench/coder.py`` measures it.

Where rows are nested, the count of a row's rest goes before the others, its length in bits first,
for most rests are small. Where the rest is what was drawn, the next row follows, twice as large;
behind the last row the token is coded by the prior of ids, among those that no row listed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.sets import read_one, read_set, reading_set, write_set
from draftlink.coding.slices import Slices, whole
from draftlink.distribution.prior import IdPrior, prior
from draftlink.distribution.sparse import FEW, Drafted, SparseRow

MAX_TOTAL = 1 << 24  # of a row's counts
MAX_ENTRIES = 4096  # of a token's rows: what a peer can make this end decode
SLICE = 256  # entries that are decoded in one go


@dataclass(frozen=True)
class Shape:
    """What bounds a row: at most ``k`` entries, sum ``total``; ``nested`` rows code a rest."""

    k: int
    total: int
    nested: bool = False


@lru_cache
def shapes(k: int, total: int, tiers: int) -> tuple[Shape, ...]:
    """The rows that a drafted token can have: each has room for twice as much as the one before."""
    return tuple(Shape(k << j, total << j, tiers > 1) for j in range(tiers))


def encode(
    drafted: Sequence[Drafted], tiers: Sequence[Shape], vocab_size: int
) -> tuple[bytes, int]:
    """Drafted tokens, their rows of the shapes ``tiers``, to a payload.

    Its bytes, and its length in bits before padding. Raises ValueError for a row that is larger,
    has another sum, or an entry of 0, and for a token without rows.
    """
    out = RangeEncoder()
    law = prior(vocab_size)
    for token in drafted:
        _write(out, token, tiers, law)
    return out.finish()


def decode(payload: bytes, length: int, tiers: Sequence[Shape], vocab_size: int) -> list[Drafted]:
    """The ``length`` tokens of a payload. Raises ValueError for bytes that ``encode`` never writes.

    Time and memory are bounded by length * (sum of k), whatever the bytes.
    """
    return whole(decoding(payload, length, tiers, vocab_size))


def decoding(
    payload: bytes, length: int, tiers: Sequence[Shape], vocab_size: int
) -> Slices[list[Drafted]]:
    """``decode`` in slices: of a token, or of some ``SLICE`` entries of one."""
    source = RangeDecoder(payload)
    law = prior(vocab_size)
    drafted: list[Drafted] = []
    for _ in range(length):
        drafted.append((yield from _reading(source, tiers, law)))
        yield
    source.finish()
    return drafted


def _write(out: RangeEncoder, token: Drafted, tiers: Sequence[Shape], law: IdPrior) -> None:
    rows = token.above if token.row is None else (*token.above, token.row)
    if len(rows) > len(tiers) or (token.row is None and len(rows) != len(tiers)):
        raise ValueError(f"a token of {len(rows)} rows, where {len(tiers)} are coded")
    for row, shape in zip(rows, tiers, strict=False):
        # As a list: a row has few entries, and behind a forward numpy's code is out of the caches.
        fewest = min(row.counts.tolist(), default=1)
        fits = len(row.ids) <= shape.k and row.total == shape.total and fewest >= 1
        if not fits or (row.rest and not shape.nested):
            raise ValueError(
                f"a row of {len(row.ids)} entries of {row.total},"
                f" where {shape.k} of {shape.total} are coded"
            )
        _write_row(out, row, token.token if row is token.row else None, shape, law)
    if token.row is None:
        listed = _Listed(token.above, law)
        below, weight = law.share(token.token)
        out.push(below - listed.below(token.token), weight, listed.left)


def _reading(source: RangeDecoder, tiers: Sequence[Shape], law: IdPrior) -> Slices[Drafted]:
    above: list[SparseRow] = []
    known: set[int] = set()
    for shape in tiers:
        row, index = yield from _reading_row(source, shape, law)
        size = len(known) + len(row.ids)
        known.update(row.ids.tolist())
        if len(known) < size:
            raise ValueError("a row's ids are repeated")
        if row.rest and size == law.vocab_size:
            raise ValueError("a row has a rest, where no ids are left")
        if index is not None:
            return Drafted.of(row, index, above)
        above.append(row)
        if len(row.ids) > FEW:
            yield
    listed = _Listed(above, law)
    token, below, weight = law.owner(listed.skip(source.peek(listed.left)))
    source.take(below - listed.below(token), weight)
    return Drafted(token, weight, listed.left, None, tuple(above))


class _Listed:
    """The ids that rows list, taken out of the prior."""

    def __init__(self, rows: Iterable[SparseRow], law: IdPrior) -> None:
        self._ids = sorted(i for row in rows for i in row.ids.tolist())
        shares = [law.share(i) for i in self._ids]
        self._weights = [0, *accumulate(weight for _, weight in shares)]
        self._starts = [below - w for (below, _), w in zip(shares, self._weights, strict=False)]
        self.left = law.total - self._weights[-1]

    def below(self, token: int) -> int:
        """The weights of those below a token that is none of them."""
        return self._weights[bisect_left(self._ids, token)]

    def skip(self, value: int) -> int:
        """Where ``value`` of [0, left) lies among the weights of all ids."""
        return value + self._weights[bisect_right(self._starts, value)]


def _write_row(
    out: RangeEncoder, row: SparseRow, drawn: int | None, shape: Shape, law: IdPrior
) -> None:
    """A row, and which of its entries was drawn: an id of it, or None for the rest."""
    entries = sorted(zip([-count for count in row.counts.tolist()], row.ids.tolist(), strict=True))
    left, most, slots = shape.total, shape.total, min(shape.k, law.vocab_size)
    if shape.nested:
        size = row.rest.bit_length()
        out.uniform(size, shape.total.bit_length() + 1)
        if size > 1:
            fewest = 1 << size - 1
            out.uniform(row.rest - fewest, min(2 * fewest, shape.total + 1) - fewest)
        left -= row.rest
    below, rank_below, rank_count = 0, left, row.rest
    groups: list[list[int]] = []
    for negative, token in entries:
        count = -negative
        if most > 1:  # else only ones are left
            fewest, largest = -(-left // slots), min(most, left)
            out.push(count - fewest, 1, largest - fewest + 1)
            left, slots = left - count, slots - 1
        if not groups or count != most:
            groups.append([])
        groups[-1].append(token)
        if token == drawn:
            rank_below, rank_count = below, count
        below += count
        most = count
    out.push(rank_below, rank_count, shape.total)
    for group in groups:
        write_set(out, group, law)


def _reading_row(
    source: RangeDecoder, shape: Shape, law: IdPrior
) -> Slices[tuple[SparseRow, int | None]]:
    """A row, and which of its entries was drawn: an index, or None for the rest."""
    counts: list[int] = []
    groups: list[int] = []
    left, most, slots = shape.total, shape.total, min(shape.k, law.vocab_size)
    rest = _read_rest(source, shape.total) if shape.nested else 0
    left -= rest
    pause = slots - SLICE
    while left:
        if most == 1 and groups:
            counts += [1] * left
            groups[-1] += left
            break
        fewest, largest = -(-left // slots), min(most, left)
        count = fewest + source.uniform(largest - fewest + 1)
        if count != most or not groups:
            groups.append(1)
        else:
            groups[-1] += 1
        counts.append(count)
        left, most, slots = left - count, count, slots - 1
        if slots == pause:
            pause -= SLICE
            yield
    share = source.peek(shape.total)
    spans = [*counts, rest]
    below, rank = 0, 0
    while below + spans[rank] <= share:
        below += spans[rank]
        rank += 1
    source.take(below, spans[rank])
    ids: list[int] = []
    due = SLICE
    for size in groups:
        if size == 1:
            ids.append(read_one(source, law))
        elif size <= FEW:
            ids += read_set(source, size, law)
        else:
            ids += yield from reading_set(source, size, law)
        if len(ids) >= due:
            due = len(ids) + SLICE
            yield
    drawn = ids[rank] if rank < len(ids) else None
    if len(ids) > 1:
        order = sorted(range(len(ids)), key=ids.__getitem__)
        ids, counts = [ids[i] for i in order], [counts[i] for i in order]
    row = SparseRow(np.array(ids, np.int64), np.array(counts, np.int64), shape.total, rest)
    return row, None if drawn is None else bisect_left(ids, drawn)


def _read_rest(source: RangeDecoder, total: int) -> int:
    size = source.uniform(total.bit_length() + 1)
    if size <= 1:
        return size
    fewest = 1 << size - 1
    return fewest + source.uniform(min(2 * fewest, total + 1) - fewest)
