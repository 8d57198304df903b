"""How people write addresses, and what is said where one cannot be had."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from bs_runtime.serving import listener
from device_runtime.serve import server
from device_runtime.transport.connecting import LinkError, Lost, connector, reach
from draftlink.host import ports
from draftlink.host.address import reached_at, websocket
from draftlink.link import proxy, shaping


@pytest.mark.parametrize(
    ("stated", "understood"),
    [
        ("ws://a:1", "ws://a:1"),
        ("wss://a", "wss://a"),
        ("http://a:1/", "ws://a:1/"),
        ("HTTPS://a/x", "wss://a/x"),
        ("a:8765", "ws://a:8765"),
        ("192.0.2.1:8765", "ws://192.0.2.1:8765"),
        ("[::1]:8765", "ws://[::1]:8765"),
        # Left for the words of whoever opens it.
        ("a", "a"),
        ("::1:8765", "::1:8765"),
        ("user@a:8765", "user@a:8765"),
        ("ftp://a:1", "ftp://a:1"),
        ("a:b", "a:b"),
        ("a:²", "a:²"),
        ("", ""),
    ],
)
def test_what_a_person_may_call_a_base_station(stated, understood):
    assert websocket(stated) == understood
    assert websocket(understood) == understood


def test_a_device_takes_the_browsers_address(station):
    """The same place, whichever way it is written."""
    plain = station.removeprefix("ws://")

    async def reached(url: str) -> bool:
        socket = await connector()(url)
        await socket.close()
        return True

    for url in (station, plain, f"http://{plain}/"):
        assert asyncio.run(reached(url))


def test_what_is_no_address_is_explained():
    for wrong in ("nonsense", "ftp://a:1", "ws://a:x", "::1:8765"):
        with pytest.raises(LinkError, match=r"such as ws://host:8765, or wss://host:8765 with TLS"):
            asyncio.run(connector()(wrong))


def test_tls_where_there_is_none_is_explained(station):
    url = station.replace("ws://", "wss://")
    with pytest.raises(LinkError, match="speaks no TLS: give the address as ws://"):
        asyncio.run(reach(connector(), url))


def test_no_tls_where_there_is_some_is_explained():
    """A server of TLS answers what is none by closing."""

    async def attempt() -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"\x15\x03\x03\x00\x02\x02\x46")
            writer.close()

        tls = await asyncio.start_server(close, "127.0.0.1", 0)
        async with tls:
            port = tls.sockets[0].getsockname()[1]
            await reach(connector(), f"ws://127.0.0.1:{port}")

    with pytest.raises(Lost, match="if the base station has TLS, its address is wss://"):
        asyncio.run(attempt())


def carry(host: str, port: int) -> None:
    async def run() -> None:
        async with proxy.Proxy(shaping.profile("lte"), (host, port), ("127.0.0.1", 9)):
            pass

    asyncio.run(run())


LISTENERS = {"bs": listener.listen, "serve": server.listen, "link": carry}


@pytest.mark.parametrize("name", LISTENERS)
def test_a_port_that_is_taken_says_by_whom(name):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(ports.PortError) as told:
            LISTENERS[name]("127.0.0.1", port)
    words = str(told.value)
    assert f"port {port} of 127.0.0.1 is taken by " in words and f"(process {os.getpid()})" in words
    assert words.endswith("choose another --listen HOST:PORT, or 0" if name == "link" else ", or 0")


@pytest.mark.parametrize("name", LISTENERS)
def test_an_address_of_another_machine_is_named(name):
    with pytest.raises(ports.PortError, match=r"^192\.0\.2\.1 is no address of this machine"):
        LISTENERS[name]("192.0.2.1", 0)


def test_nobody_holds_a_free_port():
    with socket.socket() as bound:  # which does not listen
        bound.bind(("127.0.0.1", 0))
        assert ports.holder(bound.getsockname()[1]) is None


def test_the_commands_say_it_in_one_line():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        command = [sys.executable, "-m", "draftlink.cli", "bs", "tinypair", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: port {port} of 127.0.0.1 is taken by ")


def test_where_others_reach_a_listener():
    assert reached_at("127.0.0.1") == "127.0.0.1" and reached_at("::1") == "[::1]"
    assert reached_at("0.0.0.0") not in ("0.0.0.0", "")
