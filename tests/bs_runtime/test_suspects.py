"""One device's rounds make forwards fail, or rows that are no numbers: it stops nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from bench.virtual import loop
from bs_runtime.engine.generation import Generation, ModelFault
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.suspects import GUARDED, SPARED, Suspects
from bs_runtime.model.kv import Feed
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.topk import TopK
from tests.fakes import FakeTarget

SIZE, POISON = 12, 11
WRITTEN, GAMMA = 240, 3
# After token i of the others comes i + 1, and never the poison.
TABLE = np.where(np.roll(np.eye(SIZE), 1, axis=1) > 0, 30.0, -30.0)
TABLE[POISON - 1] = TABLE[SIZE - 1] = np.where(np.arange(SIZE) == 0, 30.0, -30.0)


class Poisonable(FakeTarget):
    """Its forwards fail as ``fails`` says; ``fed`` counts tokens, ``forwards`` its steps."""

    def __init__(self, fails: Callable[[Sequence[Feed]], bool] = lambda _: False) -> None:
        super().__init__(TABLE)
        self.fails = fails
        self.forwards = self.fed = 0
        self.empties = False

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        self.forwards += 1
        self.fed += sum(len(feed.ids) for feed in feeds)
        if self.fails(feeds):
            for feed in feeds if self.empties else ():
                feed.slot.close()
            raise RuntimeError("the kernel failed")
        return super().forward(feeds)


def poisoned(feeds: Sequence[Feed]) -> bool:
    return any(POISON in feed.ids for feed in feeds)


def begin(target: FakeTarget, prompt: Sequence[int]) -> Generation:
    start = frames.Start(
        1, 0, list(prompt), Sampling(temperature=0.0), TopK(), "draft", 10_000, [], 1
    )
    return Generation(target.open(), start, list(prompt), SIZE, 1 << 20, bytes(32))


def tokens(ids: Sequence[int]) -> list[Drafted]:
    return [Drafted(i, 1, 1) for i in ids]


async def write(scheduler: Scheduler, target: FakeTarget, number: int) -> list[int]:
    """A good device: what it writes, with drafts that mostly stand."""
    one = begin(target, [number % 10, (number + 1) % 10])
    await scheduler.run(one.prompt())
    while len(one.history) < WRITTEN:
        last = one.history[-1]
        drafted = [(last + 1 + j) % POISON for j in range(GAMMA)]
        if len(one.history) % 5 == 0:
            drafted[-1] = 7
        await scheduler.run(one.draft(tokens(drafted)))
    return one.history


@dataclass
class Attacker:
    """A device that comes again and again, until it is told to stop. ``when`` it shows itself."""

    scheduler: Scheduler
    target: Poisonable
    when: str
    steps: list[int] = field(default_factory=list)  # from what is poisoned to its refusal
    errors: set[type] = field(default_factory=set)

    async def run(self) -> None:
        while True:
            one = begin(self.target, [POISON] if self.when == "prompt" else [1, 2])
            await asyncio.sleep(0)  # as the greeting of a new connection
            try:
                await self.scheduler.run(one.prompt())
                for _ in range(3 if self.when == "later" else 0):
                    await self.scheduler.run(one.next())
                before = self.scheduler.totals.steps
                await self.scheduler.run(
                    one.draft(tokens([(one.history[-1] + 1) % POISON, POISON]))
                )
                await self.scheduler.run(one.next())
            except (RuntimeError, ModelFault) as error:
                if self.when != "prompt":
                    self.steps.append(self.scheduler.totals.steps - before)
                self.errors.add(type(error))
                self.scheduler.close(one.slot)


def race(target: Poisonable, *whens: str) -> tuple[list[list[int]], list[Attacker]]:
    """Seven good devices at once, with an attacker for each of ``whens``, or one good one more."""

    async def run() -> tuple[list[list[int]], list[Attacker]]:
        scheduler = Scheduler(target)
        attackers = [Attacker(scheduler, target, when) for when in whens]
        tasks = [asyncio.create_task(one.run()) for one in attackers]
        if not whens:
            tasks.append(asyncio.create_task(write(scheduler, target, 7)))  # type: ignore[arg-type]
        found = await asyncio.gather(*(write(scheduler, target, i) for i in range(7)))
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError | list) for one in done), done
        return found, attackers

    # In virtual time: how long a step is held for company must not depend on this machine.
    return loop.run(asyncio.wait_for(run(), 60))


def alone() -> list[list[int]]:
    async def run() -> list[list[int]]:
        target = Poisonable()
        return [await write(Scheduler(target), target, i) for i in range(7)]

    return asyncio.run(run())


@pytest.mark.parametrize("whens", [["prompt"], ["draft"], ["later"], ["draft", "prompt", "later"]])
def test_a_device_that_makes_forwards_fail_again_and_again_stops_nobody(whens):
    plain = Poisonable()
    race(plain)
    target = Poisonable(poisoned)
    found, attackers = race(target, *whens)
    assert found == alone()
    # Steps cost a GPU alike, tokens a CPU.
    assert target.forwards <= plain.forwards / 0.8
    assert target.fed <= plain.fed / 0.8
    for one in attackers:
        assert one.errors == {RuntimeError}
        assert all(steps <= 3 * SPARED for steps in one.steps)
    assert any(one.steps for one in attackers) or whens == ["prompt"]


def test_a_device_whose_rows_are_no_numbers_costs_no_forward():
    plain = Poisonable()
    race(plain)
    target = Poisonable()
    target.table = np.where(np.arange(SIZE)[:, None] == POISON, np.nan, TABLE)
    found, (attacker,) = race(target, "prompt")
    assert found == alone()
    assert attacker.errors == {ModelFault}
    assert target.forwards <= plain.forwards / 0.8
    assert target.fed <= plain.fed / 0.8
    assert max(target.batches) == 8  # with the others, to the end


def test_a_failure_that_is_nobodys_fault_costs_nobody_the_text():
    """Memory lacks once, and all slots of the step are emptied: each is fed again, alone."""
    for empties in (False, True):
        target = Poisonable(lambda _: target.forwards == 20)  # noqa: B023
        target.empties = empties
        found, _ = race(target)
        assert found == alone()
        assert 20 + 8 < target.forwards < 400


def test_each_is_fed_alone_between_the_others_steps_and_the_newest_first():
    suspects: Suspects[str] = Suspects(lambda request: request[0])
    suspects.ran(["a1", "b1", "c1"], alone=None)
    assert not suspects.guards("d1")  # nothing has failed yet
    assert suspects.failed(["a2", "b2", "c2", "d1"], alone=None) == (None, [])
    assert suspects.guards("e1") and not suspects.guards("a3")
    order = []
    while len(suspects):
        request = suspects.next(others=True)
        if request is None:
            suspects.ran(["x1"], alone=None)
            order.append("others")
            continue
        order.append(request)
        suspects.ran([request], alone=request)
        suspects.answered(request)
    assert order == ["d1", "others", "c2", "others", "b2", "others", "a2"]
    for _ in range(GUARDED):
        suspects.ran(["x2"], alone=None)
    assert not suspects.guards("e1")


def test_who_fails_alone_is_to_blame_and_the_rest_of_its_step_is_cleared():
    suspects: Suspects[str] = Suspects(lambda request: request[0])
    suspects.failed(["a1", "b1", "c1"], alone=None)
    first = suspects.next(others=False)
    assert first is not None
    refused, cleared = suspects.failed([first], alone=first)
    assert refused == first and {first, *cleared} == {"a1", "b1", "c1"}
    assert len(suspects) == 0
    # One that fails alone without having been suspected is tried once more.
    suspects.add("n1")
    assert suspects.next(others=False) == "n1"
    assert suspects.failed(["n1"], alone="n1") == (None, [])
    assert suspects.next(others=False) == "n1"
    assert suspects.failed(["n1"], alone="n1") == ("n1", [])


def test_newcomers_take_few_of_the_others_steps():
    suspects: Suspects[str] = Suspects(lambda request: request[0])
    suspects.failed(["z1"], alone=None)
    suspects.drop(lambda request: request == "z1")
    turns = []
    for number in range(5):
        suspects.add(f"{number}1")
    for _ in range(4 * (SPARED + 1)):
        request = suspects.next(others=True)
        suspects.ran([request or "x"], alone=request)
        turns.append(request is not None)
    assert sum(turns) in (3, 4)
    assert suspects.next(others=False) is not None  # where nobody else waits, at once
