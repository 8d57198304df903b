"""A session with the base station, over one connection after another, and the bytes that cross."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from websockets.exceptions import ConnectionClosed

from device_runtime.transport import greeting
from device_runtime.transport.connecting import (
    Connect,
    LinkError,
    Lost,
    Socket,
    Stage,
    close,
    connect_websocket,
    reach,
)
from device_runtime.transport.patience import PATIENCE_S, Patience
from device_runtime.transport.silence import Deadlines, Silence
from device_runtime.transport.tcp import Crossed, crossed
from draftlink.link.ledger import Ledger
from draftlink.protocol import frames
from draftlink.protocol.session import RemoteProtocolError, Session
from draftlink.protocol.states import UNDER_WAY, State

__all__ = ["Client", "LinkError"]


class Client:
    """A greeted session, over one connection after another.

    When a connection is lost, the next ``receive`` makes a new one and goes on with the
    generation where both ends had agreed; nothing of it is drawn again. ``ledger`` counts what
    crosses, and may be replaced. ``history``: the tokens of the conversation so far.
    """

    def __init__(
        self,
        url: str,
        tokenizer_hash: str,
        vocab_size: int,
        connect: Connect = connect_websocket,
        patience_s: float = PATIENCE_S,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.session = Session("device", vocab_size)
        self.welcome: frames.Welcome
        self.ledger = Ledger()
        self.reconnects = 0
        self.rtt_s = 0.0  # of the last greeting
        self.history: Sequence[int] = []
        self._anew = False  # what the base station holds is another conversation's
        self.url = url
        self._connect = connect
        self._patience = Patience(patience_s)
        self._deadlines = deadlines or Deadlines()
        self._silence = Silence(self.session, self._deadlines)
        self._vocab_size = vocab_size
        self._tokenizer_hash = tokenizer_hash
        self._ticket = b""
        self.socket: Socket | None = None  # the connection, while there is one
        self._begun: Crossed | None = None  # what had crossed when the ledger began, if known
        self._stage = Stage.OPEN
        self._gone = f"the connection to {url} was closed; open the device anew"
        self.connected = asyncio.Event()  # set but while it is MENDING
        self.connected.set()
        self._mending = asyncio.Lock()  # held while frames are sent, or a new connection is made

    async def open(self) -> None:
        """Connect and greet. Raises LinkError."""
        try:
            await self._greet()
        except BaseException as error:
            await self.close()
            if not isinstance(error, Lost):
                raise
            if error.retry_after_s is not None:
                raise LinkError(
                    f"{self.url} takes no more devices now ({error}); try again in"
                    f" {error.retry_after_s} s",
                    error.retry_after_s,
                ) from None
            raise LinkError(
                f"no base station at {self.url} ({error}); start one with `draftlink bs MODEL`,"
                " or check the address"
            ) from None

    async def send(self, frame: frames.Frame, payload_bits: int | None = None) -> None:
        """Send a frame; ``payload_bits`` of it are coded. Raises LinkError after ``close``.

        Where the connection is lost the next ``receive`` makes a new one, and sends it again.
        """
        async with self._mending:
            self._connected()
            data = self.session.send(frame)
            if isinstance(frame, frames.Start):
                self._patience.renew()
                self._anew = False
            await self._put(data, payload_bits)

    async def receive(self) -> frames.Frame:
        """The next frame that has not been overtaken. Raises LinkError.

        A task may send meanwhile. What was received before must be in ``history``: after a lost
        connection both ends go on from there.
        """
        while True:
            async with self._mending:  # a sender may be at it
                socket = self.socket
            try:
                return await self._get()
            except Lost as error:
                lost = error
            async with self._mending:
                if self.socket is socket:
                    self._goes_to(Stage.MENDING)
                    try:
                        await self._reconnect(lost)
                    finally:
                        self._goes_to(Stage.OPEN)

    def begin_ledger(self) -> None:
        """Count from here on."""
        self.ledger = Ledger()
        self._begun = crossed(self.socket)

    def close_ledger(self) -> None:
        """Enter what the kernel has counted too, where it does and the connection is still one."""
        now, begun = crossed(self.socket), self._begun
        if now is not None and begun is not None:
            self.ledger.crossed("up", now.up - begun.up, tls=now.tls)
            self.ledger.crossed("down", now.down - begun.down, tls=now.tls)

    async def finish(self, keep: int) -> None:
        """End the generation: the base station forgets what comes behind ``keep`` tokens.

        Where there is no connection to say so on, a new one is made, which begins with nothing.
        Raises LinkError.
        """
        if self.interrupted and self._stage is not Stage.LOST:
            self.session.abandon()
            self._patience.renew()
            await self._reconnect(Lost("the connection was left"))
            return
        if self.session.state is not State.FINISHING:  # else who waited for Done was cancelled
            # A token that the device still owes has not reached the base station.
            await self.send(frames.Finish(self.session.generation, min(keep, self.held)))
        while self.session.state is State.FINISHING:
            try:
                greeting.checked(await self._get(), frames.Done)
            except Lost as error:
                await self._reconnect(error)  # and the generation is over

    @property
    def interrupted(self) -> bool:
        """Whether there is no greeted connection: refused, or left while a new one was made."""
        greeted = (State.READY, State.FINISHING, *UNDER_WAY)
        return self.socket is None or self.session.state not in greeted

    @property
    def rests(self) -> bool:
        """Whether it is open, and no generation is under way on it."""
        return self._stage is Stage.OPEN and self.session.state is State.READY

    def serve(self, history: Sequence[int]) -> None:
        """Be a conversation's from now on, of whose history the base station holds nothing."""
        self.history = history
        self._anew = True

    @property
    def held(self) -> int:
        """Tokens of ``history`` that the base station holds."""
        return 0 if self._anew else self.session.length

    async def close(self) -> None:
        """Close the connection; a peer that does not close its end is not waited for."""
        self._goes_to(Stage.CLOSED)
        await self._hang_up()

    def _goes_to(self, stage: Stage) -> None:
        """Where the connection is from now on. What is lost or closed stays so."""
        if self._stage in (Stage.OPEN, Stage.MENDING):
            self._stage = stage
        if self._stage is Stage.MENDING:
            self.connected.clear()
        else:
            self.connected.set()

    def _connected(self) -> Socket:
        """The connection. Raises LinkError where it was lost for good."""
        if self.socket is None:
            raise LinkError(self._gone)
        return self.socket

    async def _hang_up(self) -> None:
        socket, self.socket = self.socket, None
        if socket is not None:
            self._begun = None  # of a connection that was lost no kernel tells any more
            await close(socket)

    async def _greet(self) -> None:
        """A new connection, from Hello to Welcome. Raises Lost, LinkError."""
        self.socket = await reach(self._connect, self.url)
        hello = greeting.hello(self._tokenizer_hash, self._vocab_size, self._ticket)
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        await self._put(self.session.send(hello))
        said = greeting.checked(await self._get(), frames.Welcome)
        self.rtt_s = loop.time() - asked_s
        welcome = greeting.readable(said)
        if self.session.stopped and greeting.differs(self.welcome, welcome):
            raise LinkError(
                f"the base station at {self.url} now serves another target ({welcome.model},"
                f" {welcome.dtype}); the text so far is kept, start a new one"
            )
        self.welcome, self._ticket = welcome, welcome.ticket
        # Vocabularies may be padded differently; an id that this draft lacks could not be fed.
        self.session.vocab_size = min(self._vocab_size, welcome.vocab_size)

    async def _reconnect(self, cause: Lost) -> None:
        """A new connection, and on with the generation. Raises LinkError when patience ends.

        Patience is for a base station that is not there; one that is busy is waited for.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._stage is Stage.CLOSED:
                raise LinkError("the connection was closed") from None
            await self._hang_up()
            pause_s = self._patience.after(loop.time(), cause)
            if pause_s is None:
                self._goes_to(Stage.LOST)
                self._gone = (
                    f"the base station at {self.url} has gone ({cause}); the text so far is kept,"
                    " start the base station again and open the device anew"
                )
                raise LinkError(self._gone) from None
            await asyncio.sleep(pause_s)
            try:
                self.session.reopen()
                await self._greet()
                if self.session.stopped:
                    await self._resume()
            except Lost as error:
                cause = error
            else:
                self.reconnects += 1
                return

    async def _resume(self) -> None:
        session = self.session
        await self._put(session.send(session.resume(self.history)))
        resumed = greeting.checked(await self._get(), frames.Resumed)
        if resumed.replay:
            ids = list(self.history[: session.resumes_at])
            await self._put(session.send(frames.Replay(session.generation, ids)))
        for data in session.resend(0 if resumed.replay else resumed.handled):
            await self._put(data)

    async def _put(self, data: bytes, payload_bits: int | None = None) -> None:
        """Send bytes. If the connection is lost, ``_get`` says so, and why if it was told."""
        self._silence.sends()
        socket = self._connected()
        try:
            async with asyncio.timeout(self._deadlines.silence_s):
                await socket.send(data)
        except ConnectionClosed:
            return
        except TimeoutError:  # it reads nothing
            await close(socket)
            return
        self.ledger.record("up", frames.kind(data), len(data), payload_bits)

    async def _get(self) -> frames.Frame:
        """The next frame that has not been overtaken. Raises Lost, LinkError."""
        socket = self._connected()
        self._silence.begins()
        while True:
            data = await self._silence.hear(socket)
            try:
                if isinstance(data, str):
                    raise RemoteProtocolError("it sent a text message")
                frame = self.session.receive(data)
            except RemoteProtocolError as error:
                self.session.abandon()
                await close(socket)
                raise LinkError(f"the base station broke the protocol: {error}") from None
            self.ledger.record("down", frames.kind(data), len(data))
            if frame is None:  # overtaken: it says nothing of what is due
                continue
            self._silence.begins()
            if isinstance(frame, frames.Refused):
                raise LinkError(f"the base station refuses: {frame.reason}", frame.retry_after_s)
            self._patience.heard(frame, asyncio.get_running_loop().time())
            if not isinstance(frame, frames.Progress):
                return frame
