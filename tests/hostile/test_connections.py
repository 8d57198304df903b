"""Connections that never become a device's, of every kind, over real sockets and a real server.

Each ends when its time is up or others need its place; a newcomer and a probe are always served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import ssl
from collections.abc import Iterator

import pytest

from bs_runtime.operations import limits
from bs_runtime.serving import guard
from bs_runtime.serving.server import Server, tls_context
from bs_runtime.serving.station import Station
from device_runtime.transport.connecting import connector
from tests.fakes import FakeTarget, serving
from tests.hostile.peers import TABLE, TOKENS, phone, text, tokens_of
from tests.test_graceful_stop import options, station

HEAD = (
    b"GET /v1/draft HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)
# What HTTP's parser takes and WebSocket's does not: answered, and closed at once.
REFUSED = {
    "body": HEAD + b"Content-Length: 5\r\n\r\n",
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "130 headers": HEAD + b"".join(b"X-%d: y\r\n" % i for i in range(130)) + b"\r\n",
    "a long line": HEAD + b"X: " + b"y" * 9000 + b"\r\n\r\n",
    "no key": HEAD.replace(b"Sec-WebSocket-Key", b"X-Key") + b"\r\n",
    "no token": HEAD + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
}
# What could still become a request.
HELD = {
    "silent": b"",
    "slow": HEAD,
    "slow body": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
}
PLACES = 8


@pytest.fixture
def authority(certificate) -> tuple[ssl.SSLContext, object]:
    """The server's side of TLS, and the file of who signed it."""
    chain, key, signer = certificate
    return tls_context(chain, key), signer


@contextlib.contextmanager
def base(caplog, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, int, Server]]:
    """A server; it must stop in the middle of whatever is done to it, without a word in the log."""
    with serving(FakeTarget(TABLE), tls=tls, tokens=tokens_of()) as (url, server):
        yield url, int(url.rsplit(":", 1)[1]), server
    assert not caplog.records


async def opened(port: int, data: bytes = b"", source: str = "127.0.0.1", **tls):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, local_addr=(source, 0), limit=1 << 20, **tls
    )
    writer.write(data)
    return reader, writer


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end, which has to come."""
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def answered(port: int, source: str = "127.0.0.1") -> bool:
    """A probe."""
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reader, writer = await opened(port, ask, source)
    answer = await rest(reader)
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")


async def none_left(server: Server) -> None:
    for _ in range(4000):
        if not server.server_state.connections and not len(server.pending):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{server.server_state.connections} are left")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_answered_and_closed(kind, caplog):
    async def run(port: int, server: Server) -> None:
        for _ in range(20):
            reader, writer = await opened(port, REFUSED[kind])
            assert (await rest(reader)).startswith(b"HTTP/1.1 4")
            writer.close()
        await none_left(server)

    with serving(FakeTarget(TABLE), tokens=tokens_of()) as (url, server):
        asyncio.run(run(int(url.rsplit(":", 1)[1]), server))
    assert not [one for one in caplog.records if one.exc_info or one.levelname == "ERROR"]


@pytest.mark.parametrize("kind", [*HELD, "TLS silent", "TLS begun", "TLS and silent"])
def test_its_time_is_up(kind, authority, caplog, monkeypatch):
    monkeypatch.setattr(guard, "PENDING_S", 0.3)
    tls, signer = authority if kind.startswith("TLS") else (None, None)

    async def run(port: int, server: Server) -> None:
        given = {"ssl": ssl.create_default_context(cafile=signer)} if "and" in kind else {}
        first = b"\x16\x03\x01\x02\x00" if kind == "TLS begun" else HELD.get(kind, b"")
        reader, writer = await opened(port, first, **given)
        await rest(reader)
        writer.close()
        await none_left(server)

    with base(caplog, tls) as (_, port, server):
        asyncio.run(run(port, server))


@pytest.mark.parametrize("kind", [*HELD, "TLS silent", "TLS begun"])
def test_more_than_there_are_places(kind, authority, caplog, monkeypatch):
    """The newest is served, from the strangers' own address too, and no more than the places wait.

    The server is stopped in the middle of it.
    """
    monkeypatch.setattr(limits, "PENDING_CONNECTIONS", PLACES)
    tls, signer = authority if kind.startswith("TLS") else (None, None)
    first = b"\x16\x03\x01\x02\x00" if kind == "TLS begun" else HELD.get(kind, b"")

    async def run(url: str, port: int, server: Server) -> None:
        first_device = phone(url)
        if tls is not None:
            first_device._connect = connector(TOKENS["phone"], signer)
        async with first_device:
            alone = await text(first_device)
            strangers = [await opened(port, first) for _ in range(5 * PLACES)]
            for reader, _ in strangers[: -2 * PLACES]:  # sooner than their time is up
                await rest(reader)
            assert len(server.pending) <= PLACES
            if tls is None:
                assert await answered(port)
            newcomer = phone(url, TOKENS["thief"])
            newcomer._connect = connector(TOKENS["thief"], signer)
            async with asyncio.timeout(10), newcomer:
                assert await text(newcomer) == alone
                assert newcomer.client.reconnects == 0
            assert await text(first_device) == alone
            assert first_device.client.reconnects == 0

    with base(caplog, tls) as (url, port, server):
        asyncio.run(run(url, port, server))


def test_one_address_does_not_take_the_places_of_another(caplog, monkeypatch):
    monkeypatch.setattr(limits, "PENDING_CONNECTIONS", PLACES)

    async def run(port: int, server: Server) -> None:
        other, out = await opened(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n", "127.0.0.2")
        strangers = [await opened(port, HEAD) for _ in range(5 * PLACES)]
        for reader, _ in strangers[: -2 * PLACES]:
            await rest(reader)
        assert await answered(port) and await answered(port, "127.0.0.3")
        out.write(b"Connection: close\r\n\r\n")  # slow, but in time
        assert (await rest(other)).startswith(b"HTTP/1.1 200")
        for _, writer in (*strangers, (other, out)):
            writer.close()

    with base(caplog) as (_, port, server):
        asyncio.run(run(port, server))


def test_a_handshake_that_the_application_has_not_accepted(caplog, monkeypatch):
    """It is pending like any other, and who speaks before he is asked to is cut off."""
    monkeypatch.setattr(guard, "PENDING_S", 0.5)

    async def waits(station: Station, socket, tenant) -> None:
        assert (await socket.receive())["type"] == "websocket.connect"
        assert (await socket.receive())["type"] == "websocket.disconnect"

    monkeypatch.setattr(Station, "serve", waits)
    whole = HEAD + f"Authorization: Bearer {TOKENS['phone']}\r\n\r\n".encode()

    async def run(port: int, server: Server) -> None:
        reader, writer = await opened(port, whole)
        assert await rest(reader) == b""
        writer.close()
        await none_left(server)
        reader, writer = await opened(port, whole)
        for _ in range(4000):
            if server.server_state.tasks:
                break
            await asyncio.sleep(0.005)
        writer.write(b"\xff" * 100)
        assert await rest(reader) == b""
        writer.close()
        await none_left(server)

    with base(caplog) as (_, port, server):
        asyncio.run(run(port, server))


@pytest.mark.parametrize(
    "behind",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
        b"no HTTP\r\n\r\n",
    ],
)
def test_a_connection_has_one_request(behind, caplog):
    """Others in it would cost as much, at no pace and looked at by nobody."""
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

    async def run(port: int, server: Server) -> None:
        reader, writer = await opened(port, ask + behind)
        answer = await rest(reader)
        assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in answer.lower()
        writer.close()
        await none_left(server)

    with base(caplog) as (_, port, server):
        asyncio.run(run(port, server))


def test_devices_that_leave_early_behind_tls(authority, caplog, monkeypatch):
    """Nothing of a pending connection's end is left where it was accepted long ago."""
    monkeypatch.setattr(guard, "PENDING_S", 0.3)
    tls, signer = authority

    async def run(url: str, server: Server) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(3):
            device = phone(url)
            device._connect = connector(TOKENS["phone"], signer)
            async with device:
                await text(device)
        staying = phone(url)
        staying._connect = connector(TOKENS["phone"], signer)
        async with staying:
            while loop.time() < begun + 1.0:  # well beyond any deadline of the handshakes
                await text(staying)
            assert staying.client.reconnects == 0
        await none_left(server)

    with base(caplog, tls) as (url, _, server):
        asyncio.run(run(url, server))


def test_no_descriptor_is_left(caplog):
    """Who waits goes, the newcomer is served, and it is said once a second."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def run(port: int) -> None:
        before = descriptors()
        waiting, out = await opened(port)
        assert await answered(port)  # so that the one before was accepted too
        # One that is closed only now would be there for another.
        while descriptors() > before + 2:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        with sockets_before_the_limit() as (newcomer, restrict):
            restrict()
            await loop.sock_connect(newcomer, ("127.0.0.1", port))
            assert await rest(waiting) == b""
            await loop.sock_sendall(newcomer, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(20):
                assert (await loop.sock_recv(newcomer, 99)).startswith(b"HTTP/1.1 200")
        out.close()

    with serving(FakeTarget(TABLE), tokens=tokens_of()) as (url, _):
        asyncio.run(run(int(url.rsplit(":", 1)[1])))
    assert [one.getMessage() for one in caplog.records] == [
        "no connection can be accepted: Too many open files"
    ]


@contextlib.contextmanager
def sockets_before_the_limit():
    """A socket, and what lets this process, the server's too, open no more files than it has."""
    import socket

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    newcomer = socket.socket()
    newcomer.setblocking(False)

    def restrict() -> None:
        lowest = os.dup(newcomer.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))

    try:
        yield newcomer, restrict
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        newcomer.close()


@pytest.mark.parametrize("count", [400, pytest.param(5000, marks=pytest.mark.full)])
def test_a_process_with_few_descriptors_serves_and_stops(bundle, model_folder, tmp_path, count):
    """All kinds at once, more than it has descriptors; then SIGTERM in the middle: exit code 0."""
    del bundle

    async def run(port: int, process) -> int:
        strangers = []
        kinds = [*REFUSED.values(), *HELD.values()]
        for i in range(count):
            strangers.append(await opened(port, kinds[i % len(kinds)]))
        async with asyncio.timeout(20):
            assert await answered(port)
        strangers += [await opened(port, kind) for kind in kinds]
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, 30)
        for _, writer in strangers:
            writer.close()
        return code

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        entered = station(str(model_folder("llama")), *options(tmp_path))
        process, url, lines = entered.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        assert asyncio.run(run(int(url.rsplit(":", 1)[1]), process)) == 0
    finally:
        entered.__exit__(None, None, None)
    assert not any("raceback" in line or '"error"' in line for line in lines)
    assert sum(map(len, lines)) < 20_000
