"""Several steps in flight: texts are those of one at a time, and nobody else touches a slot."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.virtual.loop import run
from bs_runtime.engine.generation import Generation, Round
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.slots import Slots
from bs_runtime.engine.threads import Team
from bs_runtime.model import kv
from bs_runtime.model.commands import Copy, Drop
from bs_runtime.model.kv import Feed, Slot
from bs_runtime.model.step import Serial, Step
from bs_runtime.model.target import Target
from draftlink.distribution import noise
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.protocol.history import common
from draftlink.schemes import GREEDY, AnyScheme, Coupled, TopK
from tests.bs_runtime.late import LATE_S, POISON, SIZE, TOKEN_BYTES, Late, mixed
from tests.bs_runtime.test_slots import PROMPT, generation, room, write
from tests.bs_runtime.tiny import CONFIGS, build, take

DEVICES, TURNS, WRITTEN = 8, 2, 14
SCHEMES: dict[str, AnyScheme] = {"greedy": GREEDY, "coupled": Coupled(), "topk": TopK(6, 64)}
SHARED = [i % POISON for i in range(90)]  # what prompts begin with
KEY = noise.key_from_seed(3, "device")


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Slots grow by few tokens, so that a small budget is a tight one."""
    monkeypatch.setattr(kv, "BLOCK", 8)


@dataclass
class Device:
    """Drafts what depends on the history alone, turn after turn, and notes its texts."""

    number: int
    scheme: AnyScheme
    target: Any
    scheduler: Scheduler
    cancels: bool = False
    texts: list[list[int]] = field(default_factory=list)
    one: Generation | None = None
    base: int = 0  # of the turn

    def __post_init__(self) -> None:
        self.slot = self.target.open()
        self._rng = random.Random(self.number)

    def begin(self, history: list[int]) -> Generation:
        """Another turn: what the slot has of its history stays."""
        sampling = Sampling(temperature=0.0 if self.scheme is GREEDY else 1.0)
        start = frames.Start(
            self.number, 0, list(history), sampling, self.scheme, "draft", WRITTEN, [], self.number
        )
        before = self.one
        same = 0 if before is None else common(before.history, history)
        self.slot.rollback(min(self.slot.length, same))
        self.one = Generation(
            self.slot, start, history, SIZE, 1 << 20, bytes(32), f"t{self.number % 3}", before, same
        )
        return self.one

    def draft(self, history: list[int]) -> list[Drafted]:
        """One to five tokens."""
        found: list[Drafted] = []
        for _ in range(1 + mixed(history) % 5):
            past = [*history, *(d.token for d in found)]
            q = np.random.default_rng(mixed(past)).dirichlet(np.full(SIZE, 0.2))
            q[POISON] = 0.0
            found.append(self.scheme.propose(q / q.sum(), KEY, len(past)))
        return found

    async def prompt(self, round: Round) -> None:
        """Its prompt; sometimes it goes away in the midst of it, and comes back."""
        running = self.scheduler.run(round)
        if self.cancels:
            await asyncio.sleep(self._rng.uniform(0.0, 2 * LATE_S))
            if not running.done():
                running.cancel()
                await self.scheduler.unused(self.slot)
                assert self.one is not None
                running = self.scheduler.run(self.one.prompt())
        await running

    async def play(self) -> None:
        """All turns: each goes on behind the one before, or parts from it."""
        history = [*SHARED[: 70 + self.number % 3], self.number, 1]
        for turn in range(TURNS):
            self.base, one = len(history), self.begin(history)
            await self.prompt(one.prompt())
            while not one.ended:
                await asyncio.sleep(self._rng.uniform(0.0, 0.05))
                await self.scheduler.run(one.draft(self.draft(one.history)))
            self.texts.append(one.history[self.base :])
            history = [*one.history[: len(one.history) - 7 * turn - 3], 5, 6]


@dataclass
class Played:
    """What became of a run."""

    texts: list[list[list[int]]]
    target: Late
    pool: Slots
    seconds: float


def play(
    scheme: str, depth: int, *, seed: int = 0, fails: float = 0.0, budget: int = 1 << 30,
    cancels: bool = False, closes: bool = False, poisoned: bool = False, listed: int = 0,
    faults: list[str] | None = None,
) -> Played:  # fmt: skip
    """Devices on a target that takes ``depth`` steps at once.

    ``closes``: others come and are closed in the midst of their prompts. ``poisoned``: one more
    makes each of its steps fail, and is refused. ``listed``: tokens of a prefix that is there for
    all to copy. ``faults``: where the target notes what nobody may do.
    """

    async def main() -> Played:
        target = Late(depth, seed, fails, faults=[] if faults is None else faults)
        shared = [target.open() for _ in range(listed > 0)]
        for slot in shared:
            slot.held = SHARED[:listed]
            slot.advance(SHARED[:listed])
        pool = Slots(budget, shared)
        scheduler = Scheduler(target, pool, Team(1, fixed=True))
        devices = [Device(i, SCHEMES[scheme], target, scheduler, cancels) for i in range(DEVICES)]
        rng, loop = random.Random(seed), asyncio.get_running_loop()

        async def come_and_go(number: int) -> None:
            for _ in range(12):
                other = Device(number, GREEDY, target, scheduler)
                history = [*SHARED, *[number] * 10]
                running = scheduler.run(other.begin(history).prompt())
                await asyncio.sleep(rng.uniform(0.0, 0.1))
                running.cancel()
                scheduler.close(other.slot)

        async def poison() -> None:
            for _ in range(3):
                other = Device(100, GREEDY, target, scheduler)
                with pytest.raises(RuntimeError, match="it failed"):
                    await scheduler.run(other.begin([1, 2, POISON]).prompt())
                scheduler.close(other.slot)

        begun = loop.time()
        async with asyncio.timeout(1e4):
            others = [come_and_go(i) for i in range(3)] if closes else []
            others += [poison()] if poisoned else []
            await asyncio.gather(*(one.play() for one in devices), *others)
            seconds = loop.time() - begun
            for one in devices:
                scheduler.close(one.slot)
            assert scheduler._task is not None
            await scheduler._task
        # Everything is given back, and was by steps.
        assert len(pool) == pool.bytes == 0 and not target.flying()
        assert not any(one.in_flight for one in target.slots)
        assert [one for one in target.slots if one.held] == shared
        return Played([one.texts for one in devices], target, pool, seconds)

    return run(main())


@pytest.fixture(scope="module")
def alone():
    """The texts of each scheme, one step at a time and nothing in the way."""
    known: dict[str, Played] = {}

    def played(scheme: str) -> Played:
        if scheme not in known:
            known[scheme] = play(scheme, 1)
            assert known[scheme].target.faults == [] and known[scheme].target.most == 1
        return known[scheme]

    return played


CASES = {
    "late": {},
    "fails": {"fails": 0.3},
    "evicts": {"budget": TOKEN_BYTES * 400},
    "cancels": {"cancels": True},
    "listed": {"listed": 60},
    "all": {
        "fails": 0.2, "budget": TOKEN_BYTES * 500, "cancels": True, "closes": True,
        "poisoned": True, "listed": 40,
    },
}  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES)
def test_three_steps_at_once_write_what_one_at_a_time_does(alone, scheme, case):
    options = CASES[case]
    for seed in range(2 if case == "all" else 1):
        found = play(scheme, 3, seed=seed, **options)
        assert found.target.faults == []
        assert found.texts == alone(scheme).texts
        assert found.target.most == 3 and found.target.copied > 0
        assert (found.target.failed > 0) == ("fails" in options)
        assert (found.pool.evicted > 0) == ("budget" in options)
    if case == "all":
        assert play(scheme, 1, **options).texts == alone(scheme).texts


@pytest.mark.parametrize("case", CASES)
def test_control_without_the_look_at_what_is_in_flight_slots_are_in_two_steps(monkeypatch, case):
    """The target notices, and there is something to notice."""
    flag = property(lambda slot: False, lambda slot, value: None)
    monkeypatch.setattr(Slot, "in_flight", flag, raising=False)
    faults: list[str] = []
    with contextlib.suppress(Exception):  # whatever becomes of it
        play("greedy", 3, faults=faults, **CASES[case])  # type: ignore[arg-type]
    gc.collect()  # tasks that died of it say so now, and not in the midst of another test
    assert "a slot is in two steps" in faults


def test_control_without_commands_slots_do_not_hold_what_they_count(monkeypatch):
    """What a step's commands say is done by nobody else."""
    monkeypatch.setattr(Slot, "take_commands", lambda slot: ())
    faults: list[str] = []
    with contextlib.suppress(Exception):
        play("greedy", 3, faults=faults)
    gc.collect()
    assert "a slot does not hold what it counts" in faults


@pytest.mark.parametrize("at_s", [0.2, 0.5, 0.8])
def test_shut_down_in_the_midst_of_steps_everything_is_given_back(alone, at_s):
    texts = alone("coupled").texts

    async def main() -> None:
        target = Late(3)
        scheduler = Scheduler(target, Slots(1 << 30), Team(1, fixed=True))
        devices = [Device(i, Coupled(), target, scheduler) for i in range(DEVICES)]
        tasks = [asyncio.create_task(one.play()) for one in devices]
        await asyncio.sleep(at_s)
        assert len(target.flying()) > 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for one in devices:
            scheduler.close(one.slot)  # what is in flight is waited for
            assert one.slot.in_flight or not one.slot.length
        assert scheduler._task is not None
        async with asyncio.timeout(100):
            await scheduler._task
        assert not target.flying() and not any(one.held for one in target.slots)
        assert target.faults == []
        for device, whole in zip(devices, texts, strict=True):
            assert device.one is not None
            so_far = device.one.history[device.base :]
            turn = whole[len(device.texts)] if len(device.texts) < TURNS else so_far
            assert device.texts == whole[: len(device.texts)] and turn[: len(so_far)] == so_far

    run(main())


def test_a_process_that_ends_leaves_steps_in_flight_to_themselves():
    """The loop ends, and nobody waits for what will never be collected."""

    async def main() -> Late:
        target = Late(3)
        scheduler = Scheduler(target, Slots(1 << 30), Team(1, fixed=True))
        devices = [Device(i, GREEDY, target, scheduler) for i in range(DEVICES)]
        tasks = [asyncio.create_task(one.play()) for one in devices]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        assert len(target.flying()) > 1
        return target

    assert run(main()).faults == []


class Deep(Serial):
    """A real target that takes three steps, and runs each where it is collected."""

    in_flight = 3

    def __init__(self, target: Target) -> None:
        self._target = target
        self._steps: deque[Step] = deque()
        self.most = self.copied = self.dropped = 0

    def launch(self, step: Step) -> None:
        assert not any(step.slots & other.slots for other in list(self._steps))
        self._steps.append(step)
        self.most = max(self.most, len(self._steps))
        self.copied += sum(isinstance(command, Copy) for command in step.commands)
        self.dropped += sum(isinstance(command, Drop) for command in step.commands)

    def collect(self) -> torch.Tensor:
        try:
            return self.run(self._steps[0])
        finally:
            self._steps.popleft()

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        with contextlib.suppress(RuntimeError):  # in a thread no loop is running
            loop: Any = asyncio.get_running_loop()
            loop.spend(LATE_S)
        return self._target.forward(feeds)


async def written(target: Target, model: Any, budget: int, pause_s: float) -> list[list[int]]:
    """Eight texts that begin alike, with pauses between their rounds."""
    scheduler = Scheduler(model, Slots(budget))

    async def one_text(i: int, one: Generation) -> list[int]:
        for turn in range(13):
            await asyncio.sleep(pause_s * ((7 * i + 3 * turn) % 5))
            await scheduler.run(one.next() if turn else one.prompt())
        return one.history[len(one.start.ids) :]

    gens = [generation(target, [*PROMPT[: 20 + i % 2], i], "t") for i in range(8)]
    found = await asyncio.gather(*(one_text(i, one) for i, one in enumerate(gens)))
    for one in gens:
        scheduler.close(one.slot)
    assert scheduler._task is not None
    await scheduler._task
    assert not any(one.slot._layers for one in gens)
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_over_a_transformer(architecture):
    """Keys and values that are copied and given back where the steps say so; in threads, too."""
    target = take(build(CONFIGS[architecture]))
    plain = asyncio.run(written(target, target, 8 * room(target), 0.0))
    deep = Deep(target)
    assert run(written(target, deep, 5 * room(target), LATE_S / 4)) == plain
    assert deep.most > 1 and deep.copied > 0 and deep.dropped > 8
    assert asyncio.run(written(target, Deep(target), 5 * room(target), 0.0)) == plain


def test_a_command_that_fails_empties_the_slots_of_its_step(monkeypatch):
    """They are fed again, and the text is as it was."""
    target = take(build(CONFIGS["llama"]))

    async def texts(tenant: str) -> list[list[int]]:
        scheduler = Scheduler(target)
        gens = [generation(target, [*PROMPT, i], tenant) for i in range(3)]
        return [await write(scheduler, one, 5) for one in gens]

    plain = asyncio.run(texts(""))
    copy, calls = Slot.copy, []

    def lacks(slot: Slot, source: Slot, begin: int, end: int) -> None:
        calls.append((slot, source))
        if len(calls) == 1:
            raise MemoryError("out of memory")
        copy(slot, source, begin, end)

    monkeypatch.setattr(Slot, "copy", lacks)
    assert asyncio.run(texts("t")) == plain
    assert len(calls) >= 2


def test_a_copy_into_one_buffer_that_has_to_grow_stands_behind_what_was_there():
    """As on a GPU, where all layers of a slot are one buffer: it is made when the step is run."""
    owner = Late(1)
    owner.layout, owner.token_bytes = kv.Layout(2, 1, 3), 2 * 2 * 3 * 4
    owner.model = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))

    def filled(count: int, begin: float) -> Slot:
        slot = Slot(owner)
        slot.reserve(count)
        slot.fit()
        for layer in range(2):
            entries = begin + torch.arange(3.0 * count).view(1, 1, count, 3)
            slot.write(layer, entries, -entries)
        slot.advance(range(count))
        return slot

    slot, source = filled(5, 0.0), filled(40, 100.0)
    held = slot.bytes
    slot.adopt(source, list(range(30)))
    slot.rollback(28)
    assert slot.ids == list(range(28)) and slot.bytes == held  # nothing has been done yet
    slot.carry_out()
    assert slot.bytes == slot.bytes_for(30) > held
    for layer in range(2):
        for mine, theirs in zip(slot.read(layer, 28), source.read(layer, 28), strict=True):
            assert torch.equal(mine[:, :, 5:], theirs[:, :, 5:])
            assert torch.equal(mine[:, :, :5].abs(), torch.arange(15.0).view(1, 1, 5, 3))
    slot.drop()
    assert (slot.length, slot.bytes, slot._slab is None) == (0, 0, False)
    slot.carry_out()
    assert slot._slab is None and not slot._layers


def test_one_step_at_a_time():
    target = take(build(CONFIGS["llama"]))
    slot = target.open()
    target.launch(Step([], [Feed(slot, [1, 2], 1)]))
    with pytest.raises(RuntimeError, match="one step at a time"):
        target.launch(Step([], []))
    assert slot.length == 0
    assert target.collect().shape == (1, target.vocab_size) and slot.length == 2
    with pytest.raises(RuntimeError, match="no step is in flight"):
        target.collect()
    other = target.open()
    other.adopt(slot, [1, 2, 3])
    other.drop()
    assert (other.length, other.bytes, slot.bytes > 0) == (0, 0, True)
