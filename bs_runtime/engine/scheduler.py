"""Schedule, launch, collect, postprocess: the rounds of all connections, through one model.

``Batcher`` decides who takes part in a step; as many are in flight as the model takes at once, and
are collected in a thread of their own (``Flight``), so that the event loop never waits for the
model; whoever is done is told what its round came to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

from bs_runtime.engine.batching import LEAST_CAP, Batcher
from bs_runtime.engine.flight import Batch, Flight, Launched, Request
from bs_runtime.engine.generation import Round
from bs_runtime.engine.prices import Prices
from bs_runtime.engine.progress import Progress
from bs_runtime.engine.slots import Slots
from bs_runtime.engine.step import Failed, Model, Result
from bs_runtime.engine.suspects import Suspects
from bs_runtime.engine.threads import Team
from bs_runtime.engine.totals import Totals
from bs_runtime.engine.turns import Turns
from bs_runtime.model.kv import Slot
from bs_runtime.operations.limits import Refusal
from bs_runtime.verify.job import Outcome

log = logging.getLogger("draftlink.bs")

PATIENCE = 0.25  # of the time that feeding a history takes: how long the model rests before it does


class Scheduler:
    """Runs the rounds of many connections on one model, in the event loop that it is used from."""

    def __init__(
        self,
        model: Model,
        slots: Slots | None = None,
        team: Team | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.totals = Totals()
        self.turns = Turns()  # of connections, at what needs no model
        self.slots = Slots() if slots is None else slots
        self.progress = Progress()
        self.prices = prices or Prices()
        self._waiting: Batcher[Request] = Batcher(lambda request: request.round.bind())
        self._suspects: Suspects[Request] = Suspects(lambda request: request.round.slot)
        self._team = team or Team()
        self._changed = asyncio.Event()  # somebody has come, or a step has come back
        self._flight = Flight(model, self._team, self._changed.set)
        self._collected = asyncio.Event()
        self._ended_s = 0.0  # when the last step was collected
        self._task: asyncio.Task[None] | None = None
        self._rests_s: float | None = None  # until when nobody is served before its turn

    @property
    def threads(self) -> int:
        """Those that the next step runs with."""
        return self._team.setting.threads

    def run(self, round: Round) -> asyncio.Future[Outcome]:
        """Run a round to its end. The future has what the model raises for it.

        Where it is cancelled the round is left between two steps: see ``unused``.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        request = Request(round, now, loop.create_future())
        if (fault := self.slots.unfit(round)) is not None:
            request.future.set_exception(Refusal("request", fault))
            return request.future
        self.progress.waits(now)
        if self._suspects.guards(request):
            self._suspects.add(request)
        else:
            self._waiting.add(request, round.left, now, session=round.slot)
        self._wake()
        return request.future

    def _wake(self) -> None:
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._steps())

    async def unused(self, slot: Slot) -> None:
        """Until no step in flight uses a slot."""
        while slot.in_flight:
            self._collected.clear()
            await self._collected.wait()

    def ahead(self, round: Round) -> int:
        """Requests that are due before a round's."""
        return self._waiting.before(lambda request: request.round is round)

    def sits_out(self, slot: Slot) -> None:
        """A conversation waits for something else: no step is held for its next round."""
        self._waiting.sits_out(slot)

    def close(self, slot: Slot) -> None:
        """Give a slot back once no step uses it; its rounds must have ended or been cancelled."""
        self._waiting.forget(slot)
        self._suspects.forget(slot)
        self.slots.forget(slot)
        if self.slots.dropped:
            self._wake()

    async def _wait(self, seconds: float | None = None) -> None:
        """Until somebody comes, a step comes back, or ``seconds`` have passed."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _hold(self) -> None:
        """Wait for company as long as the batcher says, or until a step has come back."""
        loop = asyncio.get_running_loop()
        while (seconds := self._waiting.due(now := loop.time()) - now) > 0:
            if self._flight.landed:
                return
            await self._wait(seconds)

    async def _rest(self) -> None:
        """Wait for somebody who can be served, where those who wait have no room.

        No longer than a part of the time that feeding the first of them takes: then another slot is
        emptied for it, before its turn is over. So little is lost by resting, and less by emptying
        a slot whose device was about to come back.
        """
        now = asyncio.get_running_loop().time()
        if self._rests_s is None:
            token_s = self.totals.busy_s / max(1, self.totals.tokens)
            self._rests_s = now + PATIENCE * self.slots.queued * token_s
        await self._wait(self._rests_s - now)

    def _admit(self, request: Request) -> bool:
        """Whether a request can take part in the next step."""
        request.round.bind()
        return self.slots.admit(request.round)

    def _admit_in_turn(self, request: Request) -> bool:
        """The same, without emptying a slot whose turn is not over."""
        return self.slots.admit(request.round, patient=True)

    def _admit_first(self, request: Request) -> bool:
        """The same, but for one: the first that there can be room for."""
        return self.slots.admit(request.round, patient=self.slots.busy)

    def _unwanted(self, request: Request) -> bool:
        """Whether nobody waits for a request any more; its slot is then free for others."""
        if request.future.cancelled():
            self.slots.release(request.round.slot)
        return request.future.cancelled()

    async def _steps(self) -> None:
        while self._requests + len(self._flight) + len(self.slots.dropped):
            # The answers to the last step go out first: what they set off can join the next.
            await asyncio.sleep(0)
            while not self._flight.full and await self._launch():
                pass
            if self._flight:
                await self._collect()
            elif self._requests:
                await self._rest()
        self.progress.rests()

    @property
    def _requests(self) -> int:
        """Those that are in no step."""
        return len(self._waiting) + len(self._suspects)

    async def _launch(self) -> bool:
        """Launch the next step once it is due, if anybody can take part in it."""
        batch: Batch = []
        alone = None
        if self._requests:
            if not self._suspects.is_next(others=len(self._waiting) > 0):
                await self._hold()
                if self._flight.landed:
                    return False
            batch, alone = self._schedule(asyncio.get_running_loop().time())
            if not batch:
                return False
            self._rests_s = None
        dropped = self.slots.take_dropped()
        if batch or dropped:
            self._flight.launch(batch, alone, dropped)
        return bool(batch or dropped)

    async def _collect(self) -> None:
        """Wait for the oldest step; or for somebody who may take part in another beside it."""
        if not self._flight.full and not self._flight.landed:
            await self._wait()
            if not self._flight.landed:
                return
        step, results = await self._flight.collect()
        self._collected.set()
        ended = asyncio.get_running_loop().time()
        if step.batch:
            self._postprocess(step, results, max(step.begun_s, self._ended_s), ended)
        self._ended_s = ended
        self.slots.collected()

    def _schedule(self, now: float) -> tuple[Batch, Request | None]:
        """Who takes part in the next step, and with how many tokens; and who is alone, if it is."""
        self._waiting.drop(self._unwanted)
        self._suspects.drop(self._unwanted)
        self.slots.next_step()
        others = len(self._waiting) > 0
        if (alone := self._suspects.next(others=others)) is not None:
            if self._admit(alone):
                limit = LEAST_CAP if others else self._waiting.cap
                return [(alone, min(alone.round.left, limit))], alone
            self._suspects.add(alone)
        batch = self._waiting.take(self._admit_in_turn)
        if not batch and self._rests_s is not None and self._rests_s <= now:
            batch = self._waiting.take(self._admit_first)
        if not batch and (alone := self._suspects.next(others=False)) is not None:
            # They may hold what the others wait for.
            if self._admit(alone):
                return [(alone, min(alone.round.left, LEAST_CAP))], alone
            self._suspects.add(alone)
        return batch, None

    def _postprocess(
        self, step: Launched, results: Sequence[Result], begun: float, ended: float
    ) -> None:
        """Whoever is done is told what it came to; whoever is not has its place in another step."""
        batch, alone = step.batch, step.alone
        failed = [r for (r, _), result in zip(batch, results, strict=True) if _failed(result)]
        fed = [request for request, count in batch if count and request not in failed]
        self.totals.add(batch, ended - begun)
        self.prices.ran(step, results, ended - begun, ended)
        if failed:
            self._blame(failed, alone, next(filter(_failed, results)), ended)
        else:
            self._suspects.ran(fed, alone=alone)
            self.progress.stepped(ended)
            if alone is None:
                self._waiting.ran(sum(count for _, count in batch), ended - begun)
        for (request, count), result in zip(batch, results, strict=True):
            request.begun_s = step.begun_s if request.begun_s is None else request.begun_s
            if isinstance(result, Failed):
                continue
            if result is not None or request.future.cancelled():
                self._answer(request, result, ended)
            elif request is alone:
                self._suspects.add(request)
            else:
                self._waiting.add(request, request.round.left, ended, fed=count)

    def _blame(
        self, failed: list[Request], alone: Request | None, result: Failed, now: float
    ) -> None:
        """A forward failed: find out whose fault it was."""
        refused, cleared = self._suspects.failed(failed, alone=alone)
        log.warning(
            "a step of %d rounds failed (%s): %s",
            len(failed),
            type(result.error).__name__,
            "each is fed alone" if refused is None else "it is refused",
        )
        for request in cleared:
            self._waiting.add(request, request.round.left, now)
        if refused is not None:
            self._answer(refused, result.error, now)

    def _answer(self, request: Request, result: Outcome | Exception | None, now: float) -> None:
        """A request has come to its end, or nobody waits for it any more."""
        slot = request.round.slot
        self.slots.release(slot)
        self._suspects.answered(request)
        if isinstance(result, Exception):
            self.progress.failed(now)
            self._suspects.forget(slot)
        elif result is not None and request.round.purpose is not None:
            self.progress.judged()
        if request.future.cancelled() or result is None:
            return
        if isinstance(result, Exception) or result.ended:
            self._waiting.forget(slot)
        else:
            self._waiting.answered(slot, now)
        if isinstance(result, Exception):
            request.future.set_exception(result)
            return
        begun_s = now if request.begun_s is None else request.begun_s
        queue_s, verify_s = begun_s - request.asked_s, now - begun_s
        queue_us, verify_us = int(queue_s * 1e6), int(verify_s * 1e6)
        request.future.set_result(replace(result, queue_us=queue_us, verify_us=verify_us))


def _failed(result: Result) -> TypeGuard[Failed]:
    return isinstance(result, Failed)
