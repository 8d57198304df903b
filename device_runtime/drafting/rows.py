"""What a verification takes longer for each token of a block: an estimate, without a clock."""

from __future__ import annotations

from collections import deque

KEPT = 31  # blocks that are looked back on,
ALONE = 8  # and beside them steps without any token: there may be many, and all say the same
LATE = 2.0  # times the typical verification: as much of one tells what a token adds to it
STEADY = 1.0  # tokens², as if blocks had differed so much more in length, and not in time


class Rows:
    """What a verification takes longer for each token of a block: least squares over the last ones.

    Of blocks that waited: while those are verified the device does nothing else. And of steps
    without a block, where both ends write.
    """

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._alone: deque[tuple[int, float]] = deque(maxlen=ALONE)
        self.tokens = 0.0  # their mean number
        self.mean_s = 0.0  # what they take
        self._product = self._spread = 0.0

    def __len__(self) -> int:
        return len(self._blocks) + len(self._alone)

    def forget(self) -> None:
        """What is measured from here on is something else."""
        self._blocks.clear()
        self._alone.clear()
        self.tokens = self.mean_s = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """A block of so many tokens. A stall counts as ``LATE`` times the typical at the most."""
        (self._blocks if tokens else self._alone).append((tokens, seconds))
        samples = [*self._alone, *self._blocks]
        number = len(samples)
        ordered = sorted(s for _, s in samples)
        most = LATE * ordered[(number - 1) // 2]
        self.tokens = sum(n for n, _ in samples) / number
        self.mean_s = mean = sum(min(s, most) for s in ordered) / number
        self._spread = sum((n - self.tokens) ** 2 for n, _ in samples)
        self._product = sum((n - self.tokens) * (min(s, most) - mean) for n, s in samples)

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
        return max(0.0, (self._product + steady * told_s) / (self._spread + steady))
