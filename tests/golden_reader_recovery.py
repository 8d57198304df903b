"""Reads what a device corrects by with ``docs/protocol.md`` alone: nothing of draftlink.

Sections are named beside the code; as in ``golden_reader``, which has the coder.
"""

from __future__ import annotations

import struct

from tests.golden_reader import Prior, Reader, read_set


def read_asking(data: bytes) -> dict[str, int]:
    """Section 3.3: a Draft with bit 2 of its flags."""
    assert data[:2] == bytes((2, 6))
    numbers, value, shift = [], 0, 0
    for byte in data[2:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
    epoch, base, length, had = numbers
    assert length == 0 and had > 0
    return {"epoch": epoch, "base": base, "had": had}


def read_share(source: Reader) -> float:
    """Section 10.3: a probability."""
    words = [source.uniform(1 << 16) for _ in range(4)]
    share: float = struct.unpack(">d", struct.pack(">4H", *words))[0]
    assert 0 < share <= 1
    return share


def read_pairs(data: bytes, begin: int, most: int, vocab_size: int) -> list[tuple[int, float]]:
    """Section 10.3, form 1."""
    assert data[0] == 1
    source, prior = Reader(data[1:]), Prior(vocab_size)
    known: list[tuple[int, float]] = []
    times: list[int] = []
    draws: list[tuple[int, float]] = []
    for i in range(source.uniform(most - begin) + 1):
        m = source.choose([*times, len(known)]) if i else 0
        if m == len(known):
            token = prior.read_one(source)
            assert token not in dict(known)
            known.append((token, read_share(source)))
            times.append(1)
        else:
            times[m] += 1
        draws.append(known[m])
    source.finish()
    assert sum(share for _, share in known) <= 1 + 1e-6
    return draws


def read_all(data: bytes, vocab_size: int) -> list[tuple[int, float]]:
    """Section 10.3, form 2."""
    assert data[0] == 2
    source, prior = Reader(data[1:]), Prior(vocab_size)
    ids = read_set(source, source.uniform(min(32, vocab_size)) + 1, prior)
    found = [(token, read_share(source)) for token in ids]
    source.finish()
    assert abs(sum(share for _, share in found) - 1) <= 1e-6
    return found
