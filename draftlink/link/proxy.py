"""A TCP proxy that behaves like a modelled link: the sockets and the clock around ``shaping``."""

from __future__ import annotations

import asyncio
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from draftlink.host import ports
from draftlink.link.shaping import Flow, Link, Shaper

READ_BYTES = 1 << 16
# Bytes of one direction of a connection that may wait to be sent, and that may wait for a slow
# reader. Beyond either the proxy stops reading and TCP holds the writer back. What is between the
# two, in flight, is bounded by rate and delay.
QUEUE_BYTES = 1 << 18


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are good to some 0.1 ms.

    epoll, the default, rounds its timeouts up to whole milliseconds: half a millisecond late on
    average in each direction.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class Proxy:
    """Listens, and carries each connection to ``to`` and back over ``link``.

    ``async with Proxy(...) as proxy`` listens on ``proxy.port``; leaving closes every connection.
    All connections share the link, as those of one device share its radio. The link comes up when
    the proxy starts: outages and traces count from then.
    """

    def __init__(
        self,
        link: Link,
        listen: tuple[str, int],
        to: tuple[str, int],
        problems: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.problems = problems  # gets a line where a connection cannot be carried on
        self._link = link
        self._listen = listen
        self._to = to
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._started_s = 0.0
        self.port = listen[1]  # once listening, the port that 0 stood for
        self.connections = 0  # so far
        self.uplink_bytes = 0  # delivered, of the connections that have ended
        self.downlink_bytes = 0

    async def __aenter__(self) -> Proxy:
        """Raises PortError where the address cannot be listened on."""
        self._started_s = time.monotonic()
        try:
            self._server = await asyncio.start_server(self._accept, *self._listen)
        except OSError as error:
            raise ports.refused(*self._listen, error, "--listen HOST:PORT") from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _now(self) -> float:
        return time.monotonic() - self._started_s

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._carry(reader, writer)
        except asyncio.CancelledError:
            pass  # the proxy closes; start_server's own callback would report it as an error
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError as error:
            self.problems(f"cannot connect to {self._to[0]}:{self._to[1]}: {error}")
            _reset(writer)
            return
        up = _Carrier(self._now, self._link.up, reader, far_writer)
        down = _Carrier(self._now, self._link.down, far_reader, writer)
        try:
            async with asyncio.TaskGroup() as group:
                for carrier in (up, down):
                    group.create_task(carrier.fill())
                    group.create_task(carrier.drain())
        except* OSError:
            # One side broke its connection: the other has to see a broken one too, not an end.
            _reset(writer)
            _reset(far_writer)
        finally:
            far_writer.close()
            self.uplink_bytes += up.delivered
            self.downlink_bytes += down.delivered


@dataclass(frozen=True)
class Totals:
    """What a proxy has carried."""

    connections: int
    uplink_bytes: int
    downlink_bytes: int


def serve(
    link: Link,
    listen: tuple[str, int],
    to: tuple[str, int],
    ready: Callable[[int], None],
    problems: Callable[[str], None],
) -> Totals:
    """Carry connections until interrupted or terminated. Raises OSError where it cannot listen.

    ``ready`` gets the port, ``problems`` a line for each connection that could not be carried on.
    """

    async def main() -> Totals:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with Proxy(link, listen, to, problems) as proxy:
            ready(proxy.port)
            await stop.wait()
        return Totals(proxy.connections, proxy.uplink_bytes, proxy.downlink_bytes)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, which ``abort`` alone is not unless bytes were left unread."""
    bound = writer.get_extra_info("socket")
    if bound.fileno() >= 0:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Carrier:
    """One direction of one connection."""

    def __init__(
        self,
        now: Callable[[], float],
        shaper: Shaper,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._now = now
        self._flow = Flow(shaper)
        self._reader, self._writer = reader, writer
        self._filled, self._drained = asyncio.Event(), asyncio.Event()
        self._broken = False
        self.delivered = 0

    async def fill(self) -> None:
        """Read into the flow until the source ends or breaks."""
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError:
                data, self._broken = b"", True
            if not data:
                self._flow.write_eof(self._now())
                self._filled.set()
                return
            self._flow.write(data, self._now())
            self._filled.set()
            now = self._now()
            await asyncio.sleep(self._flow.room_s(QUEUE_BYTES, now) - now)
            while self._flow.unread(self._now()) > QUEUE_BYTES:
                self._drained.clear()
                await self._drained.wait()

    async def drain(self) -> None:
        """Write what arrives, to the end. Raises OSError where that was not a clean end."""
        while True:
            at = self._flow.next_s
            if at is None:
                self._filled.clear()
                await self._filled.wait()
                continue
            if (wait := at - self._now()) > 0:  # nothing written meanwhile can come before it
                await asyncio.sleep(wait)
            data, ended = self._flow.read(self._now())
            self._writer.write(data)
            await self._writer.drain()
            self.delivered += len(data)
            self._drained.set()
            if ended:
                if self._broken:
                    raise ConnectionResetError
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                return
