"""A device's end of a connection, as the attackers and those who replay speak it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Literal

from tokenizers import Tokenizer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import Frame, Opcode

import tinypair
from bench.hostile.place import TOKENS, Place
from device_runtime.transport.connecting import PATH
from draftlink import schemes
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.protocol.tokenizer import tokenizer_hash
from draftlink.schemes import AnyScheme
from draftlink.schemes.topk import TopK

GONE = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError)
PAUSE_S = 0.01  # after a connection that was refused or cut off
VOCAB = 8192


class Refused(EOFError):
    """The base station has refused."""


class Speaker:
    """A device's end of a connection, which keeps to the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session = Session("device", VOCAB)
        self.welcome: frames.Welcome

    async def greet(self) -> None:
        """Hello and Welcome."""
        await self.say(hello())
        welcome = await self.hear()
        assert isinstance(welcome, frames.Welcome), welcome
        self.welcome = welcome

    async def say(self, *said: frames.Frame) -> None:
        """Send frames."""
        for frame in said:
            await self.socket.send(self.session.send(frame))

    async def hear(self) -> frames.Frame:
        """The next frame that changes anything. Raises Refused."""
        while True:
            data = await self.socket.recv(decode=False)
            frame = self.session.receive(data)
            if isinstance(frame, frames.Refused):
                raise Refused(frame.reason)
            if frame is not None and not isinstance(frame, frames.Progress):
                return frame

    async def until(self, kind: type[frames.Frame]) -> None:
        """Hear frames up to the next of a kind."""
        while not isinstance(await self.hear(), kind):
            pass


def hello() -> frames.Hello:
    """The attacker's Hello."""
    return frames.Hello(
        frames.VERSION, _hash(), VOCAB, list(schemes.BY_NAME), "hostile", features=[frames.BOTH]
    )


def masked(data: bytes) -> bytes:
    """A binary message, as a client sends it."""
    return Frame(Opcode.BINARY, data).serialize(mask=True)


@cache
def _hash() -> str:
    return tokenizer_hash(Tokenizer.from_file(str(tinypair.TARGET / "tokenizer.json")))


def start(
    ids: Sequence[int],
    mode: Literal["draft", "stream"] = "draft",
    *,
    generation: int = 1,
    base: int = 0,
    scheme: AnyScheme | None = None,
    temperature: float = 0.0,
) -> frames.Start:
    """A Start."""
    return frames.Start(
        generation,
        base,
        list(ids),
        Sampling(temperature=temperature),
        scheme or TopK(),
        mode,
        400,
        [],
        5,
    )


async def repeat(place: Place, once: Callable[[Speaker], Awaitable[None]]) -> None:
    """Connect, greet and attack ``once``, again and again."""
    headers = {"Authorization": f"Bearer {TOKENS['thief']}"}
    while True:
        try:
            async with connect(
                place.url + PATH,
                additional_headers=headers,
                compression=None,
                max_size=None,
                close_timeout=1,
                local_addr=place.source(),
            ) as socket:
                speaker = Speaker(socket)
                await speaker.greet()
                place.count("opened")
                await once(speaker)
        except GONE:
            place.count("ended")
            await asyncio.sleep(PAUSE_S)
