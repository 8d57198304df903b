"""Prefix caching by hashes of blocks: the hits of a linear search, for a fraction of its work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from bs_runtime.engine import prefixes
from bs_runtime.engine.generation import Generation, Round
from bs_runtime.engine.prefixes import BLOCK, Chain, Entry, Index
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.slots import LEAST_SHARED, Slots
from bs_runtime.model.kv import Feed
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.history import common
from draftlink.schemes import GREEDY
from tests.bs_runtime.tiny import CONFIGS, VOCAB, build, take
from tests.fake_models import FakeModel, random_logits
from tests.fakes import FakeTarget

TABLE = random_logits(1, VOCAB)


class CountedIds(list[int]):
    """A text that counts how many of its tokens are read, and of its parts, too."""

    read = 0

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        found = super().__getitem__(at)
        CountedIds.read += len(found) if isinstance(at, slice) else 1
        return CountedIds(found) if isinstance(at, slice) else found


def generation(target, prompt: Sequence[int], tenant: str = "t") -> Generation:
    start = frames.Start(
        1, 0, list(prompt), Sampling(temperature=0.0), GREEDY, "stop-and-wait", 100, [], 1
    )
    return Generation(
        target.open(), start, list(prompt), target.vocab_size, target.context, bytes(32), tenant
    )


def linear(pool: Slots, shared: Sequence[FakeModel], round: Round) -> tuple[bool, object, int]:
    """The search as it was: whether to take part, and what to copy how much from."""
    here, ids = round.slot, round.prefix.ids
    if round.left < LEAST_SHARED:
        return True, None, 0
    known, source = here.length, None
    sources = list(shared)
    if round.tenant:
        filled = sorted(pool._places.values(), key=lambda place: place.entry.used)
        sources += [p.entry.slot for p in filled if p.tenant == round.tenant]
    for one in sources:
        same = common(one.ids, ids) if one is not here else 0
        if same >= max(known, here.length + LEAST_SHARED):
            known, source = same, one
    for other in pool._step:
        mine = round.tenant and other.tenant == round.tenant
        if mine and common(other.prefix.ids, ids) >= known + LEAST_SHARED:
            return False, None, 0
    return True, source, known if source is not None else 0


class Walk:
    """Random conversations that are fed, cut back, emptied and given up, in a pool."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.target = FakeTarget(TABLE)
        # Texts that part at many places: each begins with a part of another.
        self.texts = [self._ids(200)]
        for _ in range(12):
            base = self.texts[self.rng.integers(len(self.texts))]
            self.texts.append([*base[: self.rng.integers(1, 150)], *self._ids(80)])
        self.shared = [self.target.open() for _ in range(2)]
        for slot in self.shared:
            slot.forward(self._text())
        budget = int(self.rng.choice([700, 1500, 100_000]))
        self.pool = Slots(8 * budget, self.shared)
        self.open: list[Generation] = []
        self.rounds: list[Round] = []
        self.hits = self.waits = 0

    def _ids(self, count: int) -> list[int]:
        return [int(i) for i in self.rng.integers(0, VOCAB, count)]

    def _text(self) -> list[int]:
        text = self.texts[self.rng.integers(len(self.texts))]
        return text[: self.rng.integers(2, len(text))]

    def step(self) -> None:
        """Begin rounds, admit some, and feed them, each whole or in part."""
        for one in list(self.open):
            busy = any(round.slot is one.slot for round in self.rounds)
            if not busy and self.rng.random() < 0.1:
                self.open.remove(one)
                self.pool.forget(one.slot)
            elif not busy and self.rng.random() < 0.6:
                self._begin(one)
        while len(self.open) < 8:
            tenant = str(self.rng.choice(["", "a", "b"]))
            self.open.append(generation(self.target, self._text(), tenant))
            self._begin(self.open[-1])
        self.pool.next_step()
        taken = [round for round in self.rounds if self.admits(round)]
        for round in taken:
            self._feed(round)

    def _begin(self, one: Generation) -> None:
        if self.rng.random() < 0.5:  # another turn, or the same one goes on
            history = self._text()
            one.slot.rollback(min(one.slot.length, common(one.history, history)))
            one.history[:] = history
            one._row = None
        self.rounds.append(one.prompt())

    def admits(self, round: Round) -> bool:
        """Whether a round is admitted, as the linear search would have it."""
        fits, source, length = linear(self.pool, self.shared, round)
        assert self.pool._find_source(round) is fits
        found = round.copy
        assert (found and found.source, found.length if found else 0) == (source, length)
        self.hits += found is not None
        self.waits += not fits
        admitted = self.pool.admit(round)
        assert fits or not admitted
        return admitted

    def _feed(self, round: Round) -> None:
        round.prepare()
        if round.left and self.rng.random() < 0.1:  # a forward that lacked memory
            round.slot.close()
        elif round.left:
            feed = round.feed(int(self.rng.choice([16, 40, 1000])))
            round.take(self.target.forward([feed]))
        cancelled = self.rng.random() < 0.1
        if not round.left and not cancelled:
            round.commit(None)
        if not round.left or cancelled:
            self.rounds.remove(round)
            self.pool.release(round.slot)


@pytest.mark.parametrize("seed", range(8))
def test_hits_are_those_of_a_linear_search(seed):
    walk = Walk(seed)
    for _ in range(100):
        walk.step()
    assert walk.hits > 50 and walk.waits > 0


def test_an_admission_reads_a_text_a_few_times_however_many_slots_share_it():
    """64 slots share 8,192 tokens and differ at the end. Work is counted, not timed."""
    count, length = 64, 8192
    rng = np.random.default_rng(0)
    shared = [int(i) for i in rng.integers(0, VOCAB, length)]
    target = FakeTarget(TABLE)
    pool = Slots(1 << 40)
    for i in range(count):
        one = generation(target, [*shared, i % VOCAB, i // VOCAB, *PROMPT[:30]]).prompt()
        pool.next_step()
        assert pool.admit(one)
        one.slot.cache = CountedIds(one.generation.history)
        pool.release(one.slot)
    last = generation(target, [*shared, *PROMPT])
    last.history = CountedIds(last.history)
    round = last.prompt()

    def work(search) -> int:
        CountedIds.read = 0
        search()
        return CountedIds.read

    pool.next_step()
    first = work(lambda: pool.admit(round))
    assert round.copy is not None and round.copy.length >= length
    # Once to hold on to it, once to hash it, once to compare it with another, which is read as
    # often, after the hit; and a block of each of the slots.
    assert first <= 4 * (length + len(PROMPT)) + 4 * BLOCK * count
    # The next chunk of it finds that nobody has more, without a look at any text.
    round.prepare()
    round.take(target.forward([round.feed(20)]))
    pool.next_step()
    assert round.left >= LEAST_SHARED
    assert work(lambda: pool.admit(round)) <= 2 * BLOCK * count
    control = work(lambda: linear(pool, [], last.prompt()))
    assert control > 25 * first


def test_a_collision_of_hashes_copies_nobodys_text(monkeypatch):
    """Texts are what each is alone, though every block has the same hash."""
    target = take(build(CONFIGS["llama"]))
    prompts = [[i, *PROMPT[i:30]] for i in range(4)]

    async def run(tenant: str) -> list[list[int]]:
        scheduler = Scheduler(target)
        found = []
        for prompt in prompts:
            one = generation(target, prompt, tenant)
            await scheduler.run(one.prompt())
            for _ in range(8):
                await scheduler.run(one.next())
            found.append(one.history)
        return found

    alone = asyncio.run(run(""))
    monkeypatch.setattr(prefixes, "digest", lambda before, block: 0)
    assert asyncio.run(run("t")) == alone


def test_ids_are_compared_after_a_hit(monkeypatch):
    monkeypatch.setattr(prefixes, "digest", lambda before, block: 0)
    slot = FakeModel(TABLE, rows=True)
    slot.forward([1] * 40)
    index = Index()
    index.update(Entry(slot))
    assert index.find(Chain([1] * 40), BLOCK) is not None
    assert index.find(Chain([2] * 40), BLOCK) is None
    assert index.find(Chain([1] * 31 + [2] * 9), BLOCK) is None
    assert not Chain([1] * 40).shares(Chain([2] * 40), 32)
    assert Chain([1] * 40).shares(Chain([1] * 39 + [3]), 39)


class Fed(FakeTarget):
    """A target that counts the tokens that it is fed."""

    def __init__(self) -> None:
        super().__init__(TABLE)
        self.fed = 0

    def forward(self, feeds: Sequence[Feed]):  # type: ignore[no-untyped-def]
        self.fed += sum(len(feed.ids) for feed in feeds)
        return super().forward(feeds)


def test_what_two_texts_share_is_copied_though_they_part_before_the_end():
    target = Fed()

    async def run() -> None:
        scheduler = Scheduler(target)
        first = generation(target, [*PROMPT, *[1] * 20])
        other = generation(target, [*PROMPT, *[2] * 20])
        await scheduler.run(first.prompt())
        await scheduler.run(other.prompt())
        assert target.fed == len(first.history) + 20
        assert other.slot.ids == other.history

    asyncio.run(run())


PROMPT = [int(i) for i in np.random.default_rng(2).integers(0, VOCAB, 100)]
