"""The WebSocket to the base station, and the bytes that cross it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from draftlink import __version__, frames, schemes
from draftlink.link import Ledger
from draftlink.session import RemoteProtocolError, Session

PATH = "/v1/draft"
T = TypeVar("T", bound=frames.Frame)


class LinkError(ConnectionError):
    """The base station cannot be reached, refuses, or has gone; the text says what to do."""


class Socket(Protocol):
    """What a client needs of a WebSocket; all three raise ConnectionClosed once it is closed."""

    async def send(self, message: bytes, /) -> None:
        """Send a binary message."""

    async def recv(self) -> str | bytes:
        """The next message."""

    async def close(self) -> None:
        """Close the connection."""


Connect = Callable[[str], Awaitable[Socket]]


async def connect_websocket(url: str) -> Socket:
    """A WebSocket to the base station at ``url``. Raises what ``websockets`` raises."""
    return await connect(
        url.rstrip("/") + PATH,
        compression=None,
        max_size=frames.MAX_MESSAGE_BYTES,
        ping_timeout=frames.PING_TIMEOUT_S,
    )


class Client:
    """A greeted connection. ``ledger`` counts what crosses it, and may be replaced."""

    def __init__(self, url: str, socket: Socket, session: Session) -> None:
        self._url = url
        self._socket = socket
        self.session = session
        self.welcome: frames.Welcome
        self.ledger = Ledger()

    @classmethod
    async def open(
        cls,
        url: str,
        tokenizer_hash: str,
        vocab_size: int,
        connect: Connect = connect_websocket,
    ) -> Client:
        """Connect and greet. Raises LinkError."""
        try:
            socket = await connect(url)
        except InvalidURI:
            raise LinkError(f"{url!r} is not a WebSocket address such as ws://host:8765") from None
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            raise LinkError(
                f"no base station at {url} ({error or type(error).__name__}); start one with"
                " `draftlink bs MODEL`, or check the address"
            ) from None
        client = cls(url, socket, Session("device", vocab_size))
        hello = frames.Hello(
            frames.VERSION,
            tokenizer_hash,
            vocab_size,
            list(schemes.BY_NAME),
            f"draftlink/{__version__}",
        )
        try:
            await client.send(hello)
            client.welcome = await client.expect(frames.Welcome)
        except BaseException:
            await client.close()
            raise
        # Vocabularies may be padded differently; an id that this draft lacks could not be fed.
        client.session.vocab_size = min(vocab_size, client.welcome.vocab_size)
        return client

    async def send(self, frame: frames.Frame, payload_bits: int | None = None) -> None:
        """Send a frame; ``payload_bits`` of it are coded. Raises LinkError if nobody is there."""
        data = self.session.send(frame)
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            # It may have said why before it closed.
            while True:
                try:
                    await self.receive()
                except LinkError as reason:
                    raise reason from error
        self.ledger.record("up", frames.kind(data), len(data), payload_bits)

    async def receive(self) -> frames.Frame:
        """The next frame that has not been overtaken. Raises LinkError."""
        while True:
            try:
                data = await self._socket.recv()
            except ConnectionClosed as error:
                raise LinkError(
                    f"the base station at {self._url} has gone ({error}); the text so far is kept,"
                    " start the base station again and go on from there"
                ) from None
            if isinstance(data, str):
                raise LinkError("the base station broke the protocol: it sent a text message")
            try:
                frame = self.session.receive(data)
                self.ledger.record("down", frames.kind(data), len(data))
            except RemoteProtocolError as error:
                raise LinkError(f"the base station broke the protocol: {error}") from error
            if isinstance(frame, frames.Refused):
                raise LinkError(f"the base station refuses: {frame.reason}")
            if frame is not None:
                return frame

    async def expect(self, kind: type[T]) -> T:
        """The next frame, which the protocol says is a ``kind``. Raises LinkError."""
        frame = await self.receive()
        if not isinstance(frame, kind):
            raise LinkError(f"the base station sent {type(frame).__name__}, not {kind.__name__}")
        return frame

    async def close(self) -> None:
        """Close the connection; a peer that does not close its end is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self._socket.close()
