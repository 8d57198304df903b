"""What the rooms of one generation share: history, link, one worker for the draft, and accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from device_runtime.drafting.alone import Alone
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.drafter import Drafter, Model, Proposal
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.temperature import DraftTemperature
from device_runtime.result import Kind, Tally
from device_runtime.text import Detokenizer
from device_runtime.transport.client import Client
from draftlink.protocol import frames
from draftlink.protocol.session import Session

T = TypeVar("T")

LEAST_S = 1e-6  # that a time ahead is waited for
APART = 1 << 62  # beside a position: numbers of their own, for tokens that are shown and never sent


class Host(Protocol):
    """The device, as one of its generations sees it. ``draft_context``: tokens, as history's."""

    model: Model
    detokenizer: Detokenizer
    history: list[int]
    draft_context: int
    executor: Executor
    generation: Writer | None

    @property
    def client(self) -> Client:
        """The open connection. Raises LinkError where there is none."""

    async def take_over(self, generation: Writer) -> None:
        """A generation begins; nothing is left under way of the one before."""

    def rest(self) -> None:
        """A generation has ended, and another has not begun."""


class Writer(Protocol):
    """A generation, as its device sees it."""

    @property
    def stands(self) -> int:
        """Tokens of the history up to the last one that it has returned."""

    @property
    def over(self) -> bool:
        """Whether it has ended, and the history is what stands."""

    async def leave(self) -> None:
        """Wait for what is under way, and end it."""


class Writing:
    """A generation under way. ``owed``: the token that the next draft sends first (``split``).

    ``alone``: how the draft goes on while nothing is heard, where it may.
    """

    def __init__(
        self,
        device: Host,
        start: frames.Start,
        drafter: Drafter,
        controller: Controller,
        learned: DraftTemperature | None,
        alone: Alone | None,
    ) -> None:
        self.device = device
        self.start = start
        self.drafter = drafter
        self.controller = controller
        self.learned = learned
        self.alone = alone
        self.heard_s = 0.0  # when the last frame came
        self.tally = Tally(0.0)
        self.owed: int | None = None
        self.job: asyncio.Future[Any] | None = None
        self._cut: int | None = None  # tokens of what the job feeds that stand
        self.over = False  # nothing of it may be under way any more
        self._incoming: asyncio.Task[frames.Frame] | None = None

    @property
    def history(self) -> list[int]:
        """The tokens that stand, prompt and text."""
        return self.device.history

    @property
    def left(self) -> int:
        """Tokens that may still be written."""
        return self.start.begins + self.start.max_tokens - len(self.history)

    @property
    def room(self) -> int:
        """Tokens behind the history that the draft can be fed, and that may still be written.

        At most 0 once the draft's context is full.
        """
        return min(self.left, self.device.draft_context - len(self.history))

    @property
    def stale(self) -> bool:
        """Whether the job feeds, or drafts, what does not stand."""
        return self._cut is not None

    @property
    def agreed(self) -> bool:
        """Whether the session is where the history is, and frames can be sent.

        Not while a frame waits to be read, or a new connection is looked for.
        """
        return not self._unread and self.device.client.connected.is_set()

    @property
    def _unread(self) -> bool:
        """Whether a frame has come that nobody has looked at."""
        return self._incoming is not None and self._incoming.done()

    @property
    def session(self) -> Session:
        """This end's view of the protocol."""
        return self.device.client.session

    @property
    def estimates(self) -> Estimates:
        """Running estimates; they outlive the generation."""
        return self.controller.estimates

    def now(self) -> float:
        """The loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    def begin(self, function: Callable[..., Any], *args: Any) -> None:
        """Have the worker do something; ``job`` until its result is taken."""
        self._check()
        assert self.job is None
        loop = asyncio.get_running_loop()
        self.job = loop.run_in_executor(self.device.executor, function, *args)

    async def done(self) -> Any:
        """The result of the job, once it is there."""
        assert self.job is not None
        job = self.job
        await asyncio.wait([job])  # who waits may be cancelled, and leaves the job to ``close``
        self._ended()
        return job.result()

    def drop(self) -> None:
        """Nothing that was fed behind the history stands; a job under way is left to its end."""
        self._cut = len(self.history)
        if self.job is None:
            self._ended()

    def _ended(self) -> None:
        """No job is under way: the cache can be cut back to what stands of it."""
        self.job = None
        if self._cut is not None:
            self.drafter.settle(self._cut)
            self._cut = None

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Have the worker do something, and wait for it."""
        self.begin(function, *args)
        result: T = await self.done()
        return result

    async def send(self, frame: frames.Frame, payload_bits: int | None = None) -> None:
        """Send a frame. Raises LinkError."""
        self._check()
        await self.device.client.send(frame, payload_bits)

    def incoming(self) -> asyncio.Task[frames.Frame]:
        """The next frame, on its way; it may be waited for beside other things."""
        self._check()
        if self._incoming is None:
            self._incoming = asyncio.create_task(self.device.client.receive())
        return self._incoming

    async def receive(self) -> frames.Frame:
        """The next frame. Raises LinkError."""
        task = self.incoming()
        try:
            frame = await task
        finally:
            self._incoming = None
        self.heard_s = self.now()
        return frame

    async def event(self, *until_s: float | None) -> None:
        """Until the job is done, a frame or a connection is there, or until a time."""
        waited: set[asyncio.Future[Any]] = {self.incoming()}
        if self.job is not None:
            waited.add(self.job)
        back = None
        if not self.device.client.connected.is_set():
            back = asyncio.create_task(self.device.client.connected.wait())
            waited.add(back)
        begun = self.now()
        times = [at_s for at_s in until_s if at_s is not None]
        timeout_s = min(times) - begun if times else None
        if timeout_s is not None:  # a timer may go off a little before its time, and then in vain
            timeout_s = max(timeout_s, LEAST_S) if timeout_s > 0.0 else 0.0
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if back is not None:
            back.cancel()
        if self.job is None:
            self.tally.wait_s += self.now() - begun

    def alone_s(self, since_s: float | None) -> float | None:
        """When the draft goes on alone, if nothing is heard that is due since ``since_s``."""
        if self.alone is None or since_s is None or self._unread:
            return None
        return max(self.heard_s, since_s) + self.alone.after_s

    async def go_on(self, ahead: Sequence[Proposal], begins: int) -> list[tuple[int, Kind]]:
        """Provisional tokens: those of ``ahead``, which are in flight, and then one more a call.

        ``begins``: where the epoch began. While something shown is of an earlier one, what is in
        flight does not follow it, and what follows it is for show alone.
        """
        alone, fresh = self.alone, list[Proposal]()
        assert alone is not None
        shown, outdated = alone.tokens, alone.outdated
        room = self.room - len(shown)
        ended = shown[-1:] and shown[-1] in self.start.eos_ids
        if len(ahead) > len(shown) and not outdated:
            fresh = list(ahead[len(shown) :])
        elif self.job is None and room > 0 and not ended:
            begun = self.now()
            if outdated:  # the cache may hold what is in flight; and will have to, once more
                self.drafter.settle(len(self.history))
                begins |= APART
            fresh = await self.call(self.drafter.propose, self.history + shown, 1, begins)
            if outdated:
                self.drafter.settle(len(self.history))
            self.tally.draft_s += self.now() - begun
            self.tally.drafted += 1
        return [(token, "provisional") for token in alone.show(fresh)]

    def stand(self, ids: Sequence[int]) -> int | None:
        """``ids`` stand from here on; how many of them before one that differs from what was shown.

        None if all was foreseen, or nothing shown.
        """
        place = None if self.alone is None else self.alone.stand(ids)
        self.history.extend(ids)
        return place

    def _check(self) -> None:
        if self.over:
            raise RuntimeError("another generation has begun on this device, and ended this one")

    async def close(self) -> None:
        """Nothing is under way any more, nor will be: neither a job nor a frame waited for."""
        self.over = True
        if self.job is not None:
            await asyncio.wait([self.job])
        self._ended()
        task, self._incoming = self._incoming, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # retrieved: what went wrong shows again when the link is used
