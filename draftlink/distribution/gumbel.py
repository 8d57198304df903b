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
independent Exp(1) clocks, exactly. A block whose minimum over its largest weight cannot beat the
best arrival known stays closed, and a token of 150,000 takes some thousand clocks, not 150,000.

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

NEAREST = 8  # blocks that are opened before it is known who else may win: they cost what one costs

TINIEST = 1e-300  # a row's largest weight must be above it, so that its x / p is finite


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
    k0, k1, p0, p1 = words
    rounds = in_pairs if xp is np else philox
    high, low, place, _ = rounds((blocks, MINIMUM, p0, p1), (k0, k1))
    return exponential(high, low, xp) * (1.0 / BLOCK), place >> (32 - BLOCK_BITS)


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


def _clocks(
    words: Sequence[Array],
    blocks: Array,
    places: Array,
    xp: Any,
    minima: tuple[Array, Array] | None = None,
) -> Array:
    """All x (M, BLOCK) of ``blocks`` (M, 1); ``places`` is arange(BLOCK).

    ``minima``: what ``_minima`` gives for them, where it is known.
    """
    k0, k1, p0, p1 = words
    least, winner = minima or _minima(words, blocks, xp)
    rounds = in_pairs if xp is np else philox
    a, b, c, d = rounds((blocks * HALF + places[:HALF], REMAINDER, p0, p1), (k0, k1))
    high, low = xp.concatenate((a, c), 1), xp.concatenate((b, d), 1)
    return xp.where(places == winner, least, least + exponential(high, low, xp))


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
        blocks, row = np.unique(ids // BLOCK, return_inverse=True)
        clocks = _clocks(words([self._key], [position]), blocks[:, None], np.arange(BLOCK), np)
        x: NDArray[np.float64] = clocks[row.reshape(ids.shape), ids % BLOCK]
        return x

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
    peaks = _peaks(p, xp)
    check_largest(host(xp.amax(peaks, 1)))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # Nobody in a block arrives before least / peak: rounding is monotonic, so that holds for
        # the rounded quotients too, and closed blocks change nothing, not even a tie.
        least, winner = minima = rows.minima()
        bound = least / peaks
        # A time that ``count`` tokens have arrived by: of all blocks' winners and the few that
        # promise most, which alone count where a few tokens hold all the weight.
        most = min(NEAREST, bound.shape[1]) - 1
        order = np.argpartition(bound, most, 1) if xp is np else xp.argsort(bound, 1)
        which = xp.broadcast_to(rows.numbers, (nearest := order[:, :NEAREST]).shape).reshape(-1)
        ids, near = rows.opened(which[:, None], nearest.reshape(-1, 1), minima)
        others = rows.arrivals(rows.numbers, rows.blocks * BLOCK + winner, least)
        others[rows.numbers, nearest] = xp.inf  # they are among ``near`` already
        bound[rows.numbers, nearest] = xp.inf
        reached = _reached((near.reshape(len(p), -1), others), count, xp)
        late, block = xp.where((bound <= reached[:, None]) & (bound < xp.inf))
        if len(block):
            more = (*rows.opened(late[:, None], block[:, None], minima), late)
            ids, near, which = map(xp.concatenate, zip((ids, near, which), more, strict=True))
        heads = []
        for _ in range(min(count, BLOCK)):
            first = xp.amin(near, 1)
            token = xp.amin(xp.where(near == first[:, None], ids, LIMIT), 1)
            near = xp.where(ids == token[:, None], xp.inf, near)
            heads.append((host(which), host(first), host(token)))
    return _earliest(heads, len(p), count)


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
        self._places = self._there(np.arange(BLOCK))

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

    def opened(self, row: Array, block: Array, minima: tuple[Array, Array]) -> tuple[Array, Array]:
        """Ids and arrivals (M, BLOCK) of the blocks (M, 1) of the rows (M, 1)."""
        ids, (least, winner) = block * BLOCK + self._places, minima
        known = [word[row[:, 0]] for word in self.words]
        x = _clocks(known, block, self._places, self.xp, (least[row, block], winner[row, block]))
        return ids, self.arrivals(row, ids, x)


def _reached(times: Sequence[Array], count: int, xp: Any) -> Array:
    """A time (N,) by which ``count`` of the arrivals (N, M) have come, or all that ever come."""
    for left in range(count - 1, -1, -1):
        first = xp.amin(times[0], 1)
        for more in times[1:]:
            first = xp.minimum(first, xp.amin(more, 1))
        if left:  # Equals go together: the time is then later than need be, which is no harm.
            times = [xp.where(each == first[:, None], xp.inf, each) for each in times]
    return first


def _earliest(
    heads: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], rows: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ``count`` earliest of each row, from rows, arrivals and tokens of the opened blocks."""
    which, first, token = (np.concatenate(each) for each in zip(*heads, strict=True))
    order = np.lexsort((token, first, which))  # by row, then the earliest, then the lowest id
    which, first, token = which[order], first[order], token[order]
    rank = np.arange(len(which)) - np.searchsorted(which, which)
    kept = (rank < count) & (first < np.inf)
    ids = np.full((rows, count), -1, dtype=np.int64)
    times = np.full((rows, count), np.inf)
    ids[which[kept], rank[kept]] = token[kept]
    times[which[kept], rank[kept]] = first[kept]
    return ids, times


def check_largest(weights: ArrayLike) -> None:
    """Raises ValueError unless a race can be run with the ``weights``, the largest of each row."""
    top = np.asarray(weights)
    if not ((top > TINIEST) & (top < np.inf)).all():
        raise ValueError("every row needs finite weights, the largest above 1e-300")


def _peaks(p: Array, xp: Any) -> Array:
    """The largest weight of each block, (N, blocks); NaN where one is NaN."""
    whole = p.shape[1] // BLOCK
    peaks = xp.amax(p[:, : whole * BLOCK].reshape(len(p), whole, BLOCK), 2)
    if p.shape[1] == whole * BLOCK:
        return peaks
    return xp.concatenate((peaks, xp.amax(p[:, whole * BLOCK :], 1)[:, None]), 1)
