"""The virtual clock keeps its promises, and both ends' own code runs under it."""

from __future__ import annotations

import asyncio
import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from bench.virtual import pair
from bench.virtual.link import Wire
from bench.virtual.loop import DeadlockError, VirtualLoop, run
from bench.virtual.record import FAR, Record
from bench.virtual.world import World
from device_runtime.device import Sampling
from draftlink.link.ledger import packet_bytes, websocket_bytes
from draftlink.link.pacing import pace
from draftlink.link.shaping import LinkProfile, make_link
from tests.fake_models import FakeModel, letters, random_logits
from tests.fakes import FakeTarget


def now() -> float:
    return asyncio.get_running_loop().time()


def test_waiting_takes_virtual_time_alone():
    async def main() -> float:
        await asyncio.gather(asyncio.sleep(3600.0), asyncio.sleep(7200.0))
        return now()

    assert run(main()) == pytest.approx(7200.0)


def test_what_is_spread_by_chance_is_the_same_in_each_run():
    """Attempts to connect again are; a rate would differ from run to run by half of it."""

    async def main() -> float:
        await asyncio.sleep(random.uniform(0.0, 5.0))
        return now()

    before = random.getstate()
    assert run(main()) == run(main())
    assert random.getstate() == before


def test_waiting_for_nothing_is_a_deadlock():
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError):
        run(main())


def test_a_worker_does_one_job_after_the_other_in_its_own_time():
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        ends = []

        async def job(executor: object, seconds: float) -> None:
            await loop.run_in_executor(executor, loop.spend, seconds)
            ends.append(now())

        one, other = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        await asyncio.gather(job(one, 2.0), job(one, 3.0), job(other, 4.0))
        return ends

    assert run(main()) == pytest.approx([2.0, 4.0, 5.0])


@pytest.mark.parametrize(("slowdown", "ends"), [(1.0, [1.0, 3.0, 4.0]), (2.0, [2.0, 4.5, 6.0])])
def test_workers_that_share_cores_slow_one_another(slowdown, ends):
    """4 s at one worker; at the other 1 s from the beginning, and 1 s from 2 s of its own on."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.slowdown = slowdown
        found = []

        async def job(executor: object, seconds: float) -> None:
            await loop.run_in_executor(executor, loop.spend, seconds)
            found.append(now())

        async def twice(executor: object) -> None:
            await job(executor, 1.0)
            await asyncio.sleep(1.0 if slowdown == 1.0 else 0.5)
            await job(executor, 1.0)

        await asyncio.gather(job(ThreadPoolExecutor(1), 4.0), twice(ThreadPoolExecutor(1)))
        return found

    assert run(main()) == pytest.approx(ends)


def test_a_job_that_fails_fails_its_caller_and_nobody_else():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        assert await loop.run_in_executor(None, lambda: 1) == 1

    run(main())


def test_pace_waits_out_the_rest_and_no_more():
    clock = [0.0]

    def work(seconds: float) -> float:
        clock[0] += seconds
        return seconds

    paced = pace(work, 5.0, lambda: clock[0], work)
    assert paced(2.0) == 2.0
    assert clock == [5.0]
    assert paced(7.0) == 7.0  # one that is slower takes as long as it takes
    assert clock == [12.0]


def test_a_message_arrives_when_rate_and_delay_say_and_in_order():
    async def main() -> None:
        wire = Wire(make_link(LinkProfile(1e6, 8e6, 0.1)))
        await wire.send(bytes(1000))
        await wire.send(b"short")
        assert await wire.receive() == bytes(1000)
        first = 8 * packet_bytes(websocket_bytes(1000, masked=True)) / 1e6
        assert now() == pytest.approx(first + 0.05)
        assert await wire.receive() == b"short"
        assert now() > first + 0.05
        begun = now()
        await wire.answer(bytes(1000))
        assert await wire.recv() == bytes(1000)
        down = 8 * packet_bytes(websocket_bytes(1000, masked=False)) / 8e6
        assert now() - begun == pytest.approx(down + 0.05)
        await wire.close()
        assert await wire.receive() is None

    run(main())


def test_a_generation_takes_what_the_formula_says():
    table = random_logits(1, 20)
    world = World(FakeModel(table, rows=False), FakeTarget(table), letters(20), 1000, 0.010, 0.045)

    async def main() -> None:
        async with world.device(make_link(LinkProfile(1e12, 1e12, 0.06))) as device:
            greedy = {"sampling": Sampling(temperature=0.0), "max_tokens": 50}
            generation = device.generate([1, 2], mode="stop-and-wait", gamma=4, **greedy)
            assert len([token async for token in generation]) == 50
            # All is accepted: ten rounds of 4 + 1 tokens, and the prompt's own step before them,
            # which the first draft hides.
            result = generation.result
            assert result.rounds == 10
            assert result.tokens_per_s == pytest.approx(50 / (10 * 0.145 + 0.005), rel=1e-3)
            generation = device.generate([1, 2], mode="stream", **greedy)
            assert len([token async for token in generation]) == 50
            # The prompt's row gives the first token.
            assert generation.result.ttft_s == pytest.approx(0.06 + 0.045, rel=1e-3)
            assert generation.result.tpot_s == pytest.approx(0.045, rel=1e-3)

    run(main())


def test_models_that_remember_write_the_same():
    """As slots of a base station, too, whose memory has a budget."""
    draft, target = random_logits(3, 20), random_logits(1, 20)

    def written(of_draft, of_target) -> list[int]:
        world = World(of_draft, of_target, letters(20), 1000, 0.010, 0.045)

        async def main() -> list[int]:
            async with world.device(make_link(LinkProfile(1e12, 1e12, 0.06))) as device:
                greedy = {"sampling": Sampling(temperature=0.0), "max_tokens": 30}
                generation = device.generate([1, 2], mode="run-ahead", **greedy)
                return [token.id async for token in generation]

        return run(main())

    plain = FakeModel(draft, rows=False), FakeTarget(target)
    remembers = pair.Draft(FakeModel(draft, rows=False)), pair.Target(FakeTarget(target))
    assert written(*remembers) == written(*plain)


@pytest.mark.parametrize("chance", [1e-5, 1e-3, 0.05, 0.4, 0.99])
@pytest.mark.parametrize("later", [1.001, 1.5, 8.0, 60.0])
@pytest.mark.parametrize("second", [True, False])
def test_a_record_has_its_second_candidate_however_unlikely_both_are(chance, later, second):
    """What all other ids share is below it, or a text's own candidates would be hidden."""
    record = Record(3, 5, (False,) * 4, (chance,) * 4, ((later, second),) * 4)
    for position in range(5, 9):
        row = record.drafted(position)
        first, beside, third = (-row).argsort()[:3]
        assert first == record.token(position) + 1
        assert beside == record.token(position) + (0 if second else 2)
        assert row[first] - row[beside] == pytest.approx(math.log(later), abs=1e-4)
        assert row[third] < row[beside]


def test_a_record_without_candidates_is_as_likely_as_it_was():
    sure = Record(3, 5, (True,), (0.7,), ((FAR, False),))
    for one in (sure, replace(sure, seconds=())):
        assert np.exp(one.drafted(5).max()) == pytest.approx(0.7)
