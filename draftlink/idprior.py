"""What is known of a token id before any token: small ids are likelier, roughly as 1 / id.

BPE and unigram vocabularies are built in order of frequency, so ids follow a Zipf-like law. Half of
the mass is spread over octaves of ids (64, 128, 256, ... wide), each with the same share; the other
half is uniform, so a vocabulary in any other order costs less than one bit more per id.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

_FIRST = 64  # ids in the first octave
MAX_VOCAB = 1 << 22


class IdPrior:
    """Integer weights over ids [0, vocab_size), constant within an octave.

    ``total`` is their sum, below 2**28. Raises ValueError for a vocabulary past 2**22.
    """

    def __init__(self, vocab_size: int) -> None:
        if not 1 <= vocab_size <= MAX_VOCAB:
            raise ValueError(f"a vocabulary of {vocab_size}, where 1 to {MAX_VOCAB} are coded")
        self.vocab_size = vocab_size
        starts = [0]
        while starts[-1] + (_FIRST << len(starts) - 1) < vocab_size:
            starts.append(starts[-1] + (_FIRST << len(starts) - 1))
        octaves = len(starts)
        mass = _FIRST << octaves - 1
        uniform = max(1, (mass * octaves + vocab_size // 2) // vocab_size)
        self._starts = starts  # of the octaves, and behind them the vocabulary's end
        self._weights = [uniform + (mass >> j) // _FIRST for j in range(octaves)]
        self._starts.append(vocab_size)
        self._sums = [0]
        for j, weight in enumerate(self._weights):
            self._sums.append(self._sums[-1] + weight * (starts[j + 1] - starts[j]))
        self.total = self._sums[-1]

    def weight(self, token: int) -> int:
        """The weight of an id."""
        return self._weights[bisect_right(self._starts, token) - 1]

    def below(self, token: int) -> int:
        """The sum of the weights of all ids below ``token``, which is at most vocab_size."""
        j = min(bisect_right(self._starts, token), len(self._weights)) - 1
        return self._sums[j] + self._weights[j] * (token - self._starts[j])

    def find(self, value: int) -> int:
        """The id that owns ``value`` in [0, total)."""
        j = bisect_right(self._sums, value) - 1
        return self._starts[j] + (value - self._sums[j]) // self._weights[j]

    def split(self, start: int, stop: int) -> int:
        """Where the ids [start, stop), two or more, part in two: at half, or at an octave's edge.

        The edge is the one that halves the weight best.
        """
        first = bisect_right(self._starts, start)
        if self._starts[first] >= stop:
            return (start + stop) // 2
        half = (self.below(start) + self.below(stop)) // 2
        last = bisect_right(self._starts, stop - 1)
        edges = range(first, last)
        return self._starts[min(edges, key=lambda j: abs(self._sums[j] - half))]


@lru_cache(maxsize=8)
def prior(vocab_size: int) -> IdPrior:
    """The prior of a vocabulary, made once."""
    return IdPrior(vocab_size)
