"""What a connection is doing about its device: serving it, or leaving it, and why."""

from __future__ import annotations

import asyncio
from enum import Enum, auto


class Life(Enum):
    """Whether a connection is served, and else what becomes of what its device has asked for."""

    OPEN = auto()
    CLOSING = auto()  # this end closes it: what is under way is still told, the rest is kept
    GONE = auto()  # nobody hears what is sent: all of it is kept for a new connection
    REFUSED = auto()  # nothing more is to be done for this device


class Lifetime:
    """A connection's ``life``, which is OPEN once; and those who wait for its end."""

    def __init__(self) -> None:
        self.life = Life.OPEN
        self._left = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether the device is served."""
        return self.life is Life.OPEN

    def leave(self, life: Life) -> None:
        """It is served no more. Whoever has found that nobody hears it is right."""
        if self.life is Life.OPEN or life is Life.GONE:
            self.life = life
        self._left.set()

    async def left(self) -> None:
        """Until it is served no more."""
        await self._left.wait()

    def end(self) -> None:
        """All that was under way has been dealt with."""
        self._over.set()

    async def over(self) -> None:
        """Until then."""
        await self._over.wait()
