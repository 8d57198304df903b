"""Who works on the event loop, and for how long: long work takes turns, all others pass it by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from draftlink.coding.slices import Slices
from draftlink.protocol.frames import PROGRESS_S

T = TypeVar("T")

AT_ONCE_S = 0.0005  # a usual draft takes as long: it waits for nobody
TURN_S = 0.002  # of work, and then everything else on the loop is looked after
LATELY_S = 1.0  # since when others count
# Shares of the loop's time where others are at work, too: of one conversation's work, and of all
# together. The rows of a pretrained pair take 3 to 6% for each that drafts (SmolLM2-135M on two
# cores, 0.7 to 1.5 ms a token); rows as wide as they may be would take all that there is.
OWN, TOGETHER = 0.15, 0.5
BURST_S = 0.1  # of work that may come at once


async def _nobody() -> None:
    """Nobody is told."""


class _Spent:
    """Work beyond what a ``share`` of the time has paid for. All times in seconds."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._owed_s = self._at_s = 0.0

    def owed(self, now: float) -> float:
        """What is left of it."""
        return max(0.0, self._owed_s - self._share * (now - self._at_s))

    def add(self, seconds: float, now: float) -> None:
        """So much was worked until now."""
        self._owed_s, self._at_s = self.owed(now) + seconds, now

    def wait_s(self, now: float) -> float:
        """Until no more than a burst of it is owed."""
        return max(0.0, self.owed(now) - BURST_S) / self._share


class Turns:
    """Runs work in slices on the event loop; times of work are those of the thread's processor.

    However many have long work, one slice of it is done between two looks at everything else: they
    stand in a queue, in which each goes to the end behind its turn. While more than one is at work,
    each has a share of the loop, and all together have one: else whoever sends rows as wide as they
    may be would double what each step of the others takes. A share is counted over a while, so that
    a usual draft of a large vocabulary, of some turns, does not wait.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._all = _Spent(TOGETHER)
        self._own: dict[Hashable, _Spent] = {}
        self._seen: dict[Hashable, float] = {}  # of the last two that were at work: who, and when
        self._running = 0

    @property
    def busy(self) -> bool:
        """Whether long work is under way, or pauses."""
        return self._running > 0

    async def run(
        self,
        work: Slices[T],
        wanted: Callable[[], bool],
        whose: Hashable = None,
        tell: Callable[[], Awaitable[None]] = _nobody,
    ) -> T | None:
        """What ``work`` returns; None, with the work closed, once it is not ``wanted`` any more.

        Raises what the work raises. It is asked before each turn whether the work is wanted.
        ``whose``: tells the conversations apart. ``tell``: says that the work is still under way,
        each time that it has been so for ``PROGRESS_S`` more.
        """
        now = asyncio.get_running_loop().time
        self._note(whose, now())
        told_s = now()
        own = self._own.setdefault(whose, _Spent(OWN))
        self._running += 1
        try:
            done = self._for(work, AT_ONCE_S, own)
            while done is None and wanted():
                if self._others(whose):
                    await asyncio.sleep(own.wait_s(now()))
                async with self._lock:
                    await asyncio.sleep(0)  # whose turn comes next waits for this look, too
                    if wanted():
                        done = self._for(work, TURN_S, own)
                    if self._others(whose):
                        await asyncio.sleep(self._all.wait_s(now()))
                if done is None and now() >= told_s + PROGRESS_S:
                    told_s = now()
                    await tell()
            return None if done is None else done[0]
        finally:
            self._running -= 1
            work.close()

    def _note(self, whose: Hashable, now: float) -> None:
        self._seen.pop(whose, None)
        if len(self._seen) > 1:
            del self._seen[next(iter(self._seen))]
        self._seen[whose] = now
        self._own = {one: spent for one, spent in self._own.items() if spent.owed(now)}

    def _others(self, whose: Hashable) -> bool:
        """Whether another was at work lately."""
        since_s = asyncio.get_running_loop().time() - LATELY_S
        return any(who != whose and at_s > since_s for who, at_s in self._seen.items())

    def _for(self, work: Slices[T], seconds: float, own: _Spent) -> tuple[T] | None:
        """Work for so long, and until the slice has ended; what it returns, once it is done."""
        begun = time.thread_time()
        try:
            while time.thread_time() < begun + seconds:
                next(work)
        except StopIteration as done:
            return (done.value,)
        finally:
            now, worked = asyncio.get_running_loop().time(), time.thread_time() - begun
            own.add(worked, now)
            self._all.add(worked, now)
        return None
