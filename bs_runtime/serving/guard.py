"""uvicorn's protocols, guarded: what no application sees can cost nothing either.

A peer that sends nothing, or pings, or empty fragments, never reaches the app; without these
classes it could hold a connection, or fill memory, for as long as it liked. A connection keeps its
place among the pending ones (``pending``) until the application has accepted it, whichever of the
two protocols holds it, and takes one again when the application has done with it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from bs_runtime.operations.limits import WAITING_MESSAGES, Bucket
from bs_runtime.serving.pending import Place

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

PENDING_S = 15.0  # from a connection's first packet to the session that it is for
CLOSE_S = 5.0  # for a peer to take what is left in the buffer, and to end TLS
SEND_BUFFER_BYTES = 1 << 16  # above which sending waits for the device
SLICE_BYTES = 4096  # looked at between two looks at what waits
CONTROL_FRAMES_PER_S = 10.0  # pings, pongs and small fragments
LEAST_FRAGMENT_BYTES = 1024
PLACE = "draftlink.place"  # of a request's scope: the connection's among the pending ones
CLOSE_HEADER = (b"connection", b"close")  # which uvicorn then answers with
_REFUSED = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 30\r\n\r\nThis is no WebSocket handshake"
)


class GuardedHttp(H11Protocol):
    """HTTP connections are few, short, and become WebSockets or end."""

    def __init__(self, *args: Any, place: Place, said: bytes = b"", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._place = place
        self._said = said  # before there was a transport
        self.ws_protocol_class: Any = partial(GuardedWebSocket, place=place)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection is open."""
        super().connection_made(transport)
        if self._said:
            said, self._said = self._said, b""
            try:
                self.data_received(said)
            except Exception:
                transport.abort()
                raise

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._place.lose()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; TLS brings some after the end too.

        A connection has one request: others would come in by a door that nobody looks after.
        """
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and self.cycle.keep_alive:
            self.cycle.keep_alive = False
            self.cycle.scope[PLACE] = self._place  # type: ignore[literal-required]
            self.cycle.scope["headers"] = [*self.cycle.scope["headers"], CLOSE_HEADER]

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP; where an answer was begun before, no other can be given."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()

    def shutdown(self) -> None:
        """The server stops: an answer that is under way is still given."""
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        else:
            self.transport.abort()


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """Cut off where more waits than a device could mean, or where it does not read."""

    def __init__(self, *args: Any, place: Place, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._place = place
        self._control = Bucket(CONTROL_FRAMES_PER_S, self.loop.time())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection was upgraded."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Bytes have come: the head whole at first, which HTTP has read, then what follows."""
        if self.transport.is_closing():
            return
        if not self.handshake_initiated:
            super().data_received(data)
            if not self.handshake_initiated:
                self._refuse()
            return
        if not self.handshake_complete:  # nobody has been asked to say anything yet
            self._cut_off()
            return
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
        if message["type"] == "websocket.accept":
            self._place.accept()
        if self.close_sent:  # a refusal ends the handshake too: uvicorn would log it as an error
            self.handshake_complete = True

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The app has done with the connection."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._place.come_back(self.loop.time() + CLOSE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._place.lose()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: who has been accepted is told."""
        try:
            if self.handshake_complete:
                super().shutdown()
            else:
                self.transport.abort()
        except InvalidState:  # it is closing already
            self.transport.abort()

    def _refuse(self) -> None:
        """The parser wants no head that came through HTTP's: uvicorn would say nothing at all."""
        answer = b"".join(self.conn.data_to_send()) or _REFUSED
        self.transport.write(answer)
        self.transport.close()

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
