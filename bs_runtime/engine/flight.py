"""The steps that a model has taken and not given back, the oldest first.

A slot is in at most one of them; nobody else feeds, empties, copies from or closes it meanwhile.
Each is collected, and its rounds verified, in a thread of its own, in the order of the launches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bs_runtime.engine.generation import Round
from bs_runtime.engine.step import Model, Result, launch
from bs_runtime.engine.threads import Team
from bs_runtime.model.commands import Contents
from bs_runtime.model.kv import Slot
from bs_runtime.verify.job import Outcome


@dataclass(eq=False)
class Request:
    """A round that somebody waits for. Times are the event loop's, in seconds."""

    round: Round
    asked_s: float
    future: asyncio.Future[Outcome]
    begun_s: float | None = None  # when the first step was launched that it takes part in


Batch = Sequence[tuple[Request, int]]  # and how many of its tokens are fed


@dataclass(eq=False)
class Launched:
    """A step in flight. ``alone``: its only request, where that is tried without others."""

    batch: Batch
    alone: Request | None
    begun_s: float
    slots: set[Contents]
    results: asyncio.Future[list[Result]]


class Flight:
    """Launches steps and collects them. To be used from one event loop.

    ``landed`` is called whenever the model has given one back.
    """

    def __init__(self, model: Model, team: Team, landed: Callable[[], None]) -> None:
        self._model = model
        self._team = team
        self._landed = landed
        self._steps: deque[Launched] = deque()
        # One worker: the model has one set of threads, and two forwards at once only slow each
        # other.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def full(self) -> bool:
        """Whether the model takes no more."""
        return len(self._steps) >= self._model.in_flight

    @property
    def landed(self) -> bool:
        """Whether the oldest can be collected without waiting."""
        return bool(self._steps) and self._steps[0].results.done()

    def launch(self, batch: Batch, alone: Request | None, dropped: Sequence[Slot]) -> None:
        """Launch a step for a batch; ``dropped``: see ``step.launch``."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        work = [(request.round, count) for request, count in batch]
        slots = launch(self._model, work, dropped)
        for slot in slots:
            slot.in_flight = True
        results = loop.run_in_executor(self._worker, self._team.collect, self._model, work)
        results.add_done_callback(lambda _: self._landed())
        self._steps.append(Launched(batch, alone, begun_s, slots, results))

    async def collect(self) -> tuple[Launched, list[Result]]:
        """Wait for the oldest step; what became of each of its rounds."""
        results = await self._steps[0].results
        step = self._steps.popleft()
        for slot in step.slots:
            slot.in_flight = False
        return step, results
