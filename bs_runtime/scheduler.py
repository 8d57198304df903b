"""Schedule, run, postprocess: the rounds of all connections, through one model.

``Batcher`` decides who takes part in a step; the step runs in a thread of its own, so that the
event loop never waits for the model; whoever is done gets its judgement.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bs_runtime import verify
from bs_runtime.batching import Batcher
from bs_runtime.generation import Judgement, Round
from bs_runtime.kv import Feed, Slot
from bs_runtime.slots import Slots
from bs_runtime.turns import Turns

log = logging.getLogger("draftlink.bs")


class Model(Protocol):
    """What a scheduler needs of a target."""

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Feed many slots at once: see ``Engine.forward``."""


@dataclass(frozen=True)
class Served:
    """A judgement, and how long it took."""

    judgement: Judgement
    queue_us: int  # until the first step that the round took part in
    verify_us: int  # from then on


@dataclass
class Totals:
    """What has been done since the start; the mean batch size is rounds / steps."""

    steps: int = 0
    rounds: int = 0  # that took part in a step, once for each step
    tokens: int = 0
    busy_s: float = 0.0


@dataclass(eq=False)
class _Request:
    round: Round
    asked_s: float
    future: asyncio.Future[Served]
    begun_s: float | None = None
    result: Judgement | Exception | None = None


class Scheduler:
    """Runs the rounds of many connections on one model, in the event loop that it is used from."""

    def __init__(self, model: Model, slots: Slots | None = None) -> None:
        self.totals = Totals()
        self.turns = Turns()  # of connections, at what needs no model
        self.slots = Slots() if slots is None else slots
        self._model = model
        self._waiting: Batcher[_Request] = Batcher()
        # One worker: the model has one set of threads, and two forwards at once only slow each
        # other.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._running: list[_Request] = []  # in the step that is under way
        self._stepped = asyncio.Event()  # it is not under way any more

    def run(self, round: Round) -> asyncio.Future[Served]:
        """Run a round to its end. The future has what the model raises for it.

        Where it is cancelled the round is left between two steps: see ``unused``.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        request = _Request(round, now, loop.create_future())
        self._waiting.add(request, round.left, now, session=round.slot)
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._steps())
        return request.future

    async def unused(self, slot: Slot) -> None:
        """Until no step uses a slot."""
        while any(request.round.slot is slot for request in self._running):
            await self._stepped.wait()

    def ahead(self, round: Round) -> int:
        """Requests that are due before a round's."""
        return self._waiting.before(lambda request: request.round is round)

    def close(self, slot: Slot) -> None:
        """Give a slot back once no step uses it; its rounds must have ended or been cancelled."""
        self._waiting.forget(slot)
        self.slots.forget(slot)
        self._worker.submit(slot.close)

    async def _hold(self) -> None:
        """Wait for company as long as the batcher says."""
        loop = asyncio.get_running_loop()
        while (seconds := self._waiting.due(now := loop.time()) - now) > 0:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()

    def _admit(self, request: _Request) -> bool:
        """Whether a request can take part in the next step."""
        return self.slots.admit(request.round)

    def _unwanted(self, request: _Request) -> bool:
        """Whether nobody waits for a request any more; its slot is then free for others."""
        if request.future.cancelled():
            self.slots.release(request.round.slot)
        return request.future.cancelled()

    async def _steps(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._waiting):
            # The answers to the last step go out first: what they set off can join this one.
            await asyncio.sleep(0)
            await self._hold()
            self._waiting.drop(self._unwanted)
            self.slots.next_step()
            batch = self._waiting.take(self._admit)
            if not batch:
                continue
            begun = loop.time()
            self._running = [request for request, _ in batch]
            self._stepped.clear()
            await loop.run_in_executor(self._worker, self._step, batch)
            self._running = []
            self._stepped.set()
            ended = loop.time()
            self._count(batch, ended - begun)
            for request, fed in batch:
                request.begun_s = begun if request.begun_s is None else request.begun_s
                if request.result is not None or request.future.cancelled():
                    self.slots.release(request.round.slot)
                if request.future.cancelled():
                    continue
                if isinstance(request.result, Exception):
                    request.future.set_exception(request.result)
                elif request.result is None:
                    self._waiting.add(request, request.round.left, ended, fed=fed)
                else:
                    slot = request.round.slot
                    if request.result.ended:
                        self._waiting.forget(slot)
                    else:
                        self._waiting.answered(slot, ended)
                    queue_s, verify_s = request.begun_s - request.asked_s, ended - request.begun_s
                    served = Served(request.result, int(queue_s * 1e6), int(verify_s * 1e6))
                    request.future.set_result(served)

    def _count(self, batch: Sequence[tuple[_Request, int]], seconds: float) -> None:
        tokens = sum(count for _, count in batch)
        self._waiting.ran(tokens, seconds)
        self.totals.steps += 1
        self.totals.rounds += len(batch)
        self.totals.tokens += tokens
        self.totals.busy_s += seconds

    def _step(self, batch: Sequence[tuple[_Request, int]]) -> None:
        """In the worker: one step for all, and if that fails one for each, to find out whose."""
        try:
            judgements = step(self._model, [(r.round, n) for r, n in batch])
        except Exception as error:
            for request, count in batch:
                request.round.restart()
                if len(batch) == 1:
                    request.result = error
                else:
                    self._step([(request, max(count, 1))])
            if len(batch) > 1:
                log.warning("a step of %d rounds failed, and was run for each alone", len(batch))
            return
        for (request, _), judgement in zip(batch, judgements, strict=True):
            request.result = judgement


def step(model: Model, work: Sequence[tuple[Round, int]]) -> list[Judgement | Exception | None]:
    """Feed each round as many tokens as stand beside it, and judge, at once, those that are done.

    The judgements, in order; None where a round has more to feed. An error where only what stands
    of that round could not be written: the others' is, and must not be a second time.
    """
    for round, _ in work:
        round.copy()
    fed = [round for round, count in work if count]
    if fed:
        feeds = [round.feed(count) for round, count in work if count]
        rows = torch.as_tensor(model.forward(feeds))
        ends = itertools.accumulate(feed.rows for feed in feeds)
        for round, feed, end in zip(fed, feeds, ends, strict=True):
            round.take(rows[end - feed.rows : end])
    done = [round for round, _ in work if not round.left]
    rows_of = {id(round): round.rows() for round in done}
    jobs = {id(round): job for round in done if (job := round.job())}
    outcomes: dict[int, verify.Outcome] = {}
    if jobs:
        judged = verify.judge([rows_of[key] for key in jobs], list(jobs.values()))
        outcomes = dict(zip(jobs, judged, strict=True))
    results: list[Judgement | Exception | None] = []
    for round, _ in work:
        try:
            seen = rows_of.get(id(round))
            results.append(None if seen is None else round.settle(seen, outcomes.get(id(round))))
        except Exception as error:
            results.append(error)
    return results
