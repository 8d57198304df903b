"""Idle connections: a conversation that has ended leaves its connection to the next one.

A new connection takes several round trips (TCP, TLS, WebSocket, the greeting) before the first
token; one that was greeted takes none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from device_runtime.transport.client import Client

MOST = 4  # idle connections: each is a place that the base station could give somebody else
IDLE_S = 60.0  # after which one is closed


class Pool:
    """A device's connections that no conversation uses. Used from the event loop alone."""

    def __init__(
        self, connection: Callable[[], Client], *, most: int = MOST, idle_s: float = IDLE_S
    ) -> None:
        """``connection`` makes one that is not open yet."""
        self._connection = connection
        self._most, self._idle_s = most, idle_s
        self._idle: dict[Client, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._idle)

    async def take(self, history: Sequence[int]) -> tuple[Client, float | None]:
        """An open connection for a conversation of ``history``, the one that was used last.

        Beside it the seconds that its greeting took, None where it had been greeted. Raises
        LinkError.
        """
        while self._idle:
            client, timer = self._idle.popitem()
            timer.cancel()
            if client.rests:
                client.serve(history)
                return client, None
            await client.close()
        client = self._connection()
        client.serve(history)
        await client.open()
        return client, client.rtt_s

    async def put(self, client: Client) -> None:
        """A conversation needs its connection no more: keep it, or close it."""
        if not client.rests or len(self._idle) >= self._most:
            await client.close()
            return
        client.serve(())
        loop = asyncio.get_running_loop()
        self._idle[client] = loop.call_later(self._idle_s, self._expire, client)

    def _expire(self, client: Client) -> None:
        del self._idle[client]
        closing = asyncio.get_running_loop().create_task(client.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close those that are idle; from now on none is kept."""
        self._most = 0
        while self._idle:
            client, timer = self._idle.popitem()
            timer.cancel()
            await client.close()
        await asyncio.gather(*self._closing)
