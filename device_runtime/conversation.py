"""One of a device's conversations: a history, a draft KV cache and a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Unpack

from device_runtime.drafting.drafter import Model
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.temperature import DraftTemperature
from device_runtime.generation import Generation
from device_runtime.request import Models, Options, Request, check
from device_runtime.text import Detokenizer
from device_runtime.transport.client import Client, LinkError
from device_runtime.transport.pool import Pool
from device_runtime.worker import Worker
from device_runtime.writers.host import Writer
from draftlink.protocol.frames import Welcome


class Owner(Protocol):
    """What all conversations of a device have in common."""

    detokenizer: Detokenizer
    draft_context: int
    worker: Worker
    pool: Pool

    def models(self, welcome: Welcome) -> Models:
        """What both models allow a request."""

    def estimates(self, request: Request) -> Estimates:
        """What is known so far that matters to a request."""

    def learned(self, request: Request) -> DraftTemperature | None:
        """The draft's temperature, where the request learns it."""

    def greeted(self, rtt_s: float, step_s: float) -> None:
        """A greeting took one round trip, and told what a step takes, or 0."""

    async def begins(self) -> None:
        """A generation is to begin: wait until the draft model may be used."""

    def ends(self) -> None:
        """A generation has ended."""


class Conversation:
    """Made by ``Device.conversation``; one generation at a time, and any number of them.

    ``history``: the ids of all turns so far. The caller may change it between two generations; what
    is then no longer common to it and to the caches is fed again.
    """

    def __init__(self, owner: Owner, model: Model) -> None:
        self.model = model
        self._history: list[int] = []
        self.held: list[int] = []
        self.generation: Writer | None = None  # the last that has begun
        self.beginning = asyncio.Lock()
        self._owner = owner
        self._client: Client | None = None

    async def open(self) -> Conversation:
        """Connect and greet. Raises LinkError."""
        client, greeted_s = await self._owner.pool.take(self.history)
        self._client = client
        if greeted_s is not None:
            self._owner.greeted(greeted_s, client.welcome.step_us * 1e-6)
        return self

    async def close(self) -> None:
        """Leave the connection to the next conversation, or close it in mid-text.

        The history stays, to be gone on with once it is open again.
        """
        client, self._client = self._client, None
        if client is None:
            return
        if self.writes:
            await client.close()
        else:
            await self._owner.pool.put(client)

    async def __aenter__(self) -> Conversation:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Generate after ``prompt``, as ``Device.generate`` does. Raises ValueError, LinkError."""
        models = self._owner.models(self.client.welcome)
        last = self.generation
        # Behind a generation that was left midway stands what it has returned.
        returned = None if last is None or last.over else last.returned
        request = check(models, self.history[:returned], prompt, **options)
        estimates, learned = self._owner.estimates(request), self._owner.learned(request)
        return Generation(self, request, estimates, learned)

    @property
    def history(self) -> list[int]:
        """The ids of all turns so far."""
        return self._history

    @history.setter
    def history(self, ids: list[int]) -> None:
        self._history[:] = ids  # the connection knows the list

    @property
    def opened(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    @property
    def kv_bytes(self) -> int:
        """Memory of its draft KV cache: but for a few kilobytes, all that a conversation takes."""
        return self.model.bytes

    @property
    def writes(self) -> bool:
        """Whether a generation is under way."""
        return self.generation is not None and not self.generation.over

    # What its generations see.

    @property
    def client(self) -> Client:
        """The open connection. Raises LinkError before ``open``."""
        if self._client is None:
            raise LinkError("the device is not connected; use `async with Device(...)`")
        return self._client

    @property
    def detokenizer(self) -> Detokenizer:
        """The device's."""
        return self._owner.detokenizer

    @property
    def draft_context(self) -> int:
        """Tokens that the draft model can hold."""
        return self._owner.draft_context

    @property
    def worker(self) -> Worker:
        """The thread that drafts for all conversations of the device."""
        return self._owner.worker

    async def take_over(self, generation: Writer) -> None:
        """A generation begins; nothing is left under way of one whose iterator was abandoned."""
        if self.generation is not None:
            await self.generation.leave()
        await self._owner.begins()
        self.generation = generation

    def rest(self) -> None:
        """A generation has ended, and another has not begun."""
        self._owner.ends()
