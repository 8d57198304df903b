"""A peer that costs, over real sockets: it is refused or cut off, and others notice nothing.

Each attack runs beside a well-behaved device, whose text must come out as it does alone. How long
its verdicts take meanwhile is measured by ``bench.hostile``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket as sockets
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from bs_runtime.operations import limits
from bs_runtime.operations.limits import WAITING_MESSAGES, Limits
from bs_runtime.serving import guard
from bs_runtime.serving.server import Server
from device_runtime.device import Device
from device_runtime.transport.connecting import LinkError
from draftlink import schemes
from draftlink.protocol import frames
from tests.fake_models import HASH
from tests.hostile.peers import SIZE, TOKENS, beside, greeted, last_word, phone, raw, start, text


@pytest.mark.parametrize("token", [None, "not-a-token-at-all", TOKENS["ops"]])
def test_no_token_or_a_wrong_one(token):
    async def attack(url: str, *_: Any) -> None:
        with pytest.raises(LinkError, match=r"refuses: .* token .*--token or in DRAFTLINK_TOKEN"):
            await phone(url, token).open()

    beside(attack)


def test_a_page_in_a_browser():
    async def attack(url: str, *_: Any) -> None:
        headers = {"Authorization": f"Bearer {TOKENS['thief']}"}
        with pytest.raises(InvalidStatus, match="403"):
            await connect(
                url + "/v1/draft", origin="https://evil.example", additional_headers=headers
            )

    beside(attack)


def test_a_message_that_is_too_long():
    async def attack(url: str, *_: Any) -> None:
        async with raw(url) as socket:
            await greeted(socket)
            with contextlib.suppress(ConnectionClosed):
                await socket.send(bytes(frames.MAX_MESSAGE_BYTES + 1))
            assert await last_word(socket) in (1009, 1006)

    beside(attack)


async def flood(socket: ClientConnection, data: bytes, count: int) -> int:
    """Write raw bytes again and again; how often until the connection broke."""
    transport = socket.transport
    for sent in range(count):
        if transport.is_closing():
            return sent
        transport.write(data)
        if sent % 64 == 0:
            await asyncio.sleep(0)
            if transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0.001)
    return count


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


TINY = {
    "finish": masked(Opcode.BINARY, frames.encode(frames.Finish(0, 0))),
    "empty": masked(Opcode.BINARY, b""),
    "ping": masked(Opcode.PING, b""),
    "pong": masked(Opcode.PONG, b""),
    "fragment": masked(Opcode.CONT, b"", fin=False),
    "text": masked(Opcode.TEXT, b"x"),
}


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", TINY)
def test_a_million_tiny_frames(kind, count):
    """Legal or not, they are cut off: none of them is one that a device would send so fast."""

    async def attack(url: str, *_: Any) -> None:
        async with raw(url) as socket:
            await greeted(socket)
            if kind == "fragment":
                socket.transport.write(masked(Opcode.BINARY, b"x", fin=False))
            await flood(socket, TINY[kind], count)
            word = await last_word(socket)
            assert word in (1006, 1009, 1011) or isinstance(word, frames.Refused)

    beside(attack)


def test_frames_that_come_too_fast_but_could_wait_are_held_back():
    """Legal frames at more than the rate, in small bursts: they take as long as the rate says."""
    count = 60
    limits = Limits(frames_per_s=100.0)

    async def attack(url: str, *_: Any) -> None:
        loop = asyncio.get_running_loop()
        async with raw(url) as socket:
            await greeted(socket)
            begun = loop.time()
            for _ in range(500 // count):
                for _ in range(count):
                    await socket.send(frames.encode(frames.Finish(0, 0)))
                    await socket.recv()
            sent = count * (500 // count)
            assert loop.time() - begun >= (sent - 1 - 100 * 4) / 100 * 0.99

    assert count < WAITING_MESSAGES
    beside(attack, thief=limits)


def test_half_open_connections(monkeypatch):
    """A connection that says nothing, one that stays in its headers, and one without a hello."""
    monkeypatch.setattr(guard, "PENDING_S", 0.3)

    async def attack(url: str, *_: Any) -> None:
        host, port = url.removeprefix("ws://").split(":")
        silent, silent_out = await asyncio.open_connection(host, int(port))
        slow, slow_out = await asyncio.open_connection(host, int(port))
        slow_out.write(b"GET /v1/draft HTTP/1.1\r\nHost: x\r\nA: ")
        async with raw(url) as socket:
            assert await last_word(socket) == 1008  # no hello
        for reader, writer in ((silent, silent_out), (slow, slow_out)):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    beside(attack, thief=Limits(hello_s=0.3))


def test_more_half_open_connections_than_there_is_room_for(monkeypatch):
    """They take no room from devices that are connected, and are gone when their time is up."""
    monkeypatch.setattr(limits, "PENDING_CONNECTIONS", 8)
    monkeypatch.setattr(guard, "PENDING_S", 0.3)

    async def attack(url: str, *_: Any) -> None:
        host, port = url.removeprefix("ws://").split(":")
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        for reader, writer in pairs:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        async with phone(url, TOKENS["thief"]) as other:
            assert len(await text(other)) == 40

    beside(attack)


def test_a_device_that_has_gone_silent():
    """After the idle time its connection is closed; the device only makes a new one."""

    async def attack(url: str, device: Device, _: Server) -> None:
        async with raw(url) as socket:
            await greeted(socket)
            assert await last_word(socket) == 1001
        async with phone(url, TOKENS["thief"]) as other:
            alone = await text(other)
            await other.client.socket.wait_closed()  # type: ignore[union-attr]
            assert await text(other) == alone
            assert other.client.reconnects == 1

    beside(attack, thief=Limits(idle_s=0.3))


def test_never_reading(monkeypatch):
    """A stream that nobody reads: what waits to be sent stays bounded, and the connection ends."""
    monkeypatch.setattr("bs_runtime.serving.outgoing.SEND_S", 0.3)
    monkeypatch.setattr(guard, "CLOSE_S", 0.1)
    monkeypatch.setattr(guard, "SEND_BUFFER_BYTES", 2000)
    buffered = []

    async def attack(url: str, _: Device, server: Server) -> None:
        listening = server.servers[0].sockets[0]
        # Else the kernel's buffers, which are not this test's, would take all of it.
        listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 4096)
        host, port = url.removeprefix("ws://").split(":")
        peer = sockets.socket()
        peer.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        peer.connect((host, int(port)))
        async with raw(url, sock=peer) as socket:
            await greeted(socket)
            socket.transport.pause_reading()
            monkeypatch.setattr(socket.transport, "resume_reading", lambda: None)
            socket.transport.write(
                masked(Opcode.BINARY, start([1], max_tokens=20_000, mode="stream"))
            )
            while len(server._station.stats.devices) > 1:
                buffers = [one.transport for one in list(server.server_state.connections)]
                buffered.extend(buffer.get_write_buffer_size() for buffer in buffers)
                await asyncio.sleep(0.01)
            socket.transport.abort()

    beside(attack, thief=Limits(tokens_per_s=math.inf))
    assert 2000 < max(buffered) < 2100  # the mark, and a message


def test_drafting_for_somebody_else():
    """Another's generation, epoch and position, right in every number, on one's own connection."""

    async def attack(url: str, device: Device, _: Server) -> None:
        session = device.client.session
        for frame in (
            frames.Draft(session.epoch, session.length, 1, b"\x00"),
            frames.Finish(session.generation, 0),
        ):
            async with raw(url) as socket:
                await greeted(socket)
                await socket.send(frames.encode(frame))
                word = await last_word(socket)
                assert isinstance(word, frames.Refused) and word.code == "protocol"

    beside(attack)


def test_somebody_else_s_ticket():
    """It opens nothing for another tenant: neither the history nor the place of its owner."""

    async def attack(url: str, device: Device, _: Server) -> None:
        async with raw(url) as socket:
            names = list(schemes.BY_NAME)
            ticket = device.client.welcome.ticket
            hello = frames.Hello(frames.VERSION, HASH, SIZE, names, "x", ticket)
            await socket.send(frames.encode(hello))
            welcome = frames.decode(await socket.recv(decode=False))
            assert isinstance(welcome, frames.Welcome)
            await socket.send(start([1], base=2))
            word = await last_word(socket)
            assert isinstance(word, frames.Refused) and "base 2" in word.reason

    beside(attack)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (start([1] * 1_000_000), "request", "a prompt of 1000000 tokens"),
        (start([1] * 600), "request", "600 tokens, where 500 are allowed"),
        (start([1] * 300, max_tokens=10_000), "request", "max_tokens of 10000"),
    ],
)
def test_prompt_bombs(data, code, words):
    async def attack(url: str, *_: Any) -> None:
        async with raw(url) as socket:
            await greeted(socket)
            await socket.send(data)
            word = await last_word(socket)
            assert isinstance(word, frames.Refused) and word.code == code and words in word.reason

    beside(attack, thief=Limits(prompt_tokens=500, max_tokens=500))


def test_one_prompt_after_another():
    """Each is allowed, all of them are not: the tenant is told when to come back."""

    async def attack(url: str, *_: Any) -> None:
        refused: frames.Refused | int = 0
        for _ in range(100):
            async with raw(url) as socket:
                await greeted(socket)
                await socket.send(start([1] * 400))
                await socket.send(frames.encode(frames.Finish(1, 0)))
                frame = frames.decode(await socket.recv(decode=False))
                if isinstance(frame, frames.Refused):
                    refused = frame
                    break
        assert isinstance(refused, frames.Refused) and refused.code == "busy"
        assert refused.retry_after_s >= 1

    beside(attack, thief=Limits(tokens_per_s=50.0))


def test_connecting_again_and_again():
    async def attack(url: str, *_: Any) -> None:
        with pytest.raises(InvalidStatus) as caught:
            for _ in range(100):
                async with raw(url) as socket:
                    await greeted(socket)
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["Retry-After"] == "4"

    beside(attack)


def test_more_sessions_than_a_token_may_have():
    async def attack(url: str, *_: Any) -> None:
        async with raw(url) as first, raw(url) as second:
            await greeted(first)
            await greeted(second)
            with pytest.raises(
                LinkError, match=r"2 sessions open already.*again in 30 s"
            ) as caught:
                await phone(url, TOKENS["thief"]).open()
            assert caught.value.retry_after_s == 30

    beside(attack, thief=Limits(sessions=2))
