"""What the rooms of one generation share: history, link, one worker for the draft, and accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from device_runtime.drafting.actions import Action, Guess, Show
from device_runtime.drafting.alone import Alone
from device_runtime.drafting.blocks import Proposed
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Limits
from device_runtime.drafting.drafter import Drafter, Proposal
from device_runtime.drafting.paths import PRICE, Paths
from device_runtime.drafting.temperature import DraftTemperature
from device_runtime.drafting.trunk import Trunk
from device_runtime.drafting.window import Window
from device_runtime.result import Came, Tally
from device_runtime.transport import tcp
from device_runtime.worker import Job
from device_runtime.writers.host import Host
from draftlink.protocol import frames
from draftlink.protocol.session import Session

LEAST_S = 1e-6  # that a time ahead is waited for
APART = 1 << 62  # beside a position: numbers of their own, for tokens that are shown and never sent


class Writing:
    """A generation under way. ``owed``: the token that the next draft sends first (``split``).

    ``alone``: how the draft goes on while nothing is heard, where it may. ``branches``: behind how
    many tokens a forward drafts, where both ends write.
    """

    def __init__(
        self,
        device: Host,
        start: frames.Start,
        drafter: Drafter,
        controller: Controller,
        learned: DraftTemperature | None,
        alone: Alone | None,
        draft_price: float | None,
        branches: int = 1,
    ) -> None:
        self.device = device
        self.start = start
        self.drafter = drafter
        self.controller = controller
        self.learned = learned
        self.alone = alone
        self.draft_price = PRICE if draft_price is None else draft_price
        self.branches = branches
        self.tally = Tally(0.0)
        self.owed: int | None = None
        self._decides: Window | Paths  # once the generation has begun
        self.job: Job | None = None
        self.job_s = 0.0  # when it was asked for
        self.waited_s = 0.0  # for others' turns, before and in the last job that has ended
        self._cut: int | None = None  # tokens of what the job feeds that are kept
        self.over = False  # nothing of it may be under way any more
        self._incoming: asyncio.Task[frames.Frame] | None = None

    @property
    def history(self) -> list[int]:
        """The tokens of prompt and text, as far as they are certain."""
        return self.device.history

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

    def open_window(self, *, auto: bool) -> None:
        """The base station has been asked to begin: from here on the window decides.

        ``auto``: also about who writes.
        """
        start, scheme, welcome = self.start, self.drafter.scheme, self.device.client.welcome
        size = welcome.vocab_size
        limits = Limits(
            begins=start.begins,
            ends=start.begins + start.max_tokens,
            context=self.device.draft_context,
            message=scheme.longest(size, frames.MAX_MESSAGE_BYTES, welcome.frame_entries),
            flight=scheme.deepest(size, welcome.flight_entries),
            foretells=self.drafter.foretells,
            corrects=scheme.corrects == "device",
            told=start.streams_surprisals,
        )
        after_s = None if self.alone is None else self.alone.after_s
        if start.mode == "both":
            shared = self.near and self.controller.near
            self._decides = (Trunk if self.branches > 1 else Paths)(
                self.controller, limits, len(self.history), shared=shared, here=self.near,
                step_s=welcome.step_us * 1e-6, row_s=welcome.row_us * 1e-6,
                price=self.draft_price, started_s=self.tally.started_s, offline_after_s=after_s,
            )  # fmt: skip
            return
        self._decides = Window(
            self.controller,
            limits,
            len(self.history),
            started_s=self.tally.started_s,
            now=self.now(),
            streams=start.mode == "stream",
            auto=auto,
            offline_after_s=after_s,
        )

    @property
    def near(self) -> bool:
        """Whether the base station's address is this machine's."""
        return tcp.stays_here(self.device.client.socket, self.device.client.url)

    @property
    def mode(self) -> str:
        """Who writes, and how."""
        return self._decides.mode

    @property
    def both(self) -> bool:
        """Whether both ends write."""
        return isinstance(self._decides, Paths)

    @property
    def window(self) -> Window:
        """What decides while one end writes."""
        assert isinstance(self._decides, Window)
        return self._decides

    @property
    def paths(self) -> Paths:
        """What decides while both ends write."""
        assert isinstance(self._decides, Paths)
        return self._decides

    def due(self, cached: int | None = None) -> list[Action]:
        """What the window asks for now; ``cached``: what was fed, if that is not all in a chain."""
        return self._decides.due(
            self.now(),
            cached=self.device.model.length if cached is None else cached,
            connected=self.device.client.connected.is_set(),
            unread=self._unread,
        )

    def now(self) -> float:
        """The loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    def begin(self, function: Callable[..., Any], *args: Any) -> None:
        """Have the worker do something; ``job`` until its result is taken."""
        self._check()
        assert self.job is None
        self.job_s = self.now()
        self.job = self.device.worker.run(function, *args)

    async def done(self) -> Any:
        """The result of the job, once it is there."""
        assert self.job is not None
        job = self.job
        await asyncio.wait([job])  # who waits may be cancelled, and leaves the job to ``close``
        self.waited_s = job.waited_s
        self.tally.draft_queue_s += job.waited_s
        self._ended()
        return job.result()

    async def proposals(self) -> list[Proposal]:
        """What the job has drafted, counted, once it is there."""
        drafted: list[Proposal] = await self.done()
        self.tally.draft_s += self.now() - self.job_s - self.waited_s
        self.tally.drafted += len(drafted)
        return drafted

    def seen(self, proposals: Sequence[Proposal]) -> list[Proposed]:
        """Proposals as the window sees them."""
        ends = self.start.eos_ids
        return [Proposed(one.chance, one.drafted.token in ends) for one in proposals]

    def drop(self, keep: int | None = None) -> None:
        """What was fed behind the history, or so many tokens, is rolled back.

        A job under way is left to its end.
        """
        cut = len(self.history) if keep is None else keep
        self._cut = cut if self._cut is None else min(self._cut, cut)
        if self.job is None:
            self._ended()

    def _ended(self) -> None:
        """No job is under way: the cache can be rolled back."""
        self.job = None
        if self._cut is not None:
            self.drafter.rollback(self._cut)
            self._cut = None

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have the worker do something, and wait for it."""
        self.begin(function, *args)
        return await self.done()

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
            return await task
        finally:
            self._incoming = None

    async def event(self, until_s: float | None) -> None:
        """Until the job is done, a frame or a connection is there, or until a time, if one is."""
        waited: set[asyncio.Future[Any]] = {self.incoming()}
        if self.job is not None:
            waited.add(self.job)
        back = None
        if not self.device.client.connected.is_set():
            back = asyncio.create_task(self.device.client.connected.wait())
            waited.add(back)
        begun = self.now()
        timeout_s = None if until_s is None else until_s - begun
        if timeout_s is not None:  # a timer may go off a little before its time, and then in vain
            timeout_s = max(timeout_s, LEAST_S) if timeout_s > 0.0 else 0.0
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if back is not None:
            back.cancel()
        if self.job is None:
            self.tally.wait_s += self.now() - begun

    async def show(self, action: Show | Guess, ahead: Sequence[Proposal]) -> list[Came]:
        """Provisional tokens: those of ``ahead``, which are in flight, or one that is drafted."""
        alone = self.alone
        assert alone is not None
        if isinstance(action, Show):
            fresh = list(ahead[action.first :])
        else:
            begun = self.now()
            begins = action.begins
            if action.apart:  # the cache may hold what is in flight; and will have to, once more
                self.drafter.rollback(len(self.history))
                begins |= APART
            past = self.history + alone.tokens
            fresh = await self.call(self.drafter.proposing, past, 1, begins)
            if action.apart:
                self.drafter.rollback(len(self.history))
            self.tally.draft_s += self.now() - begun - self.waited_s
            self.tally.drafted += 1
            self.window.guessed(ends=fresh[0].drafted.token in self.start.eos_ids)
        return [Came(token, "provisional") for token in alone.show(fresh)]

    def commit(self, ids: Sequence[int]) -> int | None:
        """``ids`` join the history. The place of the one that refutes what was shown, or None."""
        confirmed, refuted = (0, False) if self.alone is None else self.alone.meet(ids)
        self.history.extend(ids)
        self._decides.commit(len(ids), confirmed=confirmed, refuted=refuted)
        return confirmed if refuted else None

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
