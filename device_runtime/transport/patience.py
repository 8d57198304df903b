"""How long a lost base station is looked for, and how often. Time is an argument."""

from __future__ import annotations

import random

from device_runtime.transport.connecting import Lost
from draftlink.protocol import frames

PATIENCE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between attempts, doubling
# A generation.
MOVES = (frames.Verdict, frames.Tokens, frames.Written, frames.Switched, frames.Done)


class Patience:
    """Renewed by a generation that moves, not by a connection.

    A base station that takes each connection and closes it again would be called thousands of
    times.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self.renew()

    def renew(self) -> None:
        """The next loss is like the first."""
        self._until_s: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._fed = 0  # tokens that the base station has told of, towards its next frame

    def heard(self, frame: frames.Frame, now: float) -> None:
        """A frame has come that was not overtaken."""
        if isinstance(frame, MOVES):
            self.renew()
        elif isinstance(frame, frames.Progress) and frame.fed > self._fed:
            self._fed = frame.fed  # it is at work, if slowly
            self._extend(now)

    def after(self, now: float, lost: Lost) -> float | None:
        """Seconds before the next attempt, after a loss at ``now``; None: patience has ended."""
        if self._until_s is None:
            self._until_s = now + self._lasts_s
            return 0.0
        if lost.retry_after_s is not None:  # who is there and busy is waited for
            self._extend(now)
        left_s = self._until_s - now
        if left_s <= 0.0:
            return None
        pause_s = max(self._pause_s, lost.retry_after_s or 0.0)
        self._pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        # Not all at once, where a base station that was restarted has many devices.
        return min(left_s, pause_s * random.uniform(0.5, 1.0))

    def _extend(self, now: float) -> None:
        if self._until_s is not None:
            self._until_s = now + self._lasts_s
