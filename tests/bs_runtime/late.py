"""A target without weights that takes several steps at once, answers late, and fails at random.

What is cached is real in so far as rows are made of it alone: a slot's counts are the real ones,
and its contents, ids in the place of keys and values, change by a step's commands and feeds only.
Each row depends on all that stands before it, so a text shows what was cached wrongly. ``faults``
says what else nobody may do.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.virtual.loop import VirtualLoop
from bs_runtime.model.kv import Slot
from bs_runtime.model.step import Step
from tests.fake_models import random_logits

SIZE, POISON = 24, 23  # ids; whoever feeds the last one makes each step fail
TOKEN_BYTES = 8
LATE_S = 0.030  # a step takes at most this and half as much; another comes behind it sooner
APART_S = 0.010


def mixed(ids: Sequence[int]) -> int:
    """A number that depends on every id, and on their order."""
    found = 7
    for i in ids:
        found = (31 * found + i + 1) % 1_000_003
    return found


class Shelf(Slot):
    """A slot whose keys and values are ids."""

    def __init__(self, target: Late) -> None:
        super().__init__(target)
        self.held: list[int] = []

    def move(self, indices: Sequence[int], to: int) -> None:
        self.held[to : to + len(indices)] = [self.held[i] for i in indices]

    def copy(self, source: Shelf, begin: int, end: int) -> None:
        assert len(self.held) >= begin and len(source.held) >= end
        self.held[begin:end] = source.held[begin:end]

    def free(self) -> None:
        super().free()
        self.held.clear()


@dataclass
class Flown:
    """A step that was launched, and what slots counted then that it changes.

    ``error``: what it fails for. ``collected``: somebody waits for it, until it is ready.
    """

    step: Step
    counted: dict[Shelf, list[int]]
    ready_s: float
    rows: list[torch.Tensor] | None = None  # once it was run
    error: Exception | None = None
    empties: bool = False
    collected: bool = False


@dataclass
class Late:
    """``depth`` steps at once. ``fails``: the chance of each that it does, for nobody's fault.

    A slot that is fed alone would be to blame, so that fails for ``POISON`` only.
    """

    depth: int
    seed: int = 0
    fails: float = 0.0
    context: int = 1 << 20
    faults: list[str] = field(default_factory=list)
    most: int = 0  # in flight at once
    failed: int = 0
    fed: int = 0
    copied: int = 0  # commands
    dropped: int = 0

    def __post_init__(self) -> None:
        self.vocab_size, self.token_bytes = SIZE, TOKEN_BYTES
        self.layout: Any = None
        self.model: Any = None
        self.table = torch.as_tensor(random_logits(5, SIZE))
        self.table[:, POISON] = -100.0  # it is never written
        self.slots: list[Shelf] = []
        self._flying: deque[Flown] = deque()
        self._rng = random.Random(self.seed)
        self._ready_s = 0.0

    @property
    def in_flight(self) -> int:
        return self.depth

    def open(self) -> Shelf:
        self.slots.append(Shelf(self))
        return self.slots[-1]

    def forward(self, feeds: object) -> torch.Tensor:
        raise AssertionError("it is fed by steps")

    def flying(self) -> list[Flown]:
        """What is in flight now."""
        now = asyncio.get_running_loop().time()
        while self._flying and self._flying[0].collected and self._flying[0].ready_s < now + 1e-9:
            self._flying.popleft()
        return list(self._flying)

    def launch(self, step: Step) -> None:
        flying = self.flying()
        if len(flying) >= self.depth:
            self.faults.append("more steps than it takes")
        for slot in step.slots:
            if any(slot in one.step.slots for one in flying):
                self.faults.append("a slot is in two steps")
        now = asyncio.get_running_loop().time()
        took = self._rng.uniform(0.5, 1.5) * LATE_S
        self._ready_s = max(now + took, self._ready_s + APART_S)
        # A source's device may forget a part of its text meanwhile: it is there to be copied still.
        changed = {feed.slot for feed in step.feeds} | {one.slot for one in step.commands}
        counted = {slot: [*slot.ids, *slot.block] for slot in changed}
        self._flying.append(Flown(step, counted, self._ready_s))
        self.most = max(self.most, len(self._flying))
        # It goes ahead when it likes, in order.
        for one in list(self._flying)[: self._rng.randint(0, len(self._flying))]:
            self._run(one)

    def collect(self) -> torch.Tensor:
        one = next(one for one in self._flying if not one.collected)
        one.collected = True
        self._run(one)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)  # in which workers have no threads
        loop.spend(max(0.0, one.ready_s - loop.time()))
        self._look(one)
        if one.error is not None:
            for feed in one.step.feeds if one.empties else ():
                feed.slot.close()
            raise one.error
        for feed in one.step.feeds:
            feed.slot.advance(feed.ids, feed.parents)
            feed.slot._bytes = TOKEN_BYTES * feed.slot.capacity
        assert one.rows is not None
        return torch.cat(one.rows) if one.rows else torch.empty(0, SIZE)

    def _run(self, one: Flown) -> None:
        if one.rows is not None:
            return
        self._look(one)
        one.rows = []
        for command in one.step.commands:
            self.copied += type(command).__name__ == "Copy"
            self.dropped += type(command).__name__ == "Drop"
            command.apply()
        if self._fails(one.step):
            self.failed += 1
            one.error, one.empties = RuntimeError("it failed"), self._rng.random() < 0.5
            return
        for feed in one.step.feeds:
            slot, begin = feed.slot, feed.slot.length
            if slot.held[:begin] != [*slot.ids, *slot.block]:
                self.faults.append("a slot does not hold what it counts")
            slot.held[begin:] = feed.ids
            self.fed += len(feed.ids)
            ends = range(len(slot.held) - feed.rows, len(slot.held))
            rows = [self.table[mixed(slot.held[: end + 1]) % SIZE] for end in ends]
            one.rows += [torch.stack(rows)] if rows else []

    def _look(self, one: Flown) -> None:
        """Whether its slots are as they were when it was launched."""
        for slot, counted in one.counted.items():
            if [*slot.ids, *slot.block] != counted:
                self.faults.append("a slot was changed in flight")

    def _fails(self, step: Step) -> bool:
        if any(POISON in feed.ids for feed in step.feeds):
            return True
        return len(step.feeds) > 1 and self._rng.random() < self.fails
