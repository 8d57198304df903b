"""The shared noise of the ``coupled`` scheme: both ends race the same clocks, and draw one token.

By the Gumbel-max trick arg max log p(v) + g(v), with independent Gumbel g, is distributed as p.
With x = exp(-g), which is Exp(1), the same token is arg min x(v) / p(v): an exponential race, in
which token v arrives at rate p(v). That form is used here: it takes no logarithm of p. Two
distributions that race the same x agree with probability at least (1 - TV) / (1 + TV)
(Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative
decoding", arXiv 2408.07978).

x is a function of (key, position, id) and of nothing else. Ids come in blocks of BLOCK, and the
noise of a block starts from its minimum. The least of n Exp(1) clocks is E / n with E ~ Exp(1),
each of the n is equally likely to be the one that rings first, and by memorylessness the others
then have Exp(1) still to go; so drawing minimum, winner and remainders in that order gives n
independent Exp(1) clocks, exactly. Of the tokens that win their blocks, one in BLOCK of all, the
first arrival is then known, and whoever has too little weight to beat it even by its block's
minimum draws no clock. That leaves some BLOCK tokens of any number: as many as are better than the
best of one in BLOCK.

The last block is drawn in full like any other, and ids past the vocabulary are left out of the
race. So x does not depend on the size of the vocabulary: ends that pad theirs differently (151,936
at the device, 152,064 at the base station) see the same noise for every id they share.

The generator is Philox (see ``philox``). It is no cipher, and need not be: both ends hold the key.

Everything is computed by integer operations and by +, -, * and / of float64, which IEEE 754 rounds
in one way only; the logarithm too, for libraries differ in theirs. numpy and torch therefore agree
to the bit, on any CPU or GPU. Each operator must stay a kernel of its own: a compiler that may fuse
a * b + c into one rounding (torch.compile, a hand-written CUDA kernel) would break that. So would
dividing a tensor by a Python number: CUDA multiplies by the rounded reciprocal.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from draftlink.distribution.philox import MASK, Array, exponential, in_pairs, philox

BLOCK_BITS = 6
BLOCK = 1 << BLOCK_BITS  # ids whose minimum is drawn first; part of the noise's definition
HALF = BLOCK // 2  # one counter yields the bits of two clocks
LIMIT = 1 << 32  # ids are below it; their counters then fit 32 bits

# Second word of the counter: what the counter's bits are for.
MINIMUM, REMAINDER = 0, 1

AHEAD = 1 << 12  # minima of blocks that are drawn at once, of one position or of several
KEPT = 64  # times as many are remembered

TINIEST = 1e-300  # a row's largest weight must be above it, so that its x / p is finite

BELOW = 1.0 - 2.0**-50  # more than the roundings of two divisions of normal numbers are
NORMAL = 1e-290  # what is far less, or far more than its reciprocal, may not be of such
LEAST = 5e-324  # the least number above 0


def words(keys: Sequence[bytes], positions: Sequence[int]) -> list[NDArray[np.int64]]:
    """Philox's two key words and the two counter words that hold the position, each (N, 1).

    Raises ValueError for a position outside [0, 2**64).
    """
    if any(not 0 <= position < 1 << 64 for position in positions):
        raise ValueError("positions must be between 0 and 2**64 - 1")
    # Hashed, so that the noise tells nothing about what else a key is used for.
    seeds = [hashlib.blake2b(b"race", digest_size=8, key=key).digest() for key in keys]
    numbers = [int.from_bytes(seed, "little") for seed in seeds]
    return [
        np.array([(number >> shift) & MASK for number in values], dtype=np.int64)[:, None]
        for values in (numbers, positions)
        for shift in (0, 32)
    ]


def _minima(words: Sequence[Array], blocks: Array, xp: Any) -> tuple[Array, Array]:
    """The least x of each of ``blocks``, and its place in the block; shapes broadcast."""
    (high, place), (low, _) = _drawn(words, blocks, MINIMUM, xp)
    return exponential(high, low, xp) * (1.0 / BLOCK), place >> (32 - BLOCK_BITS)


def _drawn(words: Sequence[Array], counter: Array, purpose: int, xp: Any) -> Sequence[Any]:
    """Philox's first and third words, and its second and fourth."""
    k0, k1, p0, p1 = words
    if xp is np:
        return in_pairs((counter, purpose, p0, p1), (k0, k1))
    a, b, c, d = philox((counter, purpose, p0, p1), (k0, k1))
    return (a, c), (b, d)


def _nearby(
    key: bytes, positions: Sequence[int], blocks: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """``_minima`` of the first blocks for one key: each of shape (N, blocks).

    Who writes a text asks for one position after the other, and several take hardly longer than
    one. So a whole group of them is drawn, and remembered.
    """
    count = 1 << max((AHEAD // blocks).bit_length() - 1, 0)  # a power of two, so groups end at 2⁶⁴
    found = [_group(key, at // count * count, count, blocks) for at in positions]
    each = zip(found, positions, strict=True)
    least, winner = zip(*((a[at % count], b[at % count]) for (a, b), at in each), strict=True)
    return np.stack(least), np.stack(winner)


@functools.lru_cache(maxsize=KEPT)
def _group(
    key: bytes, first: int, count: int, blocks: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """``_minima`` of the first blocks at ``count`` positions: each of shape (count, blocks)."""
    known = words([key], range(first, first + count))
    return _minima(known, np.arange(blocks), np)


def _clocks(words: Sequence[Array], ids: Array, minima: tuple[Array, Array], xp: Any) -> Array:
    """x of ``ids`` (M,), where ``minima`` are their blocks', and ``words`` (M,) or of one each."""
    least, winner = minima
    place = ids % BLOCK
    (a, c), (b, d) = _drawn(words, ids // BLOCK * HALF + place % HALF, REMAINDER, xp)
    first = place < HALF
    x = least + exponential(xp.where(first, a, c), xp.where(first, b, d), xp)
    return xp.where(place == winner, least, x)


class Race:
    """The noise of one generation: Exp(1) clocks x, one for each position and token id."""

    def __init__(self, key: bytes) -> None:
        """``key``: the one that both ends hold, ``noise.key_from_seed(seed, "coupled")``."""
        self._key = key

    def entries(self, position: int, ids: ArrayLike) -> NDArray[np.float64]:
        """x of the token ``ids`` (any shape, repeats allowed) at ``position``, in their shape.

        Raises ValueError for a position outside [0, 2**64) or an id outside [0, 2**32).
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ((ids < 0) | (ids >= LIMIT)).any():
            raise ValueError("token ids must be between 0 and 2**32 - 1")
        known, flat = [word[0] for word in words([self._key], [position])], ids.reshape(-1)
        x: NDArray[np.float64] = _clocks(known, flat, _minima(known, flat // BLOCK, np), np)
        return x.reshape(ids.shape)

    def pick(self, position: int, p: NDArray[np.float64]) -> int:
        """The token that ``pick_many`` picks at ``position`` for one row of weights (V,)."""
        return int(pick_many([self._key], [position], p[None])[0])


def pick_many(keys: Sequence[bytes], positions: Sequence[int], p: Array) -> NDArray[np.int64]:
    """The token arg min x(v) / p(v) of each row, the lowest id of equals: (N,), on the host.

    It is ``first_arrivals`` with a ``count`` of 1.
    """
    return first_arrivals(keys, positions, p, 1)[0][:, 0]


def first_arrivals(
    keys: Sequence[bytes], positions: Sequence[int], p: Array, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ``count`` tokens of least x(v) / p(v) of each row and those quotients, least first.

    Ids and arrivals are (N, count), on the host; of equal arrivals the lowest id comes first. Where
    a row has weight on fewer tokens the rest are -1, at infinity. The first is the race's winner;
    the others are the ones to propose beside it: the probability that another distribution's winner
    is among them grows with each (Kobus and Gündüz, arXiv 2504.15475;
    ``theory.candidates_acceptance_bound``).

    ``p`` (N, V): float64 weights, a numpy array or a torch tensor. They need not be normalised; a
    token whose weight is not above 0 never arrives. Row i races the clocks of ``keys[i]`` at
    ``positions[i]``. A tensor stays on its device: a few numbers for each row leave it. (On a CPU
    ``tensor.numpy()`` picks the same tokens sooner, and copies nothing.)

    Raises ValueError for a row with NaN, or whose largest weight is not finite and above 1e-300;
    for weights not of float64; for shapes or positions that do not fit; for a ``count`` below 1.
    """
    rows = _Rows(keys, positions, p)
    xp, host = rows.xp, rows.host
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    check_largest(host(xp.amax(p, 1)))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        least, winner = rows.minima()
        # A time that ``count`` tokens have arrived by: of those that win their blocks.
        winners = rows.arrivals(rows.numbers, rows.blocks * BLOCK + winner, least)
        reached = _reached(winners, count, xp)
        # Who is to arrive by then needs so much weight: nobody in its block comes before ``least``.
        weight = least / reached[:, None]
        normal = (weight > NORMAL) & (weight < 1.0 / NORMAL)
        which, ids = _heavy(p, xp.where(normal, weight * BELOW, LEAST), xp)
        block = ids // BLOCK
        known = [word[which, 0] for word in rows.words]
        x = _clocks(known, ids, (least[which, block], winner[which, block]), xp)
        times = rows.arrivals(which, ids, x)
        came = xp.where((times <= reached[which]) & (times < xp.inf))
        which, times, ids = host(which[came]), host(times[came]), host(ids[came])
    return _earliest(which, times, ids, len(p), count)


class _Rows:
    """Rows of weights (N, V) and the clocks that they race, where the weights are."""

    def __init__(self, keys: Sequence[bytes], positions: Sequence[int], p: Array) -> None:
        """Raises ValueError for weights that are not float64, or shapes that do not fit."""
        self.xp: Any = sys.modules[type(p).__module__.partition(".")[0]]  # numpy or torch, as p is
        self._p = p
        if p.dtype != self.xp.float64:
            raise ValueError(f"weights must be float64, not {p.dtype}")
        if p.ndim != 2 or not 0 < p.shape[1] <= LIMIT or not len(keys) == len(positions) == len(p):
            raise ValueError(
                f"{len(keys)} keys and {len(positions)} positions for weights {tuple(p.shape)}"
            )
        self._keys, self._positions = keys, positions
        self.words = [self._there(word) for word in words(keys, positions)]
        self.numbers = self._there(np.arange(len(p)))[:, None]
        self.blocks = self._there(np.arange(-(-p.shape[1] // BLOCK)))

    def _there(self, array: NDArray[np.int64]) -> Array:
        return array if self.xp is np else self.xp.asarray(array, device=self._p.device)

    def host(self, array: Array) -> NDArray[Any]:
        """An array as numpy's, on the host."""
        return np.asarray(array if self.xp is np else array.cpu())

    def arrivals(self, row: Array, ids: Array, x: Array) -> Array:
        """x / p of ``ids``; infinite past the vocabulary and where p is not above 0."""
        xp, inside = self.xp, ids < self._p.shape[1]
        weight = self._p[row, xp.where(inside, ids, 0)]
        return xp.where(inside & (weight > 0.0), x / weight, xp.inf)

    def minima(self) -> tuple[Array, Array]:
        """Of all blocks: the least x, and its place in the block, each (N, blocks)."""
        if self.xp is np and len(set(self._keys)) == 1:
            return _nearby(self._keys[0], self._positions, len(self.blocks))
        return _minima(self.words, self.blocks, self.xp)


def _reached(times: Array, count: int, xp: Any) -> Array:
    """A time (N,) by which ``count`` of the arrivals (N, M) have come, or all that ever come."""
    for left in range(count - 1, -1, -1):
        first = xp.amin(times, 1)
        if left:  # Equals go together: the time is then later than need be, which is no harm.
            times = xp.where(times == first[:, None], xp.inf, times)
    return first


def _heavy(p: Array, least: Array, xp: Any) -> tuple[Array, Array]:
    """Rows and ids (M,) of the weights in p (N, V) that are at least their block's (N, blocks)."""
    whole = p.shape[1] // BLOCK
    size = whole * BLOCK
    inside = p[:, :size].reshape(len(p), whole, BLOCK) >= least[:, :whole, None]
    (flat,) = xp.where(inside.reshape(-1))
    if p.shape[1] == size:
        return flat // size, flat % size
    which, places = xp.where(p[:, size:] >= least[:, whole:])
    rows = flat // size if size else flat  # no whole block, no weight in one
    return xp.concatenate((rows, which)), xp.concatenate((flat - rows * size, size + places))


def _earliest(
    which: NDArray[np.int64],
    times: NDArray[np.float64],
    tokens: NDArray[np.int64],
    rows: int,
    count: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ``count`` earliest of each row, of arrivals (M,) of ``tokens`` in the rows ``which``."""
    order = np.lexsort((tokens, times, which))  # by row, then the earliest, then the lowest id
    which = which[order]
    rank = np.arange(len(which)) - np.searchsorted(which, which)
    kept = rank < count
    ids = np.full((rows, count), -1, dtype=np.int64)
    arrivals = np.full((rows, count), np.inf)
    ids[which[kept], rank[kept]] = tokens[order][kept]
    arrivals[which[kept], rank[kept]] = times[order][kept]
    return ids, arrivals


def check_largest(weights: ArrayLike) -> None:
    """Raises ValueError unless a race can be run with the ``weights``, the largest of each row."""
    top = np.asarray(weights)
    if not ((top > TINIEST) & (top < np.inf)).all():
        raise ValueError("every row needs finite weights, the largest above 1e-300")
