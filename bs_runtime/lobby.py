"""Where connections wait to be opened, as bare sockets: few get as far, and those take turns.

A connection that says nothing, or what can be no request, ends here, at a twentieth of what a
transport and its parsers would cost. The others are opened one after the other: whose address, and
of one address whose claimed token, was served longest ago comes first. So whoever opens thousands
is behind whoever opens one, wherever the two come from.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

from bs_runtime import heads
from bs_runtime.pending import Place

READ_BYTES = 1 << 16
HANDSHAKE = 0x16  # of TLS: the first byte of its first record
REMEMBERED = 4096  # addresses and claims that were served lately


@dataclass(eq=False)
class Caller:
    """A connection that is not open yet. ``data`` is what it has said."""

    socket: socket.socket
    place: Place
    data: bytes = b""
    claim: bytes = field(default=b"")  # a token that it says it has


class Order:
    """Who is next. No I/O, no clock."""

    def __init__(self) -> None:
        self._callers: dict[Caller, None] = {}  # who came first is first
        self._served: OrderedDict[tuple[str, bytes | None], int] = OrderedDict()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._callers)

    def add(self, caller: Caller) -> None:
        """One more waits."""
        self._callers[caller] = None

    def drop(self, caller: Caller) -> None:
        """It does not wait any more, if it did."""
        self._callers.pop(caller, None)

    def take(self) -> Caller:
        """Who was served longest ago, or never, and of those who came first."""
        caller = min(self._callers, key=self._last)
        del self._callers[caller]
        self._turn += 1
        for key in self._keys(caller):
            self._served[key] = self._turn
            self._served.move_to_end(key)
        while len(self._served) > REMEMBERED:
            self._served.popitem(last=False)
        return caller

    def _last(self, caller: Caller) -> tuple[int, ...]:
        return tuple(self._served.get(key, 0) for key in self._keys(caller))

    @staticmethod
    def _keys(caller: Caller) -> tuple[tuple[str, bytes | None], ...]:
        network = caller.place.network
        return (network, None), (network, caller.claim)


class Lobby:
    """Hears what comes from bare sockets, on the running loop.

    ``tls``: the handshake comes first, of which a byte is enough; else a head is heard whole.
    """

    def __init__(self, *, tls: bool) -> None:
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._order = Order()
        self._came = asyncio.Event()
        self._inside: set[Caller] = set()

    def enter(self, connection: socket.socket, place: Place) -> None:
        """A connection was accepted."""
        caller = Caller(connection, place)
        place.end = lambda: self._leave(caller)
        self._inside.add(caller)
        self._loop.add_reader(connection, self._hear, caller)

    async def next(self) -> Caller:
        """Who is to be opened; it has left the lobby."""
        while not len(self._order):
            self._came.clear()
            await self._came.wait()
        caller = self._order.take()
        self._inside.discard(caller)
        return caller

    def close(self) -> None:
        """All leave."""
        for caller in list(self._inside):
            self._leave(caller)

    def _hear(self, caller: Caller) -> None:
        try:
            data = caller.socket.recv(READ_BYTES, socket.MSG_PEEK if self._tls else 0)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data or (self._tls and data[0] != HANDSHAKE):
            self._leave(caller)
            return
        if not self._tls:
            caller.data += data
            if (fault := heads.fault(caller.data)) is not None:
                self._refuse(caller, heads.answer(*fault))
                return
            if not heads.complete(caller.data):
                return
            caller.claim = heads.claim(caller.data)
        self._loop.remove_reader(caller.socket)
        self._order.add(caller)
        self._came.set()

    def _refuse(self, caller: Caller, answer: bytes) -> None:
        with suppress(OSError):  # it is told if it listens
            caller.socket.send(answer)
            caller.socket.shutdown(socket.SHUT_WR)
        self._leave(caller)

    def _leave(self, caller: Caller) -> None:
        self._loop.remove_reader(caller.socket)
        self._order.drop(caller)
        self._inside.discard(caller)
        caller.place.leave()
        caller.socket.close()
