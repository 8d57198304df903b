"""How long something takes that is done again and again: running estimates, no clock."""

from __future__ import annotations

import math
from collections import deque

LEAST_S = 1e-6
KEPT = 31  # samples that a level looks back on
FEW = 8
SOME, OTHER = 3, 2.0  # so many samples that are so many times off all others tell of a change
SHARED = 1.25  # times as long as alone, from which on both ends are taken to share a machine
PLAIN = 1.6  # and where there are fewer than ``FEW`` samples of each, but ``SOME``
FAR = 8.0  # times the typical value: as much of a sample counts, at the most
MEMORY = 1.0 - 1.0 / 150.0  # what a sample weighs after the next one
PUNCTUAL = 8.0  # as if so many samples had been typical before the first


class Level:
    """A duration in seconds that is sampled again and again.

    ``typical``: the median of the last samples, of two the lower; 0 before the first. ``mean``:
    their mean, in which a sample counts as ``FAR`` times the typical one at the most. What it costs
    on average: stalls that happen again and again are part of it. Of a few samples it is the
    typical one, since the first may well have been an accident. ``punctual``: as if so many more
    had been typical.
    """

    def __init__(self, first: float | None = None, punctual: float = 0.0) -> None:
        self._punctual = punctual
        self._samples: deque[float] = deque([] if first is None else [first], maxlen=KEPT)
        self.typical = self.mean = first or 0.0  # kept: read more often than a sample comes
        self._beyond_s, self._weight = 0.0, PUNCTUAL

    def add(self, seconds: float) -> None:
        """A sample. Nothing takes no time: clocks are coarse, and estimates are taken off it."""
        self._samples.append(max(seconds, LEAST_S))
        self._turn()
        ordered = sorted(self._samples)
        self.typical = self.mean = ordered[(len(ordered) - 1) // 2]
        if len(ordered) >= FEW:
            most = FAR * self.typical
            all_s = [s if s < most else most for s in ordered]
            weight = len(all_s) + self._punctual
            self.mean = (math.fsum(all_s) + self._punctual * self.typical) / weight
        beyond_s = min(self._samples[-1], FAR * self.typical) - self.typical
        self._beyond_s = MEMORY * self._beyond_s + max(beyond_s, 0.0)
        self._weight = MEMORY * self._weight + 1.0

    def _turn(self) -> None:
        """Forget what came before the last three samples, where these are far from all of it.

        The median of many would go by what was for half as many samples as it has of that.
        """
        before, last = [*self._samples][:-SOME], [*self._samples][-SOME:]
        if len(before) < SOME:
            return
        if max(last) < min(before) / OTHER or min(last) > OTHER * max(before):
            self._samples = deque(last, maxlen=KEPT)

    def at_most(self, seconds: float) -> bool:
        """It is known not to take longer: a sample, where it was taken to. Whether it was."""
        shorter = 0.0 < seconds < self.typical
        if shorter:
            self.add(seconds)
        return shorter

    def became(self, seconds: float) -> None:
        """It is known to be another one from here on."""
        self._samples.clear()
        self.add(seconds)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def excess(self) -> float:
        """By how much a sample exceeds the typical one, on average.

        What exceeds it far is rare: remembered for longer than the level, and at first not believed
        to happen as often as it did.
        """
        return self._beyond_s / self._weight


class Work(Level):
    """What one end does: all samples, and apart those with the other end idle, or at work too.

    The two differ where both ends share a machine. ``beside`` of a sample: True, False, or None for
    neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self._apart = {False: Level(), True: Level()}

    def took(self, seconds: float, *, beside: bool | None) -> None:
        """A sample."""
        self.add(seconds)
        if beside is not None:
            self.sorted(seconds, beside=beside)

    @property
    def beside_s(self) -> float:
        """What it typically takes beside the other end's work; 0 before a sample of that."""
        return self._apart[True].typical

    def sorted(self, seconds: float, *, beside: bool) -> None:
        """Of a sample that ``took`` was told of it is known by now."""
        self._apart[beside].add(seconds)

    @property
    def alone_s(self) -> float:
        """What it typically takes with the other end idle; 0 before a sample of that."""
        return self._apart[False].typical

    @property
    def lacks(self) -> bool:
        """Whether samples alone are what is wanted to tell the slowdown.

        Of those beside there are some, though not many, and fewer alone: too few to compare, or
        the two differ by as much as only many would tell.
        """
        alone, beside = self._apart[False], self._apart[True]
        if not max(SOME, len(alone) + 1) <= len(beside) <= FEW:
            return False
        slower = beside.typical / alone.typical if len(alone) >= SOME else SHARED
        return SHARED <= slower < PLAIN

    @property
    def compared(self) -> bool:
        """Whether it is known what the other end's work does to it."""
        return min(map(len, self._apart.values())) >= SOME

    @property
    def slowdown(self) -> float:
        """How many times as long it takes beside the other end's work; 1 if hardly longer."""
        alone, beside = self._apart[False], self._apart[True]
        number = min(len(alone), len(beside))
        least = SHARED if number >= FEW else PLAIN
        if number < SOME or beside.typical < least * alone.typical:
            return 1.0
        return beside.typical / alone.typical

    def mean_s(self, *, beside: bool, slowdown: float) -> float:
        """The mean with the other end at work, or idle; from the other kind where too few came."""
        if slowdown == 1.0:
            return self.mean
        if len(self._apart[beside]) >= FEW:
            return self._apart[beside].mean
        return self.mean * slowdown if beside else self.mean / slowdown
