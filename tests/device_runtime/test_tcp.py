"""Whether a base station's address is this machine's, by the connection."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from device_runtime.transport.tcp import stays_here
from draftlink.host.address import reached_at


class Transport:
    """One that knows its ends, or does not."""

    def __init__(self, here: object, there: object) -> None:
        self._ends = {"sockname": here, "peername": there}

    def get_extra_info(self, name: str) -> object:
        return self._ends[name]


class Socket:
    def __init__(self, here: object, there: object) -> None:
        self.transport = Transport(here, there)


@pytest.mark.parametrize(
    ("url", "websocket", "here"),
    [
        ("ws://localhost:1", None, True),
        ("ws://127.0.0.1:1", object(), True),
        ("ws://[::1]:1", None, True),
        ("ws://box:1", None, False),
        ("ws://box:1", object(), False),  # no TCP of which anything is known
        ("ws://box:1", Socket(("10.0.0.7", 4), ("10.0.0.7", 1)), True),
        ("ws://box:1", Socket(("fe80::7", 4, 0, 2), ("fe80::7", 1, 0, 2)), True),
        ("ws://box:1", Socket(("10.0.0.7", 1), ("10.0.0.8", 1)), False),
        ("ws://box:1", Socket(None, None), False),  # closed
    ],
)
def test_an_address_is_here_if_both_ends_have_it(url, websocket, here):
    assert stays_here(websocket, url) is here


def test_a_machines_own_address_is_here():
    """It is the one that a base station which listens on all of them tells people."""
    own = reached_at("0.0.0.0")
    try:
        if ipaddress.ip_address(own).is_loopback:
            pytest.skip("this machine has no address but loopback")
    except ValueError:
        pytest.skip("this machine has no network")

    async def look() -> bool:
        async with serve(lambda _: asyncio.sleep(0), own, 0) as server:
            url = f"ws://{own}:{server.sockets[0].getsockname()[1]}"
            async with connect(url) as websocket:
                return stays_here(websocket, url)

    assert asyncio.run(look())
