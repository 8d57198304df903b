"""Base stations that a device should not trust: each says what its test has it say.

The same ones over real loopback sockets and in memory, where time may be virtual.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from device_runtime.transport.connecting import Connect
from draftlink import schemes
from draftlink.protocol import frames
from tests.fake_models import HASH, random_logits

SIZE = 20
TABLE = random_logits(1, SIZE)
WELCOME = frames.Welcome(
    frames.VERSION, HASH, SIZE, 1 << 20, list(schemes.BY_NAME), "fake", "float64", b"ticket"
)
WRITES_BOTH = msgspec.structs.replace(WELCOME, features=[frames.BOTH])


class Peer(Protocol):
    """The device, as the base station of one connection sees it."""

    async def hears(self) -> frames.Frame:
        """The next frame. Raises ConnectionClosed."""

    async def says(self, what: frames.Frame | bytes | str) -> None:
        """Send a frame, or bytes or a text in its place. Raises ConnectionClosed."""


Talk = Callable[
    [Peer, int], Awaitable[None]
]  # with the connection's number, from 0; then it closes


class Wire:
    """A peer over a real WebSocket."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def hears(self) -> frames.Frame:
        return frames.decode(await self.socket.recv(decode=False))

    async def says(self, what: frames.Frame | bytes | str) -> None:
        await self.socket.send(what if isinstance(what, bytes | str) else frames.encode(what))


@contextlib.asynccontextmanager
async def listening(talk: Talk, **options: Any) -> AsyncIterator[tuple[str, list[int]]]:
    """A base station on loopback; its address, and the numbers of the connections made so far.

    ``options``: those of ``websockets``' server.
    """
    made: list[int] = []
    over = asyncio.Event()

    async def handle(socket: ServerConnection) -> None:
        made.append(len(made))
        talking = asyncio.ensure_future(talk(Wire(socket), made[-1]))
        ended = asyncio.ensure_future(over.wait())
        await asyncio.wait((talking, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        talking.cancel()  # one that is silent for ever
        with contextlib.suppress(ConnectionClosed, asyncio.CancelledError):
            await talking

    async with serve(handle, "127.0.0.1", 0, compression=None, **options) as server:
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", made
        finally:
            over.set()


class Memory:
    """A peer in memory, and the device's socket to it."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[bytes] = asyncio.Queue()
        self.down: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self.talking: asyncio.Task[None]

    async def hears(self) -> frames.Frame:
        return frames.decode(await self.up.get())

    async def says(self, what: frames.Frame | bytes | str) -> None:
        self.down.put_nowait(what if isinstance(what, bytes | str) else frames.encode(what))
        await asyncio.sleep(0)

    async def send(self, message: bytes, /) -> None:
        if self.talking.done():
            raise ConnectionClosedError(None, None)
        self.up.put_nowait(message)

    async def recv(self) -> bytes | str:
        message = await self.down.get()
        if message is None:
            self.down.put_nowait(None)
            raise ConnectionClosedError(None, None)
        return message

    async def close(self) -> None:
        self.talking.cancel()


def in_memory(talk: Talk) -> tuple[Connect, list[int]]:
    """What connects a device to a base station in memory, and the connections made so far."""
    made: list[int] = []

    async def connect(url: str) -> Memory:
        peer = Memory()
        made.append(len(made))

        async def handle(number: int) -> None:
            try:
                await talk(peer, number)
            finally:
                peer.down.put_nowait(None)

        peer.talking = asyncio.create_task(handle(made[-1]))
        return peer

    return connect, made


async def greets(peer: Peer, welcome: frames.Welcome = WELCOME) -> None:
    """Up to Welcome."""
    assert isinstance(await peer.hears(), frames.Hello)
    await peer.says(welcome)


async def begins(peer: Peer, welcome: frames.Welcome = WELCOME) -> frames.Start:
    """A generation, from its beginning, or again: then it is replayed."""
    await greets(peer, welcome)
    frame = await peer.hears()
    if isinstance(frame, frames.Start):
        return frame
    assert isinstance(frame, frames.Resume)
    await peer.says(frames.Resumed(frame.start.generation, 0, True))
    assert isinstance(await peer.hears(), frames.Replay)
    return frame.start


async def silent(_: Peer) -> None:
    """Not another word; WebSocket's pings are answered all the same."""
    await asyncio.Event().wait()
