"""Long work on the event loop takes turns; short work and everybody else pass it by."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bench.virtual.loop import VirtualLoop, run
from bench.virtual.world import World
from bs_runtime.engine import turns
from bs_runtime.engine.turns import AT_ONCE_S, SHARE, TURN_S, USUAL_S, Turns
from device_runtime.device import Coupled, TopK
from draftlink.link.shaping import LinkProfile, make_link
from tests.fake_models import FakeModel, letters, random_logits
from tests.fakes import FakeTarget


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


def jumping(monkeypatch, loop: VirtualLoop) -> Callable[[float], None]:
    """Work of so many seconds: the loop stands still meanwhile, and the thread's time passes."""
    spent = SimpleNamespace(s=0.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(thread_time=lambda: spent.s))

    def works(seconds: float) -> None:
        spent.s += seconds
        loop._jump.now += seconds

    return works


@pytest.mark.parametrize(
    "wide, beside, share", [(1, False, 1.0), (1, True, SHARE), (16, True, SHARE)]
)
def test_rows_as_wide_as_they_may_be_have_a_share_beside_others(monkeypatch, wide, beside, share):
    """Without it they would double what each step of the others takes."""
    lasts_s, tokens = 20.0, 16

    async def main() -> float:
        loop = asyncio.get_running_loop()
        works, many, worked = jumping(monkeypatch, loop), Turns(), 0.0

        def endless() -> Iterator[None]:
            nonlocal worked
            while True:
                works(0.501 * TURN_S)
                worked += 0.501 * TURN_S
                yield

        async def small() -> None:
            def once() -> Iterator[None]:
                works(AT_ONCE_S / 3)
                yield

            while loop.time() < lasts_s:
                await many.run(once(), always, "small")
                await asyncio.sleep(0.1)

        on = [many.run(endless(), lambda: loop.time() < lasts_s, i, tokens) for i in range(wide)]
        await asyncio.gather(*on, *([small()] if beside else []))
        return worked / lasts_s

    usual = wide * tokens * USUAL_S / lasts_s
    assert 0.9 * share <= run(main()) <= 1.01 * share + usual


@pytest.mark.parametrize("usual_s", [USUAL_S, 0.0])
def test_usual_drafts_of_large_vocabularies_do_not_pause(monkeypatch, usual_s):
    """Four draft, 8 tokens of 0.7 ms each, beside wide rows; were none usual, all would pause."""
    round_s, draft_s, rounds = 0.15, 5.6e-3, 20
    monkeypatch.setattr(turns, "USUAL_S", usual_s)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        works, many = jumping(monkeypatch, loop), Turns()
        took: list[float] = []

        def draft(slices: int) -> Iterator[None]:
            for _ in range(slices):
                works(draft_s / 8)
                yield

        async def device(number: int) -> None:
            await asyncio.sleep(number * round_s / 4)
            for _ in range(rounds):
                begun = loop.time()
                await many.run(draft(8), always, number, 8)
                took.append(loop.time() - begun)
                await asyncio.sleep(round_s)

        wide = asyncio.create_task(many.run(draft(1 << 16), always, "wide", 8))
        await asyncio.gather(*map(device, range(4)))
        wide.cancel()
        return max(took)

    assert (run(main()) <= 3 * (draft_s + TURN_S)) is (usual_s == USUAL_S)


def test_a_conversation_is_no_company_of_its_own(monkeypatch):
    """However it writes: else a text would be drafted beside the one before it, and wait for it."""
    seen: set[object] = set()
    plain = Turns.run

    async def noting(self: Turns, work: Any, wanted: Any, whose: Any, *more: Any) -> Any:
        seen.add(whose)
        return await plain(self, work, wanted, whose, *more)

    monkeypatch.setattr(Turns, "run", noting)
    table = random_logits(7, 20, 1.5)
    world = World(FakeModel(table, rows=False), FakeTarget(table), letters(20), 64, 0.01, 0.045)

    async def main() -> None:
        async with world.device(make_link(LinkProfile(5e6, 5e6, 0.060), seed=1)) as device:
            for asked in (
                {"scheme": Coupled(), "mode": "both"},
                {"scheme": TopK(8, 64), "mode": "stop-and-wait"},
                {"scheme": TopK(8, 64), "mode": "run-ahead"},
            ):
                written = device.generate([1, 2, 3], max_tokens=20, seed=3, **asked)
                assert [token async for token in written]

    run(main())
    assert len(seen) == 1


def test_what_work_raises_is_raised(clock):
    async def main() -> None:
        def bad() -> Iterator[None]:
            clock.s += 1.0
            yield
            raise ValueError("no draft")

        with pytest.raises(ValueError, match="no draft"):
            await Turns().run(bad(), always)

    asyncio.run(main())
