"""Sets of ids through a range coder, at the cost of the set: their order is not paid for.

The ids' range is halved again and again; at each halving the number of ids that fall to the left is
coded under the law that a random set would give it (hypergeometric, weighted by the prior), until
one id is left, which is coded as such. A set of n takes about 2.4 n symbols.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate

from draftlink.idprior import IdPrior
from draftlink.rangecoder import RangeDecoder, RangeEncoder

_PEAK = 40  # bits of the likeliest count's weight while a law is computed
_KEPT = 16  # and when it is done
_CACHED = 64  # laws of sets up to this size are kept


def write_set(out: RangeEncoder, ids: list[int], prior: IdPrior) -> None:
    """Append a set of known size: ``ids`` ascending and distinct, one or more."""
    # An explicit stack: (ids' slice, their range).
    work = [(0, len(ids), 0, prior.vocab_size)]
    while work:
        first, last, start, stop = work.pop()
        count = last - first
        if count == stop - start or not count:
            continue  # nothing left to tell
        if count == 1:
            base, token = prior.below(start), ids[first]
            total = prior.below(stop) - base
            out.push(prior.below(token) - base, prior.weight(token), total)
            continue
        middle = prior.split(start, stop)
        at = bisect_left(ids, middle, first, last)
        fewest, edges = _law(count, start, middle, stop, prior)
        j = at - first - fewest
        out.push(edges[j], edges[j + 1] - edges[j], edges[-1])
        work.append((at, last, middle, stop))
        work.append((first, at, start, middle))


def read_set(source: RangeDecoder, count: int, prior: IdPrior) -> list[int]:
    """The next set of ``count`` ids, ascending; 1 <= count <= vocab_size."""
    ids: list[int] = []
    work = [(count, 0, prior.vocab_size)]
    while work:
        count, start, stop = work.pop()
        if count == stop - start or not count:
            ids.extend(range(start, start + count))
            continue
        if count == 1:
            base = prior.below(start)
            token = prior.find(base + source.peek(prior.below(stop) - base))
            source.take(prior.below(token) - base, prior.weight(token))
            ids.append(token)
            continue
        middle = prior.split(start, stop)
        fewest, edges = _law(count, start, middle, stop, prior)
        j = bisect_right(edges, source.peek(edges[-1])) - 1
        source.take(edges[j], edges[j + 1] - edges[j])
        work.append((count - fewest - j, middle, stop))
        work.append((fewest + j, start, middle))
    return ids


def _law(
    count: int, start: int, middle: int, stop: int, prior: IdPrior
) -> tuple[int, tuple[int, ...]]:
    """How many of ``count`` ids in [start, stop) lie below ``middle``.

    The fewest that can, and the edges of each number's frequency from there on.
    """
    below = prior.below(middle)
    weights = below - prior.below(start), prior.below(stop) - below
    law = _split_law if count <= _CACHED else _split_law.__wrapped__
    return law(count, middle - start, stop - middle, *weights)


@lru_cache(maxsize=1 << 13)
def _split_law(
    count: int, left: int, right: int, left_weight: int, right_weight: int
) -> tuple[int, tuple[int, ...]]:
    """C(left, i) C(right, count - i) (left_weight / left)^i (right_weight / right)^(count - i).

    From a point near its peak the law is followed downhill both ways by the ratio of neighbours;
    each number keeps a frequency of at least 1.
    """
    fewest, most = max(0, count - right), min(count, left)
    up, down = left_weight * right, right_weight * left
    peak = min(max(count * left_weight // (left_weight + right_weight), fewest), most)
    law = [1 << _PEAK]
    for i in range(peak, fewest, -1):
        law.append(law[-1] * i * (right - count + i) * down // ((left - i + 1) * (count - i + 1) * up))
    law.reverse()
    for i in range(peak, most):
        law.append(law[-1] * (left - i) * (count - i) * up // ((i + 1) * (right - count + i + 1) * down))
    kept = (1 + (weight >> _PEAK - _KEPT) for weight in law)
    return fewest, (0, *accumulate(kept))
