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
SHARE = 0.1  # of the loop's time, the most that work beyond ``USUAL_S`` takes beside others
# Of a token: the default rows of a pretrained pair take 0.7 ms, 1.5 ms where they are flat
# (SmolLM2-135M on two cores), the widest legal ones 20 ms and more.
USUAL_S = 0.003
LATELY_S = 1.0  # since when others count


async def _nobody() -> None:
    """Nobody is told."""


class Turns:
    """Runs work in slices on the event loop; times of work are those of the thread's processor.

    However many have long work, one slice of it is done between two looks at everything else: they
    stand in a queue, in which each goes to the end behind its turn. What takes longer than is usual
    for so many tokens pauses in between while more than one is at work, and all of that together
    has a share of the loop: else whoever sends rows as wide as they may be would double what each
    step of the others takes.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._long = asyncio.Lock()  # of what has taken longer than is usual
        self._seen: dict[Hashable, float] = {}  # of the last two that were at work: who, and when

    @property
    def busy(self) -> bool:
        """Whether long work is under way, or pauses."""
        return self._lock.locked() or self._long.locked()

    async def run(
        self,
        work: Slices[T],
        wanted: Callable[[], bool],
        whose: Hashable = None,
        tokens: int = 0,
        tell: Callable[[], Awaitable[None]] = _nobody,
    ) -> T | None:
        """What ``work`` returns; None, with the work closed, once it is not ``wanted`` any more.

        Raises what the work raises. It is asked before each turn whether the work is wanted.
        ``whose``: tells the conversations apart. ``tokens``: that the work is for. ``tell``: says
        that it is still under way, each time that it has been so for ``PROGRESS_S`` more.
        """
        self._note(whose)
        time_s = asyncio.get_running_loop().time
        told_s = time_s()
        try:
            done, left_s = _for(work, AT_ONCE_S), USUAL_S * tokens
            while done is None and wanted():
                if left_s > 0.0 or not self._others(whose):
                    done = await self._turn(work, wanted)
                    left_s -= TURN_S
                else:
                    async with self._long:
                        done = await self._turn(work, wanted)
                        if self._others(whose):
                            await asyncio.sleep(TURN_S * (1 / SHARE - 1))
                if done is None and time_s() >= told_s + PROGRESS_S:
                    told_s = time_s()
                    await tell()
            return None if done is None else done[0]
        finally:
            work.close()

    async def _turn(self, work: Slices[T], wanted: Callable[[], bool]) -> tuple[T] | None:
        async with self._lock:
            await asyncio.sleep(0)  # whose turn comes next waits for this look, too
            return _for(work, TURN_S) if wanted() else None

    def _note(self, whose: Hashable) -> None:
        self._seen.pop(whose, None)
        if len(self._seen) > 1:
            del self._seen[next(iter(self._seen))]
        self._seen[whose] = asyncio.get_running_loop().time()

    def _others(self, whose: Hashable) -> bool:
        """Whether another was at work lately."""
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
