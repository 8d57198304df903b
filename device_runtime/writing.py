"""What the rooms of one generation share: history, link, one worker for the draft, and accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from device_runtime.controller import Controller
from device_runtime.drafter import Drafter
from device_runtime.estimators import Estimates
from device_runtime.result import Tally
from device_runtime.temperature import DraftTemperature
from draftlink import frames
from draftlink.session import Session

if TYPE_CHECKING:
    from device_runtime.device import Device

T = TypeVar("T")


class Writing:
    """A generation under way. ``owed``: the token that the next draft sends first (``split``)."""

    def __init__(
        self,
        device: Device,
        start: frames.Start,
        drafter: Drafter,
        controller: Controller,
        learned: DraftTemperature | None,
    ) -> None:
        self.device = device
        self.start = start
        self.drafter = drafter
        self.controller = controller
        self.learned = learned
        self.tally = Tally(0.0)
        self.owed: int | None = None
        self.job: asyncio.Future[Any] | None = None
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
        assert self.job is None
        loop = asyncio.get_running_loop()
        self.job = loop.run_in_executor(self.device.executor, function, *args)

    async def done(self) -> Any:
        """The result of the job, once it is there."""
        assert self.job is not None
        job, self.job = self.job, None
        return await job

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Have the worker do something, and wait for it."""
        self.begin(function, *args)
        result: T = await self.done()
        return result

    async def send(self, frame: frames.Frame, payload_bits: int | None = None) -> None:
        """Send a frame. Raises LinkError."""
        await self.device.client.send(frame, payload_bits)

    def incoming(self) -> asyncio.Task[frames.Frame]:
        """The next frame, on its way; it may be waited for beside other things."""
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

    async def event(self, timeout_s: float | None = None) -> None:
        """Until the job is done or a frame is there, or for ``timeout_s`` seconds."""
        waited = {self.incoming(), *([] if self.job is None else [self.job])}
        begun = self.now()
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self.job is None:
            self.tally.wait_s += self.now() - begun

    async def close(self) -> None:
        """Nothing is under way any more: neither a job nor a frame that is waited for."""
        if self.job is not None:
            await asyncio.wait([self.job])
            self.job = None
        task, self._incoming = self._incoming, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # retrieved: what went wrong shows again when the link is used
