"""Pairs of an id and its probability through a range coder: a distribution's, and draws from it.

A probability is a float64, sent as it is, once for each id. Draws repeat ids, the more the more
peaked the distribution; a repeated one costs its order alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.sets import read_one, read_set, write_set
from draftlink.distribution.prior import IdPrior

Pair = tuple[int, float]  # an id, and its probability, in (0, 1]

SLACK = 1e-6  # of a sum of probabilities
_WORD = 16  # bits of a float64 that are one symbol


def write_draws(out: RangeEncoder, draws: Sequence[Pair], law: IdPrior) -> None:
    """Append draws of known number, in their order.

    One is either an earlier id again, as likely as it has come before, or a new one, as likely as
    there are different ids so far (PPM's method C); a new id by the prior.
    """
    places: dict[int, int] = {}
    counts: list[int] = []
    for number, (token, share) in enumerate(draws):
        place, total = places.get(token), number + len(counts)
        if place is None:
            if total:
                out.push(number, len(counts), total)
            out.push(*law.share(token), law.total)
            _write_share(out, share)
            places[token] = len(counts)
            counts.append(1)
        else:
            out.push(sum(counts[:place]), counts[place], total)
            counts[place] += 1


def read_draws(source: RangeDecoder, number: int, law: IdPrior) -> list[Pair]:
    """``number`` draws. Raises ValueError for what cannot have been drawn."""
    known: dict[int, float] = {}
    pairs: list[Pair] = []
    counts: list[int] = []
    draws: list[Pair] = []
    for drawn in range(number):
        total = drawn + len(counts)
        value = source.peek(total) if total else drawn
        if value < drawn:  # an earlier one
            place, before = 0, 0
            while value >= before + counts[place]:
                before += counts[place]
                place += 1
            source.take(before, counts[place])
            counts[place] += 1
            draws.append(pairs[place])
            continue
        if total:
            source.take(drawn, len(counts))
        token = read_one(source, law)
        if token in known:
            raise ValueError(f"the id {token} is drawn for the first time twice")
        known[token] = _read_share(source)
        pairs.append((token, known[token]))
        counts.append(1)
        draws.append(pairs[-1])
    if not sum(known.values()) <= 1.0 + SLACK:
        raise ValueError(f"probabilities of sum {sum(known.values())} were drawn from")
    return draws


def write_support(out: RangeEncoder, pairs: Sequence[Pair], law: IdPrior) -> None:
    """Append all ids of a distribution, ascending, of known number, with their probabilities."""
    write_set(out, [token for token, _ in pairs], law)
    for _, share in pairs:
        _write_share(out, share)


def read_support(source: RangeDecoder, number: int, law: IdPrior) -> list[Pair]:
    """A distribution of ``number`` ids. Raises ValueError for what is none."""
    ids = read_set(source, number, law)
    pairs = [(token, _read_share(source)) for token in ids]
    total = sum(share for _, share in pairs)
    if not abs(total - 1.0) <= SLACK:
        raise ValueError(f"a distribution of sum {total}")
    return pairs


def _write_share(out: RangeEncoder, share: float) -> None:
    (bits,) = struct.unpack("<Q", struct.pack("<d", share))
    for at in (48, 32, 16, 0):
        out.uniform(bits >> at & 0xFFFF, 1 << _WORD)


def _read_share(source: RangeDecoder) -> float:
    bits = 0
    for _ in range(4):
        bits = bits << _WORD | source.uniform(1 << _WORD)
    share: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    if not 0.0 < share <= 1.0:  # nor is NaN
        raise ValueError(f"{share} is no probability of an id that can be drawn")
    return share
