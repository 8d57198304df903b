"""The WebSocket to the base station, and the bytes that cross it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

from device_runtime.tcp import Crossed, crossed
from draftlink import __version__, frames, schemes
from draftlink.control import MAX_RETRY_S
from draftlink.link import Ledger
from draftlink.session import RemoteProtocolError, Session
from draftlink.states import UNDER_WAY, State

PATH = "/v1/draft"
PATIENCE_S = 60.0  # how long a lost base station is looked for
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between attempts, doubling
T = TypeVar("T", bound=frames.Frame)


class LinkError(ConnectionError):
    """The base station cannot be reached, refuses, or has gone; the text says what to do.

    ``retry_after_s``: when to try again, where the base station was only busy.
    """

    def __init__(self, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Socket(Protocol):
    """What a client needs of a WebSocket; all three raise ConnectionClosed once it is closed."""

    async def send(self, message: bytes, /) -> None:
        """Send a binary message."""

    async def recv(self) -> str | bytes:
        """The next message."""

    async def close(self) -> None:
        """Close the connection."""


Connect = Callable[[str], Awaitable[Socket]]


def connector(token: str | None = None, ca: Path | None = None) -> Connect:
    """Makes WebSockets with a bearer token; ``ca``: the certificates that ``wss`` trusts.

    Raises ValueError for certificates that cannot be read. What it makes raises what ``websockets``
    raises.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    trusted: ssl.SSLContext | bool = True  # the system's certificates
    if ca is not None:
        try:
            trusted = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise ValueError(f"{ca} holds no PEM certificates ({error})") from None

    async def connect_with(url: str) -> Socket:
        return await connect(
            url.rstrip("/") + PATH,
            additional_headers=headers,
            ssl=trusted if url.startswith("wss:") else None,
            compression=None,
            max_size=frames.MAX_MESSAGE_BYTES,
            ping_timeout=frames.PING_TIMEOUT_S,
        )

    return connect_with


connect_websocket = connector()


class Client:
    """A greeted session, over one connection after another.

    When a connection is lost, the next ``receive`` makes a new one and goes on with the
    generation where both ends had agreed; nothing of it is drawn again. ``ledger`` counts what
    crosses, and may be replaced. ``history``: the tokens of the session so far.
    """

    def __init__(
        self,
        url: str,
        tokenizer_hash: str,
        vocab_size: int,
        connect: Connect = connect_websocket,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.session = Session("device", vocab_size)
        self.welcome: frames.Welcome
        self.ledger = Ledger()
        self.reconnects = 0
        self.rtt_s = 0.0  # of the last greeting
        self.history: Sequence[int] = []
        self._url = url
        self._connect = connect
        self._patience_s = patience_s
        self._vocab_size = vocab_size
        self._tokenizer_hash = tokenizer_hash
        self._ticket = b""
        self._socket: Socket | None = None
        self._begun: Crossed | None = None  # what had crossed when the ledger began, if known
        self._closed = False
        self._lost = False  # for good: patience has ended
        self._gone = f"the connection to {url} was closed; open the device anew"
        self.connected = asyncio.Event()  # not set while a new connection is looked for
        self.connected.set()
        self._mending = asyncio.Lock()  # held while frames are sent, or a new connection is made

    async def open(self) -> None:
        """Connect and greet. Raises LinkError."""
        try:
            await self._greet()
        except _Lost as error:
            if error.retry_after_s is not None:
                raise LinkError(
                    f"{self._url} takes no more devices now ({error}); try again in"
                    f" {error.retry_after_s} s",
                    error.retry_after_s,
                ) from None
            raise LinkError(
                f"no base station at {self._url} ({error}); start one with `draftlink bs MODEL`,"
                " or check the address"
            ) from None
        except BaseException:
            await self.close()
            raise

    async def send(self, frame: frames.Frame, payload_bits: int | None = None) -> None:
        """Send a frame; ``payload_bits`` of it are coded. Raises LinkError after ``close``.

        Where the connection is lost the next ``receive`` makes a new one, and sends it again.
        """
        async with self._mending:
            self._connected()
            await self._put(self.session.send(frame), payload_bits)

    async def receive(self) -> frames.Frame:
        """The next frame that has not been overtaken. Raises LinkError.

        A task may send meanwhile. What was received before must be in ``history``: after a lost
        connection both ends go on from there.
        """
        while True:
            async with self._mending:  # a sender may be at it
                socket = self._socket
            try:
                return await self._get()
            except _Lost as error:
                lost = error
            async with self._mending:
                if self._socket is socket:
                    self.connected.clear()
                    try:
                        await self._reconnect(lost)
                    finally:
                        self.connected.set()

    async def expect(self, kind: type[T]) -> T:
        """The next frame, which the protocol says is a ``kind``. Raises LinkError."""
        return _checked(await self.receive(), kind)

    def begin_ledger(self) -> None:
        """Count from here on."""
        self.ledger = Ledger()
        self._begun = crossed(self._socket)

    def close_ledger(self) -> None:
        """Enter what the kernel has counted too, where it does and the connection is still one."""
        now, begun = crossed(self._socket), self._begun
        if now is not None and begun is not None:
            self.ledger.crossed("up", now.up - begun.up)
            self.ledger.crossed("down", now.down - begun.down)

    async def finish(self, keep: int) -> None:
        """End the generation: the base station forgets what comes behind ``keep`` tokens.

        Where there is no connection to say so on, a new one is made, which begins with nothing.
        Raises LinkError.
        """
        if self.interrupted and not self._lost:
            self.session.abandon()
            await self._reconnect(_Lost("the connection was left"))
            return
        if self.session.state is not State.FINISHING:  # else who waited for Done was cancelled
            # A token that the device still owes has not reached the base station.
            keep = min(keep, self.session.length)
            await self.send(frames.Finish(self.session.generation, keep))
        while self.session.state is State.FINISHING:
            try:
                _checked(await self._get(), frames.Done)
            except _Lost as error:
                await self._reconnect(error)  # and the generation is over

    @property
    def interrupted(self) -> bool:
        """Whether there is no greeted connection: refused, or left while a new one was made."""
        greeted = (State.READY, State.FINISHING, *UNDER_WAY)
        return self._socket is None or self.session.state not in greeted

    async def close(self) -> None:
        """Close the connection; a peer that does not close its end is not waited for."""
        self._closed = True
        await self._hang_up()

    def _connected(self) -> Socket:
        """The connection. Raises LinkError where it was lost for good."""
        if self._socket is None:
            raise LinkError(self._gone)
        return self._socket

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            self._begun = None  # of a connection that was lost no kernel tells any more
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await socket.close()

    async def _greet(self) -> None:
        """A new connection, from Hello to Welcome. Raises _Lost, LinkError."""
        try:
            self._socket = await self._connect(self._url)
        except InvalidURI:
            raise LinkError(
                f"{self._url!r} is not a WebSocket address such as ws://host:8765"
            ) from None
        except InvalidStatus as error:
            raise _denied(self._url, error.response) from None
        except ssl.SSLCertVerificationError as error:
            raise LinkError(
                f"the certificate of {self._url} is not trusted ({error.verify_message}); give the"
                " one that signed it with --ca FILE"
            ) from None
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            raise _Lost(str(error) or type(error).__name__) from None
        hello = frames.Hello(
            frames.VERSION,
            self._tokenizer_hash,
            self._vocab_size,
            list(schemes.BY_NAME),
            f"draftlink/{__version__}",
            self._ticket,
            frames.LOWEST,
            list(frames.FEATURES),
        )
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        await self._put(self.session.send(hello))
        welcome = _checked(await self._get(), frames.Welcome)
        self.rtt_s = loop.time() - asked_s
        if self.session.stopped and replace(welcome, ticket=b"") != replace(
            self.welcome, ticket=b""
        ):
            raise LinkError(
                f"the base station at {self._url} now serves another target ({welcome.model},"
                f" {welcome.dtype}); the text so far is kept, start a new one"
            )
        self.welcome, self._ticket = welcome, welcome.ticket
        # Vocabularies may be padded differently; an id that this draft lacks could not be fed.
        self.session.vocab_size = min(self._vocab_size, welcome.vocab_size)

    async def _reconnect(self, cause: _Lost) -> None:
        """A new connection, and on with the generation. Raises LinkError when patience ends.

        Patience is for a base station that is not there; one that is busy is waited for.
        """
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self._patience_s, FIRST_PAUSE_S
        while True:
            if self._closed:
                raise LinkError("the connection was closed") from None
            await self._hang_up()
            try:
                self.session.reopen()
                await self._greet()
                if self.session.stopped:
                    await self._resume()
            except _Lost as error:
                cause = error
                if error.retry_after_s is not None:  # it is there, and says when to come back
                    until = loop.time() + self._patience_s
            else:
                self.reconnects += 1
                return
            left = until - loop.time()
            if left <= 0:
                self._lost = True
                self._gone = (
                    f"the base station at {self._url} has gone ({cause}); the text so far is kept,"
                    " start the base station again and open the device anew"
                )
                raise LinkError(self._gone) from None
            pause = max(pause, cause.retry_after_s or 0)
            # Not all at once, where a base station that was restarted has many devices.
            await asyncio.sleep(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _resume(self) -> None:
        session = self.session
        await self._put(session.send(session.resume(self.history)))
        resumed = _checked(await self._get(), frames.Resumed)
        if resumed.replay:
            ids = list(self.history[: session.resumes_at])
            await self._put(session.send(frames.Replay(session.generation, ids)))
        for data in session.resend(0 if resumed.replay else resumed.handled):
            await self._put(data)

    async def _put(self, data: bytes, payload_bits: int | None = None) -> None:
        """Send bytes. If the connection is lost, ``_get`` says so, and why if it was told."""
        try:
            await self._connected().send(data)
        except ConnectionClosed:
            return
        self.ledger.record("up", frames.kind(data), len(data), payload_bits)

    async def _get(self) -> frames.Frame:
        """The next frame that has not been overtaken. Raises _Lost, LinkError."""
        socket = self._connected()
        while True:
            try:
                data = await socket.recv()
            except ConnectionClosed as error:
                if error.rcvd is not None and error.rcvd.code == frames.FENCED:
                    raise LinkError("another connection has taken over this session") from None
                raise _Lost(str(error)) from None
            if isinstance(data, str):
                raise LinkError("the base station broke the protocol: it sent a text message")
            try:
                frame = self.session.receive(data)
                self.ledger.record("down", frames.kind(data), len(data))
            except RemoteProtocolError as error:
                raise LinkError(f"the base station broke the protocol: {error}") from error
            if isinstance(frame, frames.Refused):
                raise LinkError(f"the base station refuses: {frame.reason}", frame.retry_after_s)
            if frame is not None:
                return frame


class _Lost(Exception):
    """The connection is not there, or no more; the text says how that showed."""

    def __init__(self, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


def _denied(url: str, response: Response) -> Exception:
    """What an HTTP answer in the place of a WebSocket means."""
    words = (response.body or b"")[:200].decode("ascii", "replace").split("\n")[0]
    reason = "".join(c for c in words if c.isprintable()) or f"HTTP {response.status_code}"
    if response.status_code == 401:
        return LinkError(
            f"the base station at {url} refuses: {reason}; give its token with --token or in"
            " DRAFTLINK_TOKEN"
        )
    if response.status_code == 503:
        after = response.headers.get("Retry-After", "")
        seconds = int(after) if after.isascii() and after.isdigit() else 1
        return _Lost(reason, min(seconds, MAX_RETRY_S))
    return LinkError(f"{url} is no base station, or not for this device: {reason}")


def _checked(frame: frames.Frame, kind: type[T]) -> T:
    if not isinstance(frame, kind):
        raise LinkError(f"the base station sent {type(frame).__name__}, not {kind.__name__}")
    return frame
