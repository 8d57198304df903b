"""A device and a base station over a modelled link, with paced models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from bench.virtual.link import Wire
from bench.virtual.loop import VirtualLoop
from bs_runtime.engine.lookup import LookUp, Nothing
from bs_runtime.engine.prices import Prices
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.kv import Feed
from bs_runtime.model.step import Serial
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from device_runtime.device import Device
from draftlink.link.pacing import pace
from draftlink.link.shaping import Link


@dataclass
class World:
    """Models, and what they cost: seconds of a draft forward and of a target step.

    Models need be the real ones no more than their ``forward`` and ``rollback`` (see ``pair``).
    ``row_s``: what a row of a step takes beyond the first, and ``draft_row`` what a row of a draft
    forward does, of one of a single row. ``slowdown``: of both models while both
    are at work, as where they share cores. ``url``: what the device takes the address to be.
    ``tariff``: see ``Prices``. ``look_up``: whether the base station looks up what may come next;
    off, as the texts of records come back to what they have been through. ``served``: the base
    station has served others, and says what a step takes.
    """

    draft: Any
    target: Any
    tokenizer: Tokenizer
    draft_context: int
    draft_s: float
    target_s: float
    wires: list[Wire] = field(default_factory=list)
    row_s: float = 0.0
    draft_row: float = 0.0
    slowdown: float = 1.0
    url: str = "virtual"
    tariff: float = 0.0
    look_up: bool = False
    served: bool = False

    @contextlib.asynccontextmanager
    async def device(self, link: Link) -> AsyncIterator[Device]:
        """A connected device, in a virtual loop, with a base station of its own."""
        async with self.devices([(link, self.draft)]) as (device,):
            yield device

    @contextlib.asynccontextmanager
    async def devices(self, each: Sequence[tuple[Link, Any]]) -> AsyncIterator[list[Device]]:
        """Connected devices with one base station: of each its link and its draft model."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.slowdown = self.slowdown
        target = _PacedTarget(self.target, self.target_s, self.row_s, loop)
        prices = Prices(self.tariff)
        if self.served:
            prices.stepped(1, self.target_s, rounds=1, tokens=1, ended_s=loop.time())
        scheduler = Scheduler(target, prices=prices)
        conversations = Conversations(target.open, scheduler.close, Sealer())
        serving: list[asyncio.Task[None]] = []

        async def serve(wire: Wire) -> None:
            await Connection(
                target,  # type: ignore[arg-type]
                scheduler,
                conversations,
                wire.receive,
                wire.answer,
                proposers=LookUp if self.look_up else Nothing,
            ).serve()
            wire.hang_up()

        def made(link: Link, draft: Any) -> Device:
            async def connect(_: str) -> Wire:
                wire = Wire(link)
                self.wires.append(wire)
                serving.append(asyncio.create_task(serve(wire)))
                return wire

            draft.rollback(0)
            return Device.from_parts(
                _Paced(draft, self.draft_s, self.draft_s * self.draft_row, loop),
                self.tokenizer,
                self.url,
                tokenizer_hash=self.target.tokenizer_hash,
                vocab_size=self.target.vocab_size,
                context=self.draft_context,
                eos_ids=(),
                connect=connect,
            )

        async with contextlib.AsyncExitStack() as stack:
            yield [await stack.enter_async_context(made(link, draft)) for link, draft in each]
        await asyncio.gather(*serving)


class _Paced:
    """A model whose forward is paced; the rest is its own."""

    def __init__(self, model: Any, seconds: float, row_s: float, loop: VirtualLoop) -> None:
        self._model = model
        self._seconds, self._row_s, self._loop = seconds, row_s, loop
        self.forward = pace(model.forward, seconds, loop.time, loop.spend)

    def branch(self, ids: Sequence[int], parents: Sequence[int]) -> Any:
        """A forward of several rows, paced: see ``DraftModel``."""
        seconds = self._seconds + self._row_s * (len(ids) - 1)
        return pace(self._model.branch, seconds, self._loop.time, self._loop.spend)(ids, parents)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _PacedTarget(Serial):
    """A target whose steps are its forwards, paced; the rest is its own."""

    def __init__(self, target: Any, seconds: float, row_s: float, loop: VirtualLoop) -> None:
        self._target = target
        self._forward = pace(target.forward, seconds, loop.time, loop.spend)
        self._row_s, self._loop = row_s, loop
        self.branches = target.branches

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        rows: Tensor = self._forward(feeds)
        if self._row_s:
            self._loop.spend(self._row_s * (sum(feed.rows for feed in feeds) - 1))
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)
