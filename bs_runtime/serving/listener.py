"""Takes connections off a listening socket, and counts them from their first packet on.

asyncio's own servers hide a connection until its TLS handshake is done, log every ``accept`` that
finds no descriptor, and refuse the newest where there is no room.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import select
import socket
import ssl
from collections.abc import Callable
from functools import partial

from bs_runtime.serving import guard
from bs_runtime.serving.lobby import Caller, Lobby
from bs_runtime.serving.pending import Pending, Place
from draftlink.host import ports

log = logging.getLogger("draftlink.bs")

BATCH = 8  # accepted between two looks at everything else, some 0.1 ms each
# While devices are served, strangers have a share of the event loop that is hardly felt.
ACCEPT_S = 0.0005  # for each that is accepted
LATE_S = 0.01  # of accepting that may be made up for
KNOWN_S = 0.005  # for each that is opened, and takes some 2 ms of that
OPEN_S = 0.03  # for each that is opened and was not let in before
BACK_OFF_S = 0.1  # where there is no descriptor
TICK_S = 0.1
BACKLOG = 4096  # a newcomer behind a full one would try again after a whole second
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises PortError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends what is small at once on what is accepted. Otherwise a
    # frame behind another would wait for its acknowledgement, which may take 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise ports.refused(host, port, error) from None
    return bound


class Listener:
    """Listens on ``bound`` from its making on, within the running loop.

    ``protocol`` makes the protocol of a connection that has a place among ``pending``, and has said
    some bytes. ``busy``: whether devices are served. What uvicorn asks of a server is here:
    ``sockets``, ``close`` and ``wait_closed``.
    """

    def __init__(
        self,
        bound: socket.socket,
        protocol: Callable[[Place, bytes], guard.GuardedHttp],
        pending: Pending,
        busy: Callable[[], bool],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        bound.setblocking(False)
        self.sockets = [bound]
        self._protocol = protocol
        self._pending = pending
        self._busy = busy
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._lobby = Lobby(tls=tls is not None)
        self._told_s = -1.0  # that there is no descriptor
        self._openings: set[asyncio.Task[object]] = set()
        works = (self._accept, self._open_all, self._expire)
        self._tasks = [self._loop.create_task(work()) for work in works]
        for task in self._tasks:
            task.add_done_callback(_tell)

    def close(self) -> None:
        """Take no more connections; those that are not open yet end."""
        for task in (*self._tasks, *self._openings):
            task.cancel()
        self._lobby.close()

    async def wait_closed(self) -> None:
        """Wait until ``close`` has been done; who calls from then on is refused, and not held."""
        await asyncio.gather(*self._tasks, *self._openings, return_exceptions=True)
        for listening in self.sockets:
            listening.close()

    async def _accept(self) -> None:
        free_s = 0.0  # when the next batch may be accepted
        while True:
            for _ in range(BATCH):
                try:
                    connection, address = await self._loop.sock_accept(self.sockets[0])
                except ConnectionAbortedError:
                    continue  # it was gone before it was accepted
                except OSError as error:
                    await self._back_off(error)
                    break
                until = self._loop.time() + guard.PENDING_S
                self._lobby.enter(connection, self._pending.take(address[0], until))
            now = self._loop.time()
            free_s = max(free_s, now - LATE_S) + BATCH * ACCEPT_S
            # Accepting does not wait while there is something to accept.
            await asyncio.sleep(max(0.0, free_s - now) if self._busy() else 0)

    async def _open_all(self) -> None:
        strangers_s = -math.inf  # when the next may be opened
        while True:
            caller = await self._lobby.next(strangers_s)
            self._open(caller)
            busy = self._busy()
            if not caller.known:
                strangers_s = self._loop.time() + (OPEN_S if busy else 0.0)
            await asyncio.sleep(KNOWN_S if busy else 0)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._pending.expire(self._loop.time())

    async def _back_off(self, error: OSError) -> None:
        """Make room for who waits to be accepted, and try again a little later."""
        # Linux wants a descriptor before it looks whether there is anybody to accept.
        if select.select(self.sockets, (), (), 0)[0]:
            cut = self._pending.cut(BATCH) if error.errno in _EXHAUSTED else 0
            now = self._loop.time()
            if now >= self._told_s + 1:
                self._told_s = now
                values = {"values": {"cut": cut}}
                log.error("no connection can be accepted: %s", error.strerror, extra=values)
        await asyncio.sleep(BACK_OFF_S)

    def _open(self, caller: Caller) -> None:
        connection, place = caller.socket, caller.place
        protocol: guard.GuardedHttp | None = None

        def make() -> guard.GuardedHttp:
            nonlocal protocol
            said, caller.data = caller.data, b""
            protocol = self._protocol(place, said)
            return protocol

        def end() -> None:
            opening.cancel()
            _cut(connection, protocol)

        def opened(task: asyncio.Task[object]) -> None:
            self._openings.discard(task)
            # Nothing here may keep the task, whose result or error keeps all of the connection.
            if place.end is end:  # it is not over already
                place.end = partial(_cut, connection, protocol)
            if task.cancelled() or task.exception() is not None:
                place.lose()
            if protocol is None:  # else it is its transport's
                connection.close()

        place.end = end
        opening: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(
                make,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else guard.PENDING_S,
                ssl_shutdown_timeout=None if self._tls is None else guard.CLOSE_S,
            )
        )
        opening.add_done_callback(opened)
        self._openings.add(opening)


def _cut(connection: socket.socket, protocol: guard.GuardedHttp | None) -> None:
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abort()
    # TLS that was closed twice cannot be aborted any more; its socket can be.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("no connections are taken any more", exc_info=error)
