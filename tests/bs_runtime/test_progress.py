"""A base station is ready while rounds come out of its model."""

from __future__ import annotations

import asyncio

import pytest
import torch

from bs_runtime.engine.progress import FAILING_S, FAILURES, STALLED_S, Progress
from bs_runtime.serving.station import Station
from tests.bs_runtime.test_suspects import POISON, Poisonable, begin, poisoned


def test_rounds_that_wait_and_nothing_that_comes_out_are_trouble():
    progress = Progress()
    assert progress.trouble(1e6) is None  # nobody wants anything
    progress.waits(10.0)
    progress.waits(10.0 + STALLED_S)
    assert progress.trouble(10.0 + STALLED_S) is None
    assert "no step of the model has gone well for 11 s" in str(progress.trouble(11.0 + STALLED_S))
    progress.stepped(25.0)
    assert progress.trouble(25.0 + STALLED_S) is None
    progress.rests()
    assert progress.trouble(1e6) is None


def test_rounds_that_fail_one_after_the_other_are_trouble_for_a_while():
    progress = Progress()
    for number in range(FAILURES):
        assert progress.trouble(float(number)) is None
        progress.failed(float(number))
    assert str(FAILURES) in str(progress.trouble(10.0))
    assert progress.trouble(FAILURES + FAILING_S) is None  # or nobody would come to try again
    progress.failed(200.0)
    assert progress.trouble(201.0) is not None
    progress.judged()
    assert progress.trouble(201.0) is None


def test_a_station_whose_forwards_fail_is_not_ready_and_still_serves():
    broken = True
    target = Poisonable(lambda feeds: broken or poisoned(feeds))

    async def scenario() -> None:
        nonlocal broken
        station = Station(target)  # type: ignore[arg-type]
        scheduler, now = station.scheduler, asyncio.get_running_loop().time
        for number in range(FAILURES):
            assert station.unready(now()) is None, number
            with pytest.raises(RuntimeError, match="the kernel failed"):
                await scheduler.run(begin(target, [1, 2]).prompt())
        unready = station.unready(now())
        assert unready is not None and "the model failed" in unready.reason
        assert station.trouble() is None  # whoever comes is served, and shows whether it works
        broken = False
        one = begin(target, [1, 2])
        await scheduler.run(one.prompt())
        await scheduler.run(one.next())
        assert station.unready(now()) is None
        # A device alone is to blame for no more than its own rounds.
        for _ in range(FAILURES):
            with pytest.raises(RuntimeError):
                await scheduler.run(begin(target, [POISON]).prompt())
            await scheduler.run(one.next())
        assert station.unready(now()) is None

    asyncio.run(scenario())


def test_a_station_whose_step_does_not_come_back_is_not_ready():
    target = Poisonable()

    async def scenario() -> None:
        station = Station(target)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        entered, over = asyncio.Event(), asyncio.Event()
        forward = target.forward

        def stuck(feeds: list) -> torch.Tensor:
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result()
            return forward(feeds)

        target.forward = stuck  # type: ignore[assignment]
        running = station.scheduler.run(begin(target, [1, 2]).prompt())
        await entered.wait()
        assert station.unready(loop.time()) is None
        late = station.unready(loop.time() + STALLED_S + 1)
        assert late is not None and "no step" in late.reason
        over.set()
        await running
        await asyncio.sleep(0)
        assert station.unready(loop.time() + 1e6) is None

    asyncio.run(scenario())
