"""A connection over a modelled link, without sockets: both ends' transports.

A message leaves in packets of its own under TLS (``draftlink.link.ledger`` has the estimate);
packets pass the link's ``Shaper`` and arrive in order, as over TCP. Back-pressure is not modelled.
"""

from __future__ import annotations

import asyncio
from collections import deque

from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from draftlink.link.ledger import PACKET_BYTES, SEGMENT_BYTES, packet_bytes, websocket_bytes
from draftlink.link.shaping import Link, Shaper


class _Direction:
    """Messages one way."""

    def __init__(self, shaper: Shaper, *, masked: bool) -> None:
        self._shaper = shaper
        self._masked = masked
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._last_s = 0.0
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        left = packet_bytes(websocket_bytes(len(data), masked=self._masked))
        while left > 0:
            size = min(left, SEGMENT_BYTES + PACKET_BYTES)
            _, arrives = self._shaper.transmit(size, loop.time())
            self._last_s = max(self._last_s, arrives)
            left -= size
        self._under_way.append((self._last_s, data))
        loop.call_at(self._last_s, self._arrive)

    def _arrive(self) -> None:
        if self._under_way:  # else the connection was lost
            self._arrived.put_nowait(self._under_way.popleft()[1])

    def end(self, *, lose: bool) -> None:
        """Nothing is written any more; with ``lose`` nothing arrives any more either."""
        if lose:
            self._under_way.clear()
            self._arrived.put_nowait(None)
        else:
            delay_s = max(self._last_s - asyncio.get_running_loop().time(), 0.0)
            asyncio.get_running_loop().call_later(delay_s, self._arrived.put_nowait, None)

    async def read(self) -> bytes | None:
        """The next message; None at the end, again and again."""
        data = await self._arrived.get()
        if data is None:
            self._arrived.put_nowait(None)
        return data


class Wire:
    """One connection. The device's end has the methods of a WebSocket client."""

    def __init__(self, link: Link) -> None:
        self._up = _Direction(link.up, masked=True)
        self._down = _Direction(link.down, masked=False)
        self._closed = False
        self.lost = False

    def lose(self) -> None:
        """The connection breaks, and what is under way is lost."""
        self._closed = self.lost = True
        self._up.end(lose=True)
        self._down.end(lose=True)

    # The device's end.

    async def send(self, data: bytes) -> None:
        """Send a message. Raises ConnectionClosed."""
        if self._closed:
            raise self._error()
        self._up.write(data)

    async def recv(self) -> bytes:
        """The next message. Raises ConnectionClosed."""
        data = await self._down.read()
        if data is None:
            self._closed = True
            raise self._error()
        return data

    async def close(self) -> None:
        """No more messages from this end."""
        if not self._closed:
            self._closed = True
            self._up.end(lose=False)

    def _error(self) -> ConnectionClosedError | ConnectionClosedOK:
        return ConnectionClosedError(None, None) if self.lost else ConnectionClosedOK(None, None)

    # The base station's end.

    async def receive(self) -> bytes | None:
        """The next message, None at the end."""
        return await self._up.read()

    async def answer(self, data: bytes) -> None:
        """Send a message. Raises ConnectionResetError."""
        if self.lost:
            raise ConnectionResetError("the device has gone")
        self._down.write(data)

    def hang_up(self) -> None:
        """The base station has closed the connection."""
        self._down.end(lose=False)
