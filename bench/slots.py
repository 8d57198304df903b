"""Slots under pressure: many devices on the memory of few, in virtual time.

    python -m bench.slots

Devices that each write a text of their own, against the real scheduler and its pool of slots. The
target is a table whose step takes a fixed time, and so much for each token that it feeds; a device
comes back some time after each verdict, and drafts 4 tokens, of which each is right by chance. All
are deterministic, and seconds are virtual: an hour takes as long as the scheduler's own work.

Printed for each case, for memory without a limit and for the bytes of ``SLOTS`` texts: tokens/s of
all devices together, the tokens that were fed for each that was written, and what devices wait for
an answer, the first included: on average, and the longest, each of the median device and of the one
that waits most.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.virtual import loop as virtual
from bench.virtual.loop import VirtualLoop
from bs_runtime.engine.generation import Generation
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.slots import Slots
from bs_runtime.engine.threads import Team
from bs_runtime.model.commands import Command
from bs_runtime.model.kv import BLOCK, SPARE, Feed
from bs_runtime.model.step import Serial
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.topk import TopK

DEVICES, SLOTS = 64, 16
SIZE = 8  # of the vocabulary: after token i comes i + 1
DRAFT = 4  # tokens
RIGHT = 0.7  # chance that a drafted token is right
TOKEN_BYTES = 8


@dataclass(frozen=True)
class Case:
    """What things cost, in seconds, and how long texts are, in tokens."""

    name: str
    step_s: float
    token_s: float
    think_s: float  # from a verdict to the device's next draft
    prompt: int
    text: int


@dataclass(frozen=True)
class Run:
    """What one run measured. Waits, in seconds, are one for each device."""

    tokens_per_s: float
    fed: float  # tokens, for each that was written
    mean_waits: list[float]
    longest_waits: list[float]
    evicted: int


CASES = (
    Case("GPU, near", 10e-3, 20e-6, 50e-3, 1000, 150),
    Case("GPU, far", 10e-3, 20e-6, 300e-3, 1000, 150),
    Case("small, replayed", 1e-3, 50e-6, 0.0, 50, 100),
    Case("small, near", 1e-3, 50e-6, 20e-3, 50, 100),
    Case("small, far", 1e-3, 50e-6, 200e-3, 200, 200),
)


class Slot:
    """A text's tokens; its cache is what the next token depends on alone."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._room = 0  # tokens; it grows as a real slot does
        self.in_flight = False

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self.ids)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return TOKEN_BYTES * self._room

    def bytes_for(self, length: int, *, spare: bool = False) -> int:
        """Memory held with so many tokens."""
        return TOKEN_BYTES * self._for(length, spare)

    def reserve(self, length: int, *, spare: bool = True) -> None:
        """Have room for so many tokens."""
        self._room = self._for(length, spare)

    def _for(self, length: int, spare: bool) -> int:
        if length <= self._room:
            return self._room
        least = int(self._room * (1 + SPARE)) if spare else 0
        return -(-max(length, least) // BLOCK) * BLOCK

    def rollback(self, length: int) -> None:
        """Cut back."""
        del self.ids[length:]

    def drop(self) -> None:
        """Empty it."""
        self.ids.clear()
        self._room = 0

    def take_commands(self) -> Sequence[Command]:
        """None: what is to be done is done at once."""
        return ()


class Target(Serial):
    """After token i comes i + 1; a step takes virtual time."""

    def __init__(self, case: Case, loop: VirtualLoop) -> None:
        self._case, self._loop = case, loop
        self._rows = torch.as_tensor(np.where(np.roll(np.eye(SIZE), 1, axis=1) > 0, 30.0, -30.0))
        self.fed = 0

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """Feed them."""
        tokens = sum(len(feed.ids) for feed in feeds)
        self.fed += tokens
        self._loop.spend(self._case.step_s + tokens * self._case.token_s)
        rows: list[int] = []
        for feed in feeds:
            feed.slot.ids.extend(feed.ids)
            rows += feed.ids[len(feed.ids) - feed.rows :]
        return self._rows[rows]


class Peer:
    """A device: its waits, and its text."""

    def __init__(self, number: int, case: Case) -> None:
        self._rng = np.random.default_rng(number)
        self._case = case
        prompt = self._rng.integers(0, SIZE, case.prompt).tolist()
        start = frames.Start(
            1, 0, prompt, Sampling(temperature=0.0), TopK(), "draft", case.text, [], 1
        )
        slot: Any = Slot()
        self.generation = Generation(slot, start, prompt, SIZE, 1 << 20, bytes(32))
        self.waits: list[float] = []

    async def write(self, scheduler: Scheduler) -> None:
        """The whole text."""
        loop, one = asyncio.get_running_loop(), self.generation
        asked = loop.time()
        await scheduler.run(one.prompt())
        self.waits.append(loop.time() - asked)
        while not one.ended:
            drafted = []
            last = one.history[-1]
            for right in self._rng.random(DRAFT) < RIGHT:
                last = (last + (1 if right else 2)) % SIZE
                drafted.append(Drafted(last, 1, 1))
            asked = loop.time()
            await scheduler.run(one.draft(drafted))
            self.waits.append(loop.time() - asked)
            await asyncio.sleep(self._case.think_s)


async def play(case: Case, devices: int, slots: float, kind: type[Slots]) -> Run:
    """All devices, on the bytes of ``slots`` texts, in a virtual loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    target = Target(case, loop)
    pool = kind(int(slots * Slot().bytes_for(case.prompt + case.text)))
    scheduler = Scheduler(target, pool, Team(1, fixed=True))
    peers = [Peer(number, case) for number in range(devices)]
    begun = loop.time()
    await asyncio.gather(*(peer.write(scheduler) for peer in peers))
    written = devices * case.text
    return Run(
        tokens_per_s=written / (loop.time() - begun),
        fed=target.fed / written,
        mean_waits=[statistics.mean(peer.waits) for peer in peers],
        longest_waits=[max(peer.waits) for peer in peers],
        evicted=pool.evicted,
    )


def measure(case: Case, devices: int, slots: float, kind: type[Slots] = Slots) -> Run:
    """One run in a virtual loop of its own."""
    return virtual.run(play(case, devices, slots, kind))


def main() -> None:
    """Print two lines for each case."""
    print(
        f"{DEVICES} devices; memory    tokens/s  fed/token  evicted"
        "  mean wait s: median  most   longest: median  most"
    )
    for case in CASES:
        for slots in (3 * DEVICES, SLOTS):  # enough for all and their growing, and too few
            run = measure(case, DEVICES, slots)
            mean, longest = run.mean_waits, run.longest_waits
            print(
                f"{case.name:18} {slots:4}  {run.tokens_per_s:10.1f}  {run.fed:9.2f}"
                f"  {run.evicted:7}  {statistics.median(mean):19.3f}  {max(mean):4.2f}"
                f"  {statistics.median(longest):16.3f}  {max(longest):4.2f}"
            )


if __name__ == "__main__":
    main()
