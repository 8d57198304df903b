"""What is known of a token id before any token: small ids are likelier, roughly as 1 / id.

BPE and unigram vocabularies are built in order of frequency, so ids follow a Zipf-like law. Half of
the mass is spread over octaves of ids (64, 128, 256, ... wide), each with the same share; the other
half is uniform, so a vocabulary in any other order costs less than one bit more per id.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_FIRST = 64  # ids in the first octave
MAX_VOCAB = 1 << 22


class IdPrior:
    """Integer weights over ids [0, vocab_size), constant within an octave.

    ``total`` is their sum, below 2**28. ``starts`` are the octaves' first ids, and behind them
    vocab_size. Raises ValueError for a vocabulary past 2**22.
    """

    def __init__(self, vocab_size: int) -> None:
        if not 1 <= vocab_size <= MAX_VOCAB:
            raise ValueError(f"a vocabulary of {vocab_size}, where 1 to {MAX_VOCAB} are coded")
        self.vocab_size = vocab_size
        self.starts = [0]
        while (end := self.starts[-1] + (_FIRST << len(self.starts) - 1)) < vocab_size:
            self.starts.append(end)
        octaves = len(self.starts)
        self.starts.append(vocab_size)
        mass = _FIRST << octaves - 1  # of an octave
        uniform = max(1, (mass * octaves + vocab_size // 2) // vocab_size)
        self._weights = [uniform + (mass >> j) // _FIRST for j in range(octaves)]
        self._sums = [0]
        for j, weight in enumerate(self._weights):
            size = self.starts[j + 1] - self.starts[j]
            self._sums.append(self._sums[-1] + weight * size)
        self.total = self._sums[-1]

    def share(self, token: int) -> tuple[int, int]:
        """The sum of the weights of all ids below ``token``, and its own."""
        j = bisect_right(self.starts, token) - 1
        weight = self._weights[j]
        return self._sums[j] + weight * (token - self.starts[j]), weight

    def weights(self) -> NDArray[np.int64]:
        """The weights of all ids, int64 (vocab_size,)."""
        return np.repeat(np.array(self._weights, dtype=np.int64), np.diff(self.starts))

    def below(self, octave: int) -> int:
        """The sum of the weights of all ids below an octave."""
        return self._sums[octave]

    def find(self, value: int) -> int:
        """The id that owns ``value`` in [0, total)."""
        return self.owner(value)[0]

    def owner(self, value: int) -> tuple[int, int, int]:
        """The id that owns ``value`` in [0, total), and its ``share``."""
        j = bisect_right(self._sums, value) - 1
        below, weight = self._sums[j], self._weights[j]
        place = (value - below) // weight
        return self.starts[j] + place, below + place * weight, weight


@lru_cache(maxsize=8)
def prior(vocab_size: int) -> IdPrior:
    """The prior of a vocabulary, made once."""
    return IdPrior(vocab_size)
