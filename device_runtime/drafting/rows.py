"""What a verification takes longer for each token of a block: an estimate, without a clock."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

KEPT = 31  # blocks that are looked back on,
ALONE = 8  # and beside them steps without any token: there may be many, and all say the same
LATE = 2.0  # times the typical verification: as much of one tells what a token adds to it
STEADY = 1.0  # tokens², as if blocks had differed so much more in length, and not in time


class _Fit(NamedTuple):
    """Means of samples, and the sums that tell their slope."""

    tokens: float
    mean_s: float
    spread: float
    product: float


class Rows:
    """What a verification takes longer for each token of a block: least squares over the last ones.

    Of blocks that waited: while those are verified the device does nothing else. And of steps
    without a block, where both ends write.
    """

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._alone: deque[tuple[int, float]] = deque(maxlen=ALONE)
        self._fitted: _Fit | None = _Fit(0.0, 0.0, 0.0, 0.0)

    def __len__(self) -> int:
        return len(self._blocks) + len(self._alone)

    def forget(self) -> None:
        """What is measured from here on is something else."""
        self._blocks.clear()
        self._alone.clear()
        self._fitted = _Fit(0.0, 0.0, 0.0, 0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """A block of so many tokens. A stall counts as ``LATE`` times the typical at the most."""
        (self._blocks if tokens else self._alone).append((tokens, seconds))
        self._fitted = None  # until it is asked for: a device that rests does not

    @property
    def _fit(self) -> _Fit:
        if self._fitted is None:
            samples = [*self._alone, *self._blocks]
            number = len(samples)
            most = LATE * sorted(s for _, s in samples)[(number - 1) // 2]
            tokens = sum(n for n, _ in samples) / number
            mean_s = sum(min(s, most) for _, s in samples) / number
            spread = sum((n - tokens) ** 2 for n, _ in samples)
            product = sum((n - tokens) * (min(s, most) - mean_s) for n, s in samples)
            self._fitted = _Fit(tokens, mean_s, spread, product)
        return self._fitted

    @property
    def tokens(self) -> float:
        """Their mean number."""
        return self._fit.tokens

    @property
    def mean_s(self) -> float:
        """What they take."""
        return self._fit.mean_s

    @property
    def token_s(self) -> float:
        """The seconds that each token adds; 0 as long as nothing tells."""
        return self.each_s(0.0)

    @property
    def lone_s(self) -> float:
        """The seconds of one without any token; 0 before the first."""
        return self.mean_s - min(self.tokens * self.token_s, self.mean_s)

    def each_s(self, told_s: float) -> float:
        """The same, where ``told_s`` is said as long as blocks hardly differ."""
        steady = STEADY * len(self)
        if not steady:
            return told_s
        return max(0.0, (self._fit.product + steady * told_s) / (self._fit.spread + steady))
