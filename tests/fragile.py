"""WebSockets that break when they are told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from bench.virtual.world import World
from device_runtime.device import Device
from device_runtime.transport.connecting import Socket, connect_websocket
from draftlink.protocol import frames

Breaks = Callable[[str, frames.Frame, bool], bool]


class Fragile:
    """A socket of the device's. ``breaks(direction, frame, rejection)``: whether it breaks there.

    A frame that is on its way is lost with it. ``rejection``: the frame is a verdict that corrects.
    """

    def __init__(self, socket: Socket, breaks: Breaks) -> None:
        self._socket = socket
        self._breaks = breaks
        self._drafted = 0

    async def send(self, message: bytes, /) -> None:
        frame = frames.decode(message)
        if isinstance(frame, frames.Draft):
            self._drafted = frame.length
        if self._breaks("up", frame, False):
            self._abort()
        await self._socket.send(message)

    async def recv(self) -> str | bytes:
        message = await self._socket.recv()
        assert isinstance(message, bytes)
        frame = frames.decode(message)
        rejection = isinstance(frame, frames.Verdict) and frame.accepted < self._drafted
        if self._breaks("down", frame, rejection):
            self._abort()
            while True:  # what had come already is lost too; in the end it raises
                await self._socket.recv()
        return message

    async def close(self) -> None:
        await self._socket.close()

    def _abort(self) -> None:
        self._socket.transport.abort()  # type: ignore[attr-defined]


def connector(breaks: Breaks) -> Callable[[str], object]:
    """A ``connect`` for devices."""

    async def connect(url: str) -> Fragile:
        return Fragile(await connect_websocket(url), breaks)

    return connect


def at_random(seed: int, rate: float, after_rejections: float) -> Breaks:
    """Breaks at any frame, and preferably where a verdict that rejects is lost."""
    chance = random.Random(seed)
    return lambda direction, frame, rejection: (
        chance.random() < (after_rejections if rejection else rate)
    )


def outages(world: World, device: Device, spans: Sequence[tuple[float, float]]) -> None:
    """In virtual time: the connection breaks where a span begins, and there is none until its end.

    ``device`` is the open device of ``world``.
    """
    loop, connect = asyncio.get_running_loop(), device.client._connect

    async def elsewhere(url: str) -> Socket:
        if any(begin <= loop.time() < end for begin, end in spans):
            raise OSError("no route")
        return await connect(url)

    device.client._connect = elsewhere
    for begin, _ in spans:
        loop.call_at(begin, lambda: world.wires[-1].lose())
