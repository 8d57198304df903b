"""FP16 rows to bits and back, as published systems send them: plain fields of fixed width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from draftlink.coding.bits import BitReader, BitWriter, width_for
from draftlink.coding.slices import Slices, whole
from draftlink.distribution.sparse import FP16_UNIT, Drafted, SparseRow

_PATTERNS = np.arange(int(np.float16(1).view(np.uint16)) + 1, dtype=np.uint16)  # patterns of [0, 1]
_COUNTS = (_PATTERNS.view(np.float16).astype(np.float64) / FP16_UNIT).astype(np.int64)


def encode(drafted: Sequence[Drafted], k: int, vocab_size: int) -> tuple[bytes, int]:
    """Drafted tokens, each with a row of at most ``k`` entries: bytes, and bits before padding.

    Per token: K_j − 1, the ids, the FP16 values, and which entry was drawn. With k the vocabulary
    size (``dense``) there are V values and neither K_j nor ids.
    """
    out = BitWriter()
    for token in drafted:
        row = token.row
        assert row is not None
        if k < vocab_size:
            out.write(len(row.ids) - 1, width_for(k))
            out.write(row.ids, width_for(vocab_size))
            out.write(_bits(row.counts), 16)
            out.write(token.index, width_for(len(row.ids)))
        else:
            values = np.zeros(vocab_size, dtype=np.uint16)
            values[row.ids] = _bits(row.counts)
            out.write(values, 16)
            out.write(token.token, width_for(vocab_size))
    return out.bytes(), out.bits


def decode(payload: bytes, length: int, k: int, vocab_size: int) -> list[Drafted]:
    """The payload of ``length`` drafted tokens. Raises ValueError for anything but true rows."""
    return whole(decoding(payload, length, k, vocab_size))


def decoding(payload: bytes, length: int, k: int, vocab_size: int) -> Slices[list[Drafted]]:
    """``decode`` in slices of a token: numpy decodes a row as long as a message in 10 ms."""
    source = BitReader(payload)
    drafted: list[Drafted] = []
    for _ in range(length):
        if k < vocab_size:
            count = source.field(width_for(k)) + 1
            if count > k:
                raise ValueError(f"a row of {count} entries, where k is {k}")
            ids = source.read(count, width_for(vocab_size))
            if ids[-1] >= vocab_size or (np.diff(ids) <= 0).any():
                raise ValueError("a row's ids are out of range, repeated or out of order")
            counts = _counts(source.read(count, 16))
            if not counts.all():
                raise ValueError("a row has an entry of probability 0")
            index = source.field(width_for(count))
        else:
            counts = _counts(source.read(vocab_size, 16))
            token = source.field(width_for(vocab_size))
            if token >= vocab_size or not counts[token]:
                raise ValueError("the drawn token has no probability")
            ids = np.flatnonzero(counts)
            counts = counts[ids]
            index = int(np.searchsorted(ids, token))
        if index >= len(ids):
            raise ValueError(f"the drawn entry is {index}, where the row has {len(ids)}")
        drafted.append(Drafted.of(SparseRow(ids, counts, int(counts.sum())), index))
        yield
    source.finish()
    return drafted


def _bits(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Integers × 2⁻²⁴ as the bit patterns of FP16."""
    return (counts * FP16_UNIT).astype(np.float16).view(np.uint16)


def _counts(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bit patterns of FP16 as integers × 2⁻²⁴. Raises ValueError outside [0, 1]."""
    # Patterns above that of 1 are larger, NaN, or negative, as the zero of that sign is: a row has
    # one form.
    if bits.max(initial=0) >= len(_COUNTS):
        raise ValueError("a row's FP16 values are not probabilities")
    return _COUNTS[bits]
