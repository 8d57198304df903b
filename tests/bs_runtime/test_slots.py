"""A bounded pool of slots: texts stay the same, memory is bounded, prefixes are fed once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bs_runtime.engine.batching import Batcher
from bs_runtime.engine.generation import Generation
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.slots import LEAST_SHARED, Slots
from bs_runtime.model import kv
from bs_runtime.model.kv import Feed, Slot
from bs_runtime.model.step import Serial
from bs_runtime.model.target import Target
from bs_runtime.operations import memory
from bs_runtime.operations.limits import Refusal
from bs_runtime.serving.snapshot import snapshot
from bs_runtime.serving.station import Station
from bs_runtime.verify.job import Outcome
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.history import common
from draftlink.schemes import GREEDY
from tests.bs_runtime.tiny import CONFIGS, CONTEXT, VOCAB, build, take
from tests.fake_models import HASH, random_logits
from tests.fakes import FakeTarget
from tests.test_many_devices import SCHEMES, texts

PROMPT = [int(i) for i in np.random.default_rng(0).integers(0, VOCAB, 30)]


class Counted(Serial):
    """A target that notes what it is fed, and the most memory that ``pool`` held."""

    def __init__(self, target: Target) -> None:
        self.target, self.fed, self.most, self.pool = target, 0, 0, Slots()

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        self.fed += sum(len(feed.ids) for feed in feeds)
        rows = self.target.forward(feeds)
        self.most = max(self.most, self.pool.bytes)
        return rows


def generation(target, prompt: Sequence[int], tenant: str = "") -> Generation:
    start = frames.Start(
        1, 0, list(prompt), Sampling(temperature=0.0), GREEDY, "stop-and-wait", 100, [], 1
    )
    context = target.context
    return Generation(
        target.open(), start, list(prompt), target.vocab_size, context, bytes(32), tenant
    )


def room(target: Target) -> int:
    """Bytes of a conversation: with so little context, all of them take the same."""
    return target.open().bytes_for(CONTEXT)


async def write(scheduler: Scheduler, one: Generation, count: int) -> list[int]:
    begin = len(one.history)
    await scheduler.run(one.prompt())
    for _ in range(count):
        await scheduler.run(one.next())
    return one.history[begin:]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("limit", [1, 3])
def test_eight_sessions_in_a_few_slots_write_what_each_writes_alone(name, limit):
    target = take(build(CONFIGS["llama"]))
    target.tokenizer_hash = HASH
    draft = random_logits(5, VOCAB)
    alone = texts(target, draft, SCHEMES[name], together=False)
    pool = Slots(limit * room(target))
    assert texts(target, draft, SCHEMES[name], together=True, slots=pool) == alone
    assert pool.evicted > 8


def test_memory_is_bounded_by_the_budget():
    target = take(build(CONFIGS["llama"]))

    async def run(limit: int) -> tuple[list[list[int]], Counted, Slots]:
        pool, model = Slots(limit * room(target)), Counted(target)
        model.pool = pool
        scheduler = Scheduler(model, pool)
        scheduler._waiting = Batcher(token_s=10.0)  # or on a slow machine prompts' turns come
        gens = [generation(target, [i, *PROMPT[:20]]) for i in range(8)]
        found = await asyncio.gather(*(write(scheduler, one, 10) for one in gens))
        held = sum(one.slot.bytes for one in gens)
        assert held == pool.bytes  # what was evicted holds nothing
        for one in gens:
            scheduler.close(one.slot)
        assert len(pool) == pool.bytes == 0
        return found, model, pool

    roomy, many, untouched = asyncio.run(run(8))
    tight, few, pool = asyncio.run(run(3))
    assert tight == roomy
    assert (untouched.evicted, pool.evicted) == (0, 8 - 3)
    assert few.most <= 3 * many.most / 8
    assert (few.most, many.most) == (3 * room(target), 8 * room(target))
    # Who has been fed a prompt goes before those whose prompts wait, so none is fed twice.
    assert few.fed == many.fed


def test_prompts_longer_than_a_step_do_not_evict_each_other_for_ever():
    target = FakeTarget(random_logits(1, VOCAB))

    async def run() -> None:
        prompts = [[i, *PROMPT * 20] for i in range(6)]
        pool = Slots(2 * 8 * (len(prompts[0]) + 100))
        scheduler = Scheduler(target, pool)
        gens = [generation(target, prompt) for prompt in prompts]
        await asyncio.wait_for(asyncio.gather(*(write(scheduler, g, 3) for g in gens)), 20)
        assert pool.evicted >= 4

    asyncio.run(run())


def test_a_round_that_was_cancelled_half_way_leaves_its_slot_to_others():
    target = FakeTarget(random_logits(1, VOCAB))

    async def run() -> None:
        scheduler = Scheduler(target, Slots(8 * (len(PROMPT) * 50 + 100)))
        long = asyncio.ensure_future(scheduler.run(generation(target, PROMPT * 50).prompt()))
        await asyncio.wait([long], timeout=0.001)
        long.cancel()
        served = await asyncio.wait_for(scheduler.run(generation(target, [1, 2]).prompt()), 20)
        assert served == Outcome(0, None, False)

    asyncio.run(run())


def test_the_least_recently_used_goes_and_never_one_under_way():
    target = FakeTarget(random_logits(1, VOCAB))
    pool = Slots(2 * 8 * 2)  # a token of a fake slot takes 8 bytes, and each round two of them
    a, b, c, d = (generation(target, [i, 1]).prompt() for i in range(4))
    for one in (a, b):
        assert pool.admit(one)
        one.slot.forward([1, 1])
    assert not pool.admit(c)  # both are under way
    pool.release(a.slot)
    pool.release(b.slot)
    pool.next_step()
    assert pool.admit(a)
    pool.release(a.slot)
    assert pool.admit(c)  # b was used longest ago
    assert (a.slot.length, b.slot.length, pool.evicted) == (2, 0, 1)
    assert pool.admit(d)
    assert (a.slot.length, len(pool)) == (0, 2)
    pool.forget(c.slot)
    assert pool.admit(b)
    with pytest.raises(ValueError, match="at least 1"):
        Slots(0)


class Watched(Serial):
    """A target that sees what all slots hold whenever a layer of one has been written."""

    def __init__(self, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target, self.most, self.slots = target, 0, []
        self.vocab_size, self.context = target.vocab_size, target.context
        grown = Slot._grown

        def watched(slot: Slot, old: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
            new = grown(slot, old, like)  # beside the old one: both are held now
            self.most = max(self.most, sum(one.bytes for one in self.slots) + new.nbytes)
            return new

        monkeypatch.setattr(Slot, "_grown", watched)

    def open(self) -> Slot:
        self.slots.append(self.target.open())
        return self.slots[-1]

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        return self.target.forward(feeds)


@pytest.mark.parametrize("share", [1.0, 1.4, 2.5, 4.0])
def test_the_budget_holds_at_every_moment_while_slots_grow(share, monkeypatch):
    """Conversations of very different lengths, which grow block by block; the texts stay."""
    monkeypatch.setattr(kv, "BLOCK", 4)
    target = take(build(CONFIGS["llama"]))
    lengths = [3, 30, 9, 17, 5, 26, 12, 2]

    def run(budget: int | None) -> tuple[list[list[int]], Watched, Slots]:
        async def scenario() -> tuple[list[list[int]], Watched, Slots]:
            model = Watched(target, monkeypatch)
            pool = Slots(budget)
            scheduler = Scheduler(model, pool)
            gens = [generation(model, [i, *PROMPT[:n]]) for i, n in enumerate(lengths)]
            found = await asyncio.gather(*(write(scheduler, one, 14) for one in gens))
            return found, model, pool

        return asyncio.run(asyncio.wait_for(scenario(), 30))

    free, roomy, _ = run(None)
    budget = int(share * room(target))
    tight, few, pool = run(budget)
    assert tight == free
    assert few.most <= budget < roomy.most
    assert pool.bytes <= budget and pool.evicted > 0


def test_a_conversation_that_could_never_fit_is_refused_when_it_begins():
    target = FakeTarget(random_logits(1, VOCAB))

    async def run() -> None:
        scheduler = Scheduler(target, Slots(8 * 150))
        long, fits = generation(target, PROMPT * 2), generation(target, PROMPT)
        with pytest.raises(Refusal, match=r"up to 160 tokens needs 1\.2 KiB") as told:
            await asyncio.wait_for(scheduler.run(long.prompt()), 5)
        assert told.value.code == "request" and "--kv-bytes" in told.value.reason
        assert len(await write(scheduler, fits, 100)) == 100

    asyncio.run(run())


def test_small_rounds_do_not_keep_a_large_one_waiting_for_ever():
    """Whoever finds no room comes first: those behind it take none that is left over."""
    target = FakeTarget(random_logits(1, VOCAB))
    pool = Slots(8 * 100)
    small = [generation(target, [i] * 40).prompt() for i in range(3)]
    large = generation(target, [9] * 90).prompt()
    assert pool.admit(small[0])
    small[0].slot.forward([0] * 20)
    pool.next_step()
    assert not pool.admit(large) and not pool.admit(small[1])
    assert pool.admit(small[0])  # what it needs it has
    small[0].slot.forward([0] * 20)
    pool.release(small[0].slot)
    pool.next_step()
    assert pool.admit(large) and not pool.admit(small[2])


def test_by_default_caches_take_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "_free_bytes", lambda: 10 << 30)
    station = Station(FakeTarget(random_logits(1, VOCAB)))  # type: ignore[arg-type]
    assert station.scheduler.slots.budget == 5 << 30
    assert snapshot(station, 1.0)["most_kv_bytes"] == 5 << 30
    monkeypatch.undo()
    assert 1 << 20 < memory._free_bytes() < 1 << 50


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("together", [False, True])
def test_a_shared_prefix_is_fed_once_and_the_texts_stay_the_same(architecture, together):
    target = take(build(CONFIGS[architecture]))
    prompts = [[*PROMPT, i] for i in range(4)]

    async def run(tenants: list[str]) -> tuple[list[list[int]], int]:
        model = Counted(target)
        scheduler = Scheduler(model)
        gens = [generation(target, p, t) for p, t in zip(prompts, tenants, strict=True)]
        if together:
            found = await asyncio.gather(*(write(scheduler, one, 8) for one in gens))
        else:
            found = [await write(scheduler, one, 8) for one in gens]
        return found, model.fed

    alone, all_fed = asyncio.run(run([""] * 4))
    shared, fed = asyncio.run(run(["t"] * 4))
    assert shared == alone
    assert fed == all_fed - 3 * len(PROMPT)
    # Nothing crosses from one tenant to another: as much is fed as if nobody shared.
    assert asyncio.run(run(["t", "u", "v", "w"])) == (alone, all_fed)
    # Control: two of each.
    assert asyncio.run(run(["t", "u", "t", "u"])) == (alone, all_fed - 2 * len(PROMPT))


def test_prefixes_that_the_operator_lists_are_for_all_tenants_and_nobody():
    target = take(build(CONFIGS["qwen2"]))
    listed = target.open()
    listed.forward(PROMPT, last=True)

    async def run(pool: Slots) -> tuple[list[list[int]], int]:
        model = Counted(target)
        scheduler = Scheduler(model, pool)
        gens = [generation(target, [*PROMPT, i], tenant) for i, tenant in enumerate(["", "t"])]
        return [await write(scheduler, one, 8) for one in gens], model.fed

    plain, all_fed = asyncio.run(run(Slots()))
    assert asyncio.run(run(Slots(room(target), [listed]))) == (plain, all_fed - 2 * len(PROMPT))
    assert listed.ids == PROMPT


def test_a_slot_that_was_rolled_back_or_emptied_gives_only_what_it_holds():
    target = take(build(CONFIGS["llama"]))
    source, slot, fresh = target.open(), target.open(), target.open()
    source.forward(PROMPT)
    source.rollback(20)
    slot.forward(PROMPT[:5])
    slot.adopt(source, PROMPT)
    assert slot.ids == PROMPT[:20]
    rows = slot.forward(PROMPT[20:])
    torch.testing.assert_close(rows, fresh.forward(PROMPT)[20:], rtol=0, atol=1e-5)
    other = target.open()
    for wrong in ([9, *PROMPT], []):
        other.adopt(source, wrong)
        assert other.length == 0
    source.close()
    other.adopt(source, PROMPT)
    assert other.length == 0
    slot.rollback(3)
    slot.adopt(fresh, [7, *PROMPT])  # what it holds is no part of this history
    assert slot.ids == PROMPT[:3]


def test_common_prefixes():
    assert [common(*p) for p in ([[], [1]], [[1, 2], [1, 2]], [[1, 2, 3], [1, 2, 4, 5]])] == [
        0,
        2,
        2,
    ]
    assert common([5], [6]) == 0
    assert LEAST_SHARED <= len(PROMPT) < CONTEXT
