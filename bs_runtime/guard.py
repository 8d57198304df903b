"""uvicorn's protocols, guarded: what no application sees can cost nothing either.

A peer that sends nothing, or pings, or empty fragments, never reaches the app; without these
classes it could hold a connection, or fill memory, for as long as it liked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from bs_runtime.limits import PENDING_CONNECTIONS, WAITING_MESSAGES, Bucket

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

HTTP_S = 15.0  # from a connection to its end, or to its upgrade
CLOSE_S = 5.0  # for a peer to take what is left in the buffer
SEND_BUFFER_BYTES = 1 << 16  # above which sending waits for the device
SLICE_BYTES = 4096  # looked at between two looks at what waits
CONTROL_FRAMES_PER_S = 10.0  # pings, pongs and small fragments
LEAST_FRAGMENT_BYTES = 1024


class GuardedHttp(H11Protocol):
    """HTTP connections are few, short, and become WebSockets or end."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A peer has connected."""
        super().connection_made(transport)
        if sum(isinstance(one, GuardedHttp) for one in self.connections) > PENDING_CONNECTIONS:
            transport.abort()
        self._late = self.loop.call_later(HTTP_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _end(self) -> None:
        if self.transport.get_protocol() is self:  # not upgraded
            self.transport.abort()


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """Cut off where more waits than a device could mean, or where it does not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._control = Bucket(CONTROL_FRAMES_PER_S, self.loop.time())
        self._abort: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection was upgraded."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        for begin in range(0, len(data), SLICE_BYTES):
            super().data_received(data[begin : begin + SLICE_BYTES])
            if self.transport.is_closing():
                return
            if self.queue.qsize() > WAITING_MESSAGES:
                self._cut_off()
                return

    def handle_ping(self) -> None:
        """A ping; the answer goes to the peer."""
        if self._allowed():
            super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        """A pong, asked for or not."""
        if self._allowed():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        """A fragment; small ones count: a message of them takes far more memory than its bytes."""
        if len(event.data) >= LEAST_FRAGMENT_BYTES or self._allowed():
            super().handle_cont(event)

    async def send(self, message: ASGISendEvent) -> None:
        """What the app says."""
        await super().send(message)
        if self.close_sent:  # a refusal ends the handshake too: uvicorn would log it as an error
            self.handshake_complete = True

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The app has done with the connection."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort = self.loop.call_later(CLOSE_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._abort is not None:
            self._abort.cancel()
        super().connection_lost(exc)

    def _allowed(self) -> bool:
        if self.transport.is_closing():
            return False
        if self._control.spend(1, self.loop.time()):
            return True
        self._cut_off()
        return False

    def _cut_off(self) -> None:
        while not self.queue.empty():  # the app is to hear of the end, not of these
            self.queue.get_nowait()
        self.transport.abort()
