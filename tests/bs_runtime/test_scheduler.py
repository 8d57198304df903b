"""Rounds of many generations through one model: judged together, and each for itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from bs_runtime.engine.batching import LEAST_CAP
from bs_runtime.engine.generation import Generation, ModelFault
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.kv import Feed
from bs_runtime.verify import verify
from bs_runtime.verify.job import Outcome
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes import GREEDY
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.fakes import FakeTarget

SIZE = 8
# After token i comes i + 1.
TABLE = np.where(np.roll(np.eye(SIZE), 1, axis=1) > 0, 30.0, -30.0)


class SlowTarget(FakeTarget):
    """Each forward takes ``seconds``, and fails while it feeds a slot of ``broken``."""

    seconds = 0.0
    broken: tuple[object, ...] = ()

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        time.sleep(self.seconds)
        if any(feed.slot in self.broken for feed in feeds):
            for feed in feeds:
                feed.slot.close()
            raise MemoryError("out of memory")
        return super().forward(feeds)


def generation(target: FakeTarget, prompt: Sequence[int] = (0,)) -> Generation:
    start = frames.Start(1, 0, list(prompt), Sampling(temperature=0.0), GREEDY, "draft", 100, [], 1)
    return Generation(target.open(), start, list(prompt), SIZE, 1 << 20, bytes(32))


def tokens(*ids: int) -> list[Drafted]:
    return [Drafted(i, 1, 1) for i in ids]


def test_rounds_that_wait_together_are_one_forward_and_one_judging(monkeypatch):
    target = FakeTarget(TABLE)
    judged = []
    judge = verify.judge
    monkeypatch.setattr(verify, "judge", lambda rows, jobs: judged.append(1) or judge(rows, jobs))

    async def scenario() -> None:
        scheduler = Scheduler(target)
        gens = [generation(target, [i]) for i in range(4)]
        await asyncio.gather(*(scheduler.run(g.prompt()) for g in gens))
        assert (target.batches, judged) == ([4], [])
        rounds = [
            gens[0].draft(tokens(1, 2, 3)),
            gens[1].draft(tokens(2, 4)),
            gens[2].draft(()),
            gens[3].next(),
        ]
        served = await asyncio.gather(*map(scheduler.run, rounds))
        assert (target.batches, judged) == ([4, 2], [1])  # two had their row, and were only judged
        assert [(s.accepted, s.next) for s in served] == [
            (3, 4),
            (1, 3),
            (0, 3),
            (0, 4),
        ]
        assert [g.history for g in gens] == [[0, 1, 2, 3, 4], [1, 2, 3], [2, 3], [3, 4]]
        assert (scheduler.totals.steps, scheduler.totals.rounds) == (2, 8)

    asyncio.run(scenario())


def test_a_long_prompt_is_fed_in_parts_between_verdicts():
    target = SlowTarget(TABLE)
    target.seconds = 0.03  # between a half and the whole of a full step's time: the cap stays
    prompt = [i % SIZE for i in range(5 * LEAST_CAP + 7)]

    async def scenario() -> None:
        scheduler = Scheduler(target)
        long, short = generation(target, prompt), generation(target, [0])
        await scheduler.run(short.prompt())
        running = asyncio.ensure_future(scheduler.run(long.prompt()))
        verdicts = 0
        while not running.done():
            served = await scheduler.run(short.draft(tokens(*[(short.history[-1] + 1) % SIZE])))
            assert served.accepted == 1
            assert served.queue_us + served.verify_us < 2.5 * 30_000
            verdicts += 1
        assert verdicts >= 5
        assert long.slot.length == len(prompt)
        served = await scheduler.run(long.next())
        assert served.next == (prompt[-1] + 1) % SIZE

    asyncio.run(scenario())


def test_a_round_that_fails_is_its_own_fault_alone():
    target = SlowTarget(TABLE)

    async def scenario() -> list[object]:
        scheduler = Scheduler(target)
        gens = [generation(target, [i]) for i in range(3)]
        await asyncio.gather(*(scheduler.run(g.prompt()) for g in gens))
        target.broken = (gens[1].slot,)
        rounds = [scheduler.run(g.draft(tokens(g.history[-1] + 1))) for g in gens]
        results = await asyncio.gather(*rounds, return_exceptions=True)
        # What was emptied with it is fed again, from the history.
        assert [g.slot.length for g in gens] == [2, 0, 2]
        return results

    first, failed, third = asyncio.run(scenario())
    assert isinstance(failed, MemoryError)
    assert first == Outcome(1, 2, False)
    assert third == Outcome(1, 4, False)


def test_what_one_round_cannot_write_is_not_written_twice_for_the_others(monkeypatch):
    """A step that was committed for some must not be run again for them."""
    target = SlowTarget(TABLE)

    async def scenario() -> tuple[list[object], list[list[int]]]:
        scheduler = Scheduler(target)
        gens = [generation(target, [i]) for i in range(3)]
        await asyncio.gather(*(scheduler.run(g.prompt()) for g in gens))

        def commit(*_: object, **__: object) -> Outcome:
            raise MemoryError("out of memory")

        monkeypatch.setattr(gens[1], "commit", commit)
        rounds = [scheduler.run(g.draft(tokens(g.history[-1] + 1))) for g in gens]
        return await asyncio.gather(*rounds, return_exceptions=True), [g.history for g in gens]

    (first, failed, third), histories = asyncio.run(scenario())
    assert isinstance(failed, MemoryError)
    assert (first.next, third.next) == (2, 4)
    assert histories == [[0, 1, 2], [1], [2, 3, 4]]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_greedy_row_without_a_largest_number_is_refused_alone(broken):
    table = TABLE.copy()
    table[5, :] = broken
    target = FakeTarget(table)

    async def scenario() -> list[object]:
        scheduler = Scheduler(target)
        gens = [generation(target, [i]) for i in (1, 5)]
        await asyncio.gather(*(scheduler.run(g.prompt()) for g in gens))
        rounds = [scheduler.run(g.next()) for g in gens]
        return await asyncio.gather(*rounds, return_exceptions=True)

    served, refused = asyncio.run(scenario())
    assert served.next == 2
    assert isinstance(refused, ValueError) and "no largest number" in str(refused)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheme", [TopK(4, 16), Dense(), Split(4, 16), Coupled(), GREEDY])
def test_no_rule_writes_from_a_row_without_a_largest_number(broken, scheme):
    """It is the model's fault, and said to be; what nobody draws from is nobody's fault."""
    table = TABLE.copy()
    table[5, :] = broken
    target = FakeTarget(table)
    params = Sampling(temperature=0.0 if scheme is GREEDY else 1.0)

    def begin(prompt: int, eos: list[int]) -> Generation:
        named = Split() if scheme is GREEDY else scheme
        start = frames.Start(1, 0, [prompt], params, named, "draft", 100, eos, 1)
        return Generation(target.open(), start, [prompt], SIZE, 1 << 20, bytes(32))

    async def scenario() -> None:
        scheduler = Scheduler(target)
        good, bad, last, wrong = gens = [begin(1, []), begin(3, []), begin(3, [5]), begin(1, [])]
        await asyncio.gather(*(scheduler.run(g.prompt()) for g in gens))
        results = await asyncio.gather(
            scheduler.run(good.next()),
            scheduler.run(bad.draft(tokens(4, 5))),
            scheduler.run(last.draft(tokens(4, 5))),  # the text ends there
            scheduler.run(wrong.draft(tokens(5, 6))),  # the draft is turned down before
            return_exceptions=True,
        )
        assert results[0].next == 2
        refused = results[1]
        assert isinstance(refused, ModelFault) and isinstance(refused, ValueError)
        assert (refused.code, bad.history[3:]) == ("internal", [])
        assert "the model is broken" in refused.reason and "behind token 3" in refused.reason
        assert results[2] == replace(results[2], accepted=2, ended=True)
        assert results[3].accepted == 0
        assert target.batches == [4, 3]

    asyncio.run(scenario())


def test_the_event_loop_goes_on_while_the_model_works():
    target = SlowTarget(TABLE)
    target.seconds = 0.3

    async def scenario() -> None:
        scheduler = Scheduler(target)
        running = asyncio.ensure_future(scheduler.run(generation(target).prompt()))
        worst, before = 0.0, time.perf_counter()
        while not running.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, before = max(worst, now - before), now
        assert worst < 0.15

    asyncio.run(scenario())


def test_verdicts_tell_their_queue_delay():
    target = SlowTarget(TABLE)
    target.seconds = 0.1

    async def scenario() -> None:
        scheduler = Scheduler(target)
        one, other = generation(target), generation(target)
        first = asyncio.ensure_future(scheduler.run(one.prompt()))
        await asyncio.sleep(0.02)
        second = await scheduler.run(other.prompt())
        assert (await first).queue_us < 50_000 <= second.queue_us
        assert second.verify_us >= 100_000

    asyncio.run(scenario())


def test_a_cancelled_round_is_not_fed_and_its_slot_is_closed_behind_the_step():
    target = SlowTarget(TABLE)
    target.seconds = 0.1

    async def scenario() -> None:
        scheduler = Scheduler(target)
        running, waiting = generation(target), generation(target)
        rounds = [running.prompt(), waiting.prompt()]
        first = asyncio.ensure_future(scheduler.run(rounds[0]))
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(scheduler.run(rounds[1]))
        await asyncio.sleep(0.02)
        for task, slot in ((first, running.slot), (second, waiting.slot)):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            scheduler.close(slot)
        third = await scheduler.run(generation(target).prompt())
        assert third == Outcome(0, None, False)
        assert target.batches == [1, 1]
        assert running.slot.length == waiting.slot.length == 0

    asyncio.run(scenario())
