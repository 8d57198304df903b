"""What a listening socket gives to the connections that it accepts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from bench.virtual.loop import run as run_virtually
from bs_runtime.serving.listener import KNOWN_S, OPEN_S, Listener, listen
from bs_runtime.serving.lobby import Caller, Lobby
from bs_runtime.serving.pending import Pending
from tests.fake_models import random_logits
from tests.fakes import FakeTarget, serving


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_small_frame_does_not_wait_for_the_one_before(host):
    """Streamed tokens would come in bursts, 40 ms apart."""

    async def run(bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        bound.setblocking(False)
        with socket.create_connection(bound.getsockname()[:2]):
            connection, _ = await loop.sock_accept(bound)
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, connection)
            accepted = transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            transport.abort()

    try:
        bound = listen(host, 0)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with contextlib.closing(bound):
        asyncio.run(run(bound))


@pytest.mark.parametrize(("known", "pause_s"), [(False, OPEN_S), (True, KNOWN_S)])
@pytest.mark.parametrize("busy", [True, False])
def test_connections_are_opened_at_a_pace_while_devices_are_served(busy, known, pause_s):
    """Opening one takes the event loop a millisecond or two, which their steps would wait for."""

    async def main() -> None:
        opened: list[Caller] = []
        listener: Any = Listener.__new__(Listener)
        listener._loop, listener._lobby = asyncio.get_running_loop(), Lobby(tls=False)
        listener._busy, listener._open = lambda: busy, opened.append
        order = listener._lobby._order
        for number in range(1000):
            one = Caller(None, Pending(1).take(f"10.0.{number // 256}.{number % 256}", 0.0))  # type: ignore[arg-type]
            order.add(one)
            if known:
                order.let_in(one)
        opening = asyncio.create_task(listener._open_all())
        await asyncio.sleep(1.0)
        opening.cancel()
        # A task that has not been paused would have opened all.
        assert len(opened) == (pytest.approx(1.0 / pause_s, abs=2) if busy else 1000)

    run_virtually(main())


def test_who_calls_one_that_has_stopped_is_refused():
    """And does not wait for a word of nobody's."""
    with serving(FakeTarget(random_logits(1, 20))) as (url, _):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        socket.create_connection(address, 5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
