"""Attacks below the protocol: connections, heads and handshakes, most of them without a token."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable

from bench.hostile.place import TOKENS, Place

HELD = 5000  # connections that a holding attack wants to have
OPENED = 200_000  # connections of an attack, at most
AT_ONCE = 64  # handshakes of a flood that are under way
REOPEN_S = 0.002  # between two connections made anew by a holding attack

Head = Callable[[Place], bytes]


def upgrade_body(place: Place) -> bytes:
    """An upgrade with a body."""
    return place.upgrade("Content-Length: 5", body="hello")


def upgrade_chunked(place: Place) -> bytes:
    """An upgrade with a chunked body."""
    return place.upgrade("Transfer-Encoding: chunked", body="5\r\nhello\r\n0\r\n\r\n")


def upgrade_headers(place: Place) -> bytes:
    """An upgrade with 130 header lines more."""
    return place.upgrade(*(f"X-{number}: y" for number in range(130)))


def upgrade_line(place: Place) -> bytes:
    """An upgrade with a line of 9 KB."""
    return place.upgrade("X-Long: " + "y" * 9000)


def slow_head(place: Place) -> bytes:
    """The beginning of a request; its end never comes."""
    return b"GET / HTTP/1.1\r\nA: "


def silent(place: Place) -> bytes:
    """Nothing."""
    return b""


def accepted(place: Place) -> bytes:
    """An upgrade that is accepted; no Hello follows."""
    return place.upgrade(token=TOKENS["thief"])


class _Held(asyncio.Protocol):
    """A connection that says ``head``, then a byte now and then where it ``drips``."""

    def __init__(self, head: bytes, lost: Callable[[_Held], None]) -> None:
        self._head, self._lost = head, lost
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._head:
            transport.write(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)


async def hold(place: Place, head: Head, *, drips: bool = False) -> None:
    """Have ``HELD`` connections as soon as can be, and make each anew that is closed."""
    loop = asyncio.get_running_loop()
    open_now: set[_Held] = set()
    said = head(place)

    async def one() -> None:
        try:
            _, held = await loop.create_connection(
                lambda: _Held(said, open_now.discard),
                place.host,
                place.port,
                local_addr=place.source(),
            )
        except OSError:
            place.count("failed")
            return
        if not held.transport.is_closing():
            open_now.add(held)
        place.count("opened")
        place.note("held", len(open_now))

    under_way: set[asyncio.Task[None]] = set()
    try:
        for number in range(OPENED):
            while len(open_now) + len(under_way) >= HELD or len(under_way) >= 4 * AT_ONCE:
                await asyncio.sleep(0.01)
                if drips:
                    for held in list(open_now)[::20]:
                        held.transport.write(b"x")
            task = asyncio.create_task(one())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            # The first ones come as fast as they can.
            await asyncio.sleep(0 if number < HELD else REOPEN_S)
    finally:
        for task in list(under_way):
            task.cancel()
        for held in list(open_now):
            held.transport.abort()


async def strangers(place: Place) -> None:
    """Half a head, one connection after the other."""
    while True:
        try:
            _, writer = await asyncio.open_connection(
                place.host, place.port, local_addr=place.source()
            )
            place.count("opened")
            writer.write(b"GET / HTTP/1.1\r\nA: ")
        except OSError:
            place.count("failed")
        await asyncio.sleep(0.01)


async def connects(place: Place) -> None:
    """Connect and hang up, as fast as can be."""
    now = struct.pack("ii", 1, 0)  # hung up by a reset: ports are free again at once
    flying: deque[socket.socket] = deque()
    try:
        for number in range(OPENED * 10):
            if number % 16 == 0:
                await asyncio.sleep(0)
            made = socket.socket()
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            flying.append(made)
            try:
                made.bind(place.source())
                made.connect_ex((place.host, place.port))
                place.count("opened")
            except OSError:
                place.count("failed")
            if len(flying) >= AT_ONCE:
                flying.popleft().close()
    finally:
        for made in flying:
            made.close()


async def floods(place: Place, said: bytes) -> None:
    """``AT_ONCE`` connections that say ``said``, get an answer and hang up, again and again."""

    async def again() -> None:
        for _ in range(OPENED // AT_ONCE):
            try:
                reader, writer = await asyncio.open_connection(
                    place.host, place.port, local_addr=place.source()
                )
                writer.write(said)
                async with asyncio.timeout(5.0):
                    await reader.read(1024)
                place.count("opened")
                writer.transport.abort()
            except (OSError, TimeoutError):
                place.count("failed")
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(again())


async def wrong(place: Place) -> None:
    """Upgrades with a token that nobody has, one after the other."""
    said = place.upgrade(token="nobody-s-token-at-all")
    while True:
        try:
            reader, writer = await asyncio.open_connection(
                place.host, place.port, local_addr=place.source()
            )
            writer.write(said)
            await reader.read(1024)
            place.count("opened")
            writer.transport.abort()
        except OSError:
            place.count("failed")
        await asyncio.sleep(0.01)
