"""Sets of ids through a range coder, at the cost of the set: their order is not paid for.

The ids' range is halved again and again; at each halving the number of ids that fall to the left is
coded under the law that a random set would give it (hypergeometric, weighted by the prior), until
one id is left, which is coded as such. A set of n takes about 2.4 n symbols.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate

from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import Slices
from draftlink.distribution.prior import IdPrior, prior

_PEAK = 40  # bits of the likeliest number's weight while a law is computed
_KEPT = 16  # and at most, when it is done
_CACHED = 64  # laws of sets up to this size are kept
SYMBOLS = 512  # that are read in one go

Law = tuple[int, tuple[int, ...]]  # the fewest on the left; edges of each number from there on
# Sets that are still to be read, the next one last: a node and a size, or, where all ids of
# [start, stop) are equally likely, None, a size and that range.
Work = list[tuple["_Node | None", int, int, int]]


class _Node:
    """The octaves [first, last) of a prior, parted where their weight halves best."""

    def __init__(self, law: IdPrior, first: int, last: int) -> None:
        self.start, self.stop = law.starts[first], law.starts[last]
        self.base = law.below(first)
        self.total = law.below(last) - self.base
        self.flat = last - first == 1  # all weights are equal; halved by arithmetic from here on
        if not self.flat:
            half = self.base + self.total // 2
            cut = min(range(first + 1, last), key=lambda j: abs(law.below(j) - half))
            self.left, self.right = _Node(law, first, cut), _Node(law, cut, last)

    def split(self, count: int) -> Law:
        """How many of ``count`` ids of this node are its left node's."""
        left, right = self.left, self.right
        return _law(
            count, left.stop - left.start, right.stop - right.start, left.total, right.total
        )


@lru_cache(maxsize=8)
def _tree(vocab_size: int) -> _Node:
    law = prior(vocab_size)
    return _Node(law, 0, len(law.starts) - 1)


def write_set(out: RangeEncoder, ids: list[int], law: IdPrior) -> None:
    """Append a set of known size: ``ids`` ascending and distinct, one or more."""
    if len(ids) == 1:
        out.push(*law.share(ids[0]), law.total)
        return
    work = [(_tree(law.vocab_size), 0, len(ids))]
    while work:
        node, first, last = work.pop()
        if last - first == 1:
            below, weight = law.share(ids[first])
            out.push(below - node.base, weight, node.total)
        elif node.flat:
            _write_flat(out, ids, first, last, node.start, node.stop)
        elif first < last:
            middle = bisect_left(ids, node.right.start, first, last)
            fewest, edges = node.split(last - first)
            i = middle - first - fewest
            out.push(edges[i], edges[i + 1] - edges[i], edges[-1])
            work.append((node.right, middle, last))
            work.append((node.left, first, middle))


def _write_flat(
    out: RangeEncoder, ids: list[int], first: int, last: int, start: int, stop: int
) -> None:
    """The ids [first, last) of the list, all in [start, stop), where all are equally likely."""
    work = [(first, last, start, stop)]
    while work:
        first, last, start, stop = work.pop()
        count = last - first
        if count == 1:
            out.push(ids[first] - start, 1, stop - start)
        elif 0 < count < stop - start:
            half = (start + stop) >> 1
            middle = bisect_left(ids, half, first, last)
            fewest, edges = _flat_law(count, half - start, stop - half)
            i = middle - first - fewest
            out.push(edges[i], edges[i + 1] - edges[i], edges[-1])
            if middle < last:
                work.append((middle, last, half, stop))
            if first < middle:
                work.append((first, middle, start, half))


def read_one(source: RangeDecoder, law: IdPrior) -> int:
    """The next set, which is of one id."""
    return _read_in(source, law, 0, law.total)


def read_set(source: RangeDecoder, count: int, law: IdPrior) -> list[int]:
    """The next set of ``count`` ids, ascending; 1 <= count <= vocab_size."""
    ids: list[int] = []
    work: Work = [(_tree(law.vocab_size), count, 0, 0)]
    while work:
        _read(source, law, ids, work)
    return ids


def reading_set(source: RangeDecoder, count: int, law: IdPrior) -> Slices[list[int]]:
    """``read_set`` in slices."""
    ids: list[int] = []
    work: Work = [(_tree(law.vocab_size), count, 0, 0)]
    while work:
        _read(source, law, ids, work)
        yield
    return ids


def _read(source: RangeDecoder, law: IdPrior, ids: list[int], work: Work) -> None:
    """Some symbols of the sets on the stack ``work``, or all; ``ids`` are appended."""
    for _ in range(SYMBOLS):
        node, count, start, stop = work.pop()
        if node is None:
            if count == 1:
                ids.append(start + source.uniform(stop - start))
            elif count == stop - start:
                ids.extend(range(start, stop))
            else:
                half = (start + stop) >> 1
                fewest, edges = _flat_law(count, half - start, stop - half)
                i = bisect_right(edges, source.peek(edges[-1])) - 1
                source.take(edges[i], edges[i + 1] - edges[i])
                left = fewest + i
                if left < count:
                    work.append((None, count - left, half, stop))
                if left:
                    work.append((None, left, start, half))
        elif count == 1:
            ids.append(_read_in(source, law, node.base, node.total))
        elif node.flat:
            work.append((None, count, node.start, node.stop))
        else:
            fewest, edges = node.split(count)
            i = bisect_right(edges, source.peek(edges[-1])) - 1
            source.take(edges[i], edges[i + 1] - edges[i])
            left = fewest + i
            if left < count:
                work.append((node.right, count - left, 0, 0))
            if left:
                work.append((node.left, left, 0, 0))
        if not work or count > _CACHED:  # whose law took up to a millisecond
            return


def _read_in(source: RangeDecoder, law: IdPrior, base: int, total: int) -> int:
    """One id of a node."""
    token, below, weight = law.owner(base + source.peek(total))
    source.take(below - base, weight)
    return token


def _law(count: int, left: int, right: int, left_weight: int, right_weight: int) -> Law:
    kept = _split_law if count <= _CACHED else _split_law.__wrapped__
    return kept(count, left, right, left_weight, right_weight)


def _flat_law(count: int, left: int, right: int) -> Law:
    return _law(count, left, right, left, right)


@lru_cache(maxsize=1 << 12)
def _split_law(count: int, left: int, right: int, left_weight: int, right_weight: int) -> Law:
    """C(left, i) C(right, count - i) (left_weight / left)^i (right_weight / right)^(count - i).

    From near its peak the law is followed both ways by the ratio of neighbours, until nothing is
    left of it; each number keeps a frequency of at least 1, and all together less than 2**28.
    """
    fewest, most = max(0, count - right), min(count, left)
    up, down = left_weight * right, right_weight * left
    peak = min(max(count * left_weight // (left_weight + right_weight), fewest), most)
    law = [1 << _PEAK]
    for i in range(peak, fewest, -1):
        ratio = i * (right - count + i) * down, (left - i + 1) * (count - i + 1) * up
        law.append(law[-1] * ratio[0] // ratio[1])
        if not law[-1]:
            law += [0] * (i - 1 - fewest)
            break
    law.reverse()
    for i in range(peak, most):
        ratio = (left - i) * (count - i) * up, (i + 1) * (right - count + i + 1) * down
        law.append(law[-1] * ratio[0] // ratio[1])
        if not law[-1]:
            law += [0] * (most - 1 - i)
            break
    shift = max(law).bit_length() - min(_KEPT, 27 - len(law).bit_length())
    return fewest, (0, *accumulate(1 + (weight >> shift) for weight in law))
