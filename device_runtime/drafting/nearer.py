"""Whether a stream has come nearer: a link that became better shows in when its messages come.

A message of a stream is late for many reasons, and never early. Where one comes a good deal earlier
than all before it would have it, and those behind it at the old pace again, the way has become
shorter: nothing at the base station does that, where a step that is faster is so again. What is
missing on the way down is taken to be missing on the way up, too, until a round trip tells.

Steps are uneven, too: by a part of one, now and then one comes early by chance. So a link is only
said to have come nearer where a round trip is longer than a step, and by a good part of its way,
and by no more than all of it. All times are in seconds.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

KEPT = 16  # messages that are looked back on
FEW = 4  # and that tell a pace
SHARE = 0.2  # of the pace, by which a message must be early, and the next ones be in time
NEXT = 2  # messages behind it that must
LEAST, MOST = 0.125, 0.55  # of the round trip, by which one is early where its way is shorter


class Nearer:
    """Looks at when the messages of a stream came."""

    def __init__(self) -> None:
        self._came: deque[float] = deque(maxlen=KEPT)
        self._early_s = 0.0  # by how much one was
        self._behind = 0  # messages that came behind it, at the old pace
        self._pace_s = 0.0

    def came(self, now: float, rtt_s: float) -> float:
        """A message has. By how much the way has become shorter, if that is certain by now.

        ``rtt_s``: what a round trip is known to take.
        """
        early_s, gap_s = self._expected_s() - now, now - (self._came[-1] if self._came else now)
        self._came.append(now)
        if self._early_s:
            return self._follows(gap_s)
        least_s = max(SHARE * self._pace_s, LEAST * rtt_s)
        if rtt_s > self._pace_s > 0.0 and least_s < early_s <= MOST * rtt_s:
            self._early_s, self._behind = early_s, 0
        return 0.0

    def _follows(self, gap_s: float) -> float:
        early_s = self._early_s
        self._behind += 1
        if abs(gap_s - self._pace_s) > SHARE * self._pace_s:
            self._restart()  # it is the pace that has changed, or nothing has
        elif self._behind == NEXT:
            self._restart()
            return early_s
        return 0.0

    def _restart(self) -> None:
        """What came before is no guide to what comes."""
        last = self._came[-1]
        self._came.clear()
        self._came.append(last)
        self._early_s = 0.0

    def _expected_s(self) -> float:
        """When the next message is due at the latest, were it as little late as any before."""
        gaps = sorted(after - before for before, after in pairwise(self._came))
        if self._early_s:
            return 0.0
        self._pace_s = gaps[(len(gaps) - 1) // 2] if len(gaps) >= FEW else 0.0
        behind = range(len(self._came), 0, -1)
        dues = [at + n * self._pace_s for at, n in zip(self._came, behind, strict=True)]
        return min(dues, default=0.0)
