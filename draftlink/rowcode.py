"""Sparse rows and drawn entries to bytes and back: the entropy-coded form of ``lattice``.

A row goes largest count first. Each count is coded as one of those that are still possible, all
equally likely: at most the count before it and what is left of the sum, at least what the entries
that remain can carry. How many entries there are follows, and costs nothing. Then comes the drawn
entry, at its own -log2 q̂(x), and the ids: a set for each group of equal counts.

Told in this order a row needs fewer bits than log2 C(V, K_j) + log2 C(ℓ-1, K_j-1), the price of a
set and of counts that may be any: a language model's counts fall steeply, and so do ids.
``bench/coder.py`` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from draftlink.idprior import IdPrior, prior
from draftlink.idset import read_set, write_set
from draftlink.rangecoder import RangeDecoder, RangeEncoder
from draftlink.sparse import SparseRow

Drawn = tuple[SparseRow, int]  # a row, and which of its entries was drawn
MAX_TOTAL = 1 << 24  # of a row's counts
MAX_ENTRIES = 4096  # of a row: what a peer can make this end decode


def encode(rows: Sequence[Drawn], k: int, total: int, vocab_size: int) -> tuple[bytes, int]:
    """Rows of at most ``k`` entries with sum ``total`` (at most MAX_TOTAL) to a payload.

    Its bytes, and its length in bits before padding. Raises ValueError for a row that is larger,
    has another sum, or an entry of 0.
    """
    out = RangeEncoder()
    law = prior(vocab_size)
    for row, index in rows:
        if len(row.ids) > k or row.total != total or row.counts.min() < 1:
            raise ValueError(
                f"a row of {len(row.ids)} entries of {row.total}, where {k} of {total} are coded"
            )
        _write_row(out, row, index, min(k, vocab_size), total, law)
    return out.finish()


def decode(payload: bytes, length: int, k: int, total: int, vocab_size: int) -> list[Drawn]:
    """The ``length`` rows of a payload. Raises ValueError for bytes that ``encode`` never writes.

    Time and memory are bounded by length * k, whatever the bytes.
    """
    source = RangeDecoder(payload)
    law = prior(vocab_size)
    rows = [_read_row(source, min(k, vocab_size), total, law) for _ in range(length)]
    source.finish()
    return rows


def _write_row(
    out: RangeEncoder, row: SparseRow, index: int, k: int, total: int, law: IdPrior
) -> None:
    drawn = int(row.ids[index])
    entries = sorted(zip((-row.counts).tolist(), row.ids.tolist(), strict=True))
    left, most, slots = total, total, k
    below, rank_below, rank_count = 0, 0, 0
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
    out.push(rank_below, rank_count, total)
    for group in groups:
        write_set(out, group, law)


def _read_row(source: RangeDecoder, k: int, total: int, law: IdPrior) -> Drawn:
    counts: list[int] = []
    groups: list[int] = []
    left, most, slots = total, total, k
    while left:
        if most == 1 and groups:
            counts += [1] * left
            groups[-1] += left
            break
        fewest, largest = -(-left // slots), min(most, left)
        count = fewest + source.uniform(largest - fewest + 1)
        if not groups or count != most:
            groups.append(0)
        groups[-1] += 1
        counts.append(count)
        left, most, slots = left - count, count, slots - 1
    share = source.peek(total)
    below, rank = 0, 0
    while below + counts[rank] <= share:
        below += counts[rank]
        rank += 1
    source.take(below, counts[rank])
    ids: list[int] = []
    for size in groups:
        ids += read_set(source, size, law)
    drawn = ids[rank]
    entries = np.array(sorted(zip(ids, counts, strict=True)), dtype=np.int64)
    row = SparseRow(entries[:, 0], entries[:, 1], total)
    if (np.diff(row.ids) == 0).any():
        raise ValueError("a row's ids are repeated")
    return row, int(np.searchsorted(row.ids, drawn))
