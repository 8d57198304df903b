"""What a listening socket gives to the connections that it accepts."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from bs_runtime.listener import listen


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
