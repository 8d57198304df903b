"""Where connections wait to be opened, as bare sockets: few get as far, and those take turns.

A connection that says nothing, or what can be no request, ends here, at a twentieth of what a
transport and its parsers would cost. The others are opened one after the other. A token that was
let in when it came last goes first; then whose address, and of one address whose claimed token, was
served longest ago. So whoever opens thousands is behind whoever opens one, wherever the two come
from, and a device that comes back is behind neither. Behind TLS neither head nor token is seen
here: a handshake's first byte is enough, and it is the address that was let in.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from bs_runtime.serving import heads
from bs_runtime.serving.pending import Place

READ_BYTES = heads.MOST_BYTES + 1
HANDSHAKE = 0x16  # of TLS: the first byte of its first record
REMEMBERED = 4096  # addresses and claims, that were served lately or let in


@dataclass(eq=False)
class Caller:
    """A connection that is not open yet. ``data`` is what it has said."""

    socket: socket.socket
    place: Place
    data: bytes = b""
    claim: bytes = b""  # a hash of the token that it says it has
    known: bool = False  # it was let in when it came last
    watched: bool = False  # what it says next is waited for

    @cached_property
    def keys(self) -> tuple[tuple[str, bytes | None], ...]:
        """Whose turns are counted: its address's, and there its claim's."""
        return (self.place.network, None), (self.place.network, self.claim)

    @property
    def name(self) -> bytes | str:
        """By whom it is known again: by its token, wherever it comes from; else by its address."""
        return self.claim or self.place.network


class Order:
    """Who is next. No I/O, no clock."""

    def __init__(self) -> None:
        self._callers: dict[Caller, None] = {}  # who came first is first
        self._served: OrderedDict[tuple[str, bytes | None], int] = OrderedDict()
        self._known: OrderedDict[bytes | str, None] = OrderedDict()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._callers)

    def __contains__(self, caller: Caller) -> bool:
        return caller in self._callers

    def add(self, caller: Caller) -> None:
        """One more waits."""
        self._callers[caller] = None

    def drop(self, caller: Caller) -> None:
        """It does not wait any more, if it did."""
        self._callers.pop(caller, None)

    def knows_one(self) -> bool:
        """Whether one waits that is known."""
        return any(caller.name in self._known for caller in self._callers)

    def take(self) -> Caller:
        """Who is known, or else was served longest ago, or never; of those who came first."""
        served, known = self._served.get, self._known
        caller = min(
            self._callers,
            key=lambda one: (one.name not in known, *(served(key, 0) for key in one.keys)),
        )
        del self._callers[caller]
        caller.known = caller.name in known
        known.pop(caller.name, None)  # until it is let in again
        self._turn += 1
        for key in caller.keys:
            self._served[key] = self._turn
            self._served.move_to_end(key)
        while len(self._served) > REMEMBERED:
            self._served.popitem(last=False)
        return caller

    def let_in(self, caller: Caller) -> None:
        """It was served, and was no stranger."""
        self._known[caller.name] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


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
        self._hear(caller)  # a watch on a socket costs more than all else here
        if caller in self._inside and caller not in self._order:
            try:
                self._loop.add_reader(connection, self._hear, caller)
                caller.watched = True
            except OSError:  # the kernel has no memory for it
                self._leave(caller)

    async def next(self, strangers_s: float = -math.inf) -> Caller:
        """Who is to be opened; it has left the lobby.

        ``strangers_s``: when, by the loop's clock, one may be that is not known.
        """
        order, time_s = self._order, self._loop.time
        while not (len(order) and (time_s() >= strangers_s or order.knows_one())):
            self._came.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(strangers_s if len(order) else None):
                    await self._came.wait()
        caller = order.take()
        self._inside.discard(caller)
        caller.place.accepted = lambda: order.let_in(caller)
        return caller

    def close(self) -> None:
        """All leave."""
        for caller in list(self._inside):
            self._leave(caller)

    def _hear(self, caller: Caller) -> None:
        try:
            if self._tls:
                data = caller.socket.recv(1, socket.MSG_PEEK)
            else:
                data = caller.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data or (self._tls and data[0] != HANDSHAKE):
            self._leave(caller)
            return
        if not self._tls:
            before = len(caller.data)
            caller.data += data
            end = heads.end(caller.data, before)
            if (fault := heads.fault(caller.data, end)) is not None:
                self._refuse(caller, heads.answer(*fault))
                return
            if end is None:
                return
            caller.claim = heads.claim(caller.data[:end])
        self._unwatch(caller)
        self._order.add(caller)
        self._came.set()

    def _refuse(self, caller: Caller, answer: bytes) -> None:
        with suppress(OSError):  # it is told if it listens
            caller.socket.send(answer)
            caller.socket.shutdown(socket.SHUT_WR)
        self._leave(caller)

    def _unwatch(self, caller: Caller) -> None:
        if caller.watched:
            caller.watched = False
            self._loop.remove_reader(caller.socket)

    def _leave(self, caller: Caller) -> None:
        self._unwatch(caller)
        self._order.drop(caller)
        self._inside.discard(caller)
        caller.place.lose()
        caller.socket.close()
