"""Long work on the event loop takes turns; short work and everybody else pass it by."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bs_runtime.engine import turns
from bs_runtime.engine.turns import AT_ONCE_S, SHARE, TURN_S, Turns


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The thread's time, which passes in the work alone."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(thread_time=lambda: now.s))
    return now


def work(clock: SimpleNamespace, slices: int, log: list[object], name: object) -> Iterator[None]:
    """So many slices of half a turn."""
    try:
        for _ in range(slices):
            clock.s += TURN_S / 2
            log.append(name)
            yield
    finally:
        log.append("closed")
    return name


def always() -> bool:
    return True


def test_short_work_is_done_before_anybody_else_comes(clock):
    async def main() -> None:
        log: list[object] = []

        def small() -> Iterator[None]:
            clock.s += AT_ONCE_S / 3
            yield
            return 7

        held = Turns()
        async with held._lock:  # others have long work
            asyncio.get_running_loop().call_soon(log.append, "other")
            assert await held.run(small(), always) == 7
            assert log == []

    asyncio.run(main())


def test_between_two_looks_at_everything_else_one_turn_is_taken(clock):
    """By eight connections together, each in its order; nobody's work waits for another's end."""

    async def main() -> None:
        loop, log = asyncio.get_running_loop(), []
        spent: list[float] = []

        def look() -> None:
            spent.append(clock.s)
            if len(spent) < 400:
                loop.call_soon(look)

        many = Turns()
        running = [asyncio.create_task(many.run(work(clock, 20, log, i), always)) for i in range(8)]
        await asyncio.sleep(0)  # each has begun: what is short would have been done at once
        look()
        assert await asyncio.gather(*running) == list(range(8))
        assert max(b - a for a, b in itertools.pairwise(spent)) <= TURN_S * 1.01
        turned = [name for name in log if name != "closed"]
        behind = turned[8:]
        assert behind[:16] == [i for i in range(8) for _ in range(2)]

    asyncio.run(main())


def test_work_that_nobody_wants_any_more_is_left(clock):
    async def main() -> None:
        log: list[object] = []
        assert await Turns().run(work(clock, 100, log, 1), lambda: len(log) < 5) is None
        assert log == [1] * 5 + ["closed"]

    asyncio.run(main())


def test_work_whose_task_is_cancelled_is_closed(clock):
    async def main() -> None:
        log: list[object] = []
        shared = Turns()
        running = [
            asyncio.create_task(shared.run(work(clock, 100, log, i), always)) for i in range(3)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in running[:2]:
            task.cancel()
        await asyncio.gather(*running[:2], return_exceptions=True)
        assert log.count("closed") == 2
        assert await running[2] == 2  # whoever waits behind them has its turn

    asyncio.run(main())


def test_long_work_has_a_share_of_the_loop_where_others_are_at_work(clock):
    """Without it, rows as wide as they may be would double what each step of the others takes."""

    async def main() -> None:
        def passes() -> None:  # each look at everything else takes as long as a turn
            spent["others"] += TURN_S

        async def sleep(seconds: float) -> None:
            while seconds > 0.0:
                seconds -= TURN_S
                passes()
                await plain(0)
            await plain(0)

        for others, share in ((False, 1.0), (True, SHARE)):
            spent, log, mine = {"others": 0.0}, [], Turns()
            plain, turns.asyncio.sleep = asyncio.sleep, sleep
            try:
                if others:
                    await mine.run(work(clock, 1, log, "other"), always, 2)
                begun = clock.s
                await mine.run(work(clock, 400, log, "wide"), always, 1)
            finally:
                turns.asyncio.sleep = plain
            worked = clock.s - begun
            assert worked / (worked + spent["others"]) <= share * 1.01

    asyncio.run(main())


def test_what_work_raises_is_raised(clock):
    async def main() -> None:
        def bad() -> Iterator[None]:
            clock.s += 1.0
            yield
            raise ValueError("no draft")

        with pytest.raises(ValueError, match="no draft"):
            await Turns().run(bad(), always)

    asyncio.run(main())
