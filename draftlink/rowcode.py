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
from itertools import groupby

import numpy as np

from draftlink.idprior import IdPrior, prior
from draftlink.idset import read_set, write_set
from draftlink.rangecoder import RangeDecoder, RangeEncoder
from draftlink.sparse import SparseRow

Drawn = tuple[SparseRow, int]  # a row, and which of its entries was drawn


def encode(rows: Sequence[Drawn], k: int, total: int, vocab_size: int) -> tuple[bytes, int]:
    """Rows of at most ``k`` entries with sum ``total`` (at most 2**24) to a payload.

    Its bytes, and its length in bits before padding.
    """
    out = RangeEncoder()
    law = prior(vocab_size)
    for row, index in rows:
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
    order = np.lexsort((row.ids, -row.counts))
    counts: list[int] = row.counts[order].tolist()
    ids: list[int] = row.ids[order].tolist()
    left, most, slots = total, total, k
    for count in counts:
        if most == 1:
            break  # only ones are left
        fewest, most = -(-left // slots), min(most, left)
        out.uniform(count - fewest, most - fewest + 1)
        left, most, slots = left - count, count, slots - 1
    rank = int(np.flatnonzero(order == index)[0])
    out.push(sum(counts[:rank]), counts[rank], total)
    first = 0
    for _, group in groupby(counts):
        last = first + sum(1 for _ in group)
        write_set(out, ids[first:last], law)
        first = last


def _read_row(source: RangeDecoder, k: int, total: int, law: IdPrior) -> Drawn:
    counts: list[int] = []
    left, most, slots = total, total, k
    while left:
        if most == 1:
            counts += [1] * left
            break
        fewest, most = -(-left // slots), min(most, left)
        most = fewest + source.uniform(most - fewest + 1)
        counts.append(most)
        left, slots = left - most, slots - 1
    drawn = source.peek(total)
    rank, start = 0, 0
    while drawn >= start + counts[rank]:
        start += counts[rank]
        rank += 1
    source.take(start, counts[rank])
    ids: list[int] = []
    for _, group in groupby(counts):
        ids += read_set(source, sum(1 for _ in group), law)
    order = np.argsort(np.asarray(ids, dtype=np.int64))
    row = SparseRow(
        np.asarray(ids, dtype=np.int64)[order], np.asarray(counts, dtype=np.int64)[order], total
    )
    if (np.diff(row.ids) == 0).any():
        raise ValueError("a row's ids are repeated")
    return row, int(np.flatnonzero(order == rank)[0])
