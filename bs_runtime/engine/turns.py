"""Who works on the event loop, and for how long: long work takes turns, all others pass it by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from draftlink.coding.slices import Slices
from draftlink.protocol.frames import PROGRESS_S

T = TypeVar("T")

AT_ONCE_S = 0.0005  # a usual draft takes as long: it waits for nobody
TURN_S = 0.002  # of work, and then everything else on the loop is looked after
SHARE = 0.1  # of the loop's time, the most that long work takes where others are at work, too
LATELY_S = 1.0  # since when others count


async def _nobody() -> None:
    """Nobody is told."""


class Turns:
    """Runs work in slices on the event loop; times are those of the thread's processor.

    However many connections have long work, one slice of it is done between two looks at
    everything else: they stand in a queue, in which each goes to the end behind its turn. While
    more than one connection is at work, all long work together has a share of the loop: else
    whoever sends rows as wide as they may be would double what each step of the others takes.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._seen: dict[int, float] = {}  # of the last two that were at work: who, and when

    async def run(
        self,
        work: Slices[T],
        wanted: Callable[[], bool],
        whose: int = 0,
        tell: Callable[[], Awaitable[None]] = _nobody,
    ) -> T | None:
        """What ``work`` returns; None, with the work closed, once it is not ``wanted`` any more.

        Raises what the work raises. It is asked before each turn whether the work is wanted.
        ``whose``: a number that tells the connections apart. ``tell``: says that the work is still
        under way, each time that it has been so for ``PROGRESS_S`` more.
        """
        self._note(whose)
        time_s = asyncio.get_running_loop().time
        told_s = time_s()
        try:
            done = _for(work, AT_ONCE_S)
            while done is None and wanted():
                async with self._lock:
                    await asyncio.sleep(0)  # whose turn comes next waits for this look, too
                    if wanted():
                        done = _for(work, TURN_S)
                    if self._others(whose):
                        await asyncio.sleep(TURN_S * (1 / SHARE - 1))
                if done is None and time_s() >= told_s + PROGRESS_S:
                    told_s = time_s()
                    await tell()
            return None if done is None else done[0]
        finally:
            work.close()

    def _note(self, whose: int) -> None:
        self._seen.pop(whose, None)
        if len(self._seen) > 1:
            del self._seen[next(iter(self._seen))]
        self._seen[whose] = asyncio.get_running_loop().time()

    def _others(self, whose: int) -> bool:
        """Whether another connection was at work lately."""
        since_s = asyncio.get_running_loop().time() - LATELY_S
        return any(who != whose and at_s > since_s for who, at_s in self._seen.items())


def _for(work: Slices[T], seconds: float) -> tuple[T] | None:
    """Work for so long, and until the slice has ended; what it returns, once it is done."""
    end = time.thread_time() + seconds
    try:
        while time.thread_time() < end:
            next(work)
    except StopIteration as done:
        return (done.value,)
    return None
