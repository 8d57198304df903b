"""Who gets from the lobby to a transport, in which order, and what ends before."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest

from bench.virtual.loop import run
from bs_runtime.serving import heads
from bs_runtime.serving.lobby import REMEMBERED, Caller, Lobby, Order
from bs_runtime.serving.pending import Pending

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
WHOLE = GET + b"\r\n"


def caller(address: str, claim: bytes = b"") -> Caller:
    return Caller(None, Pending(8).take(address, 0.0), claim=claim)


def test_whoever_opens_one_is_before_whoever_opens_thousands():
    order, flood = Order(), [f"127.0.1.{n}" for n in range(250)]
    for address in flood:
        order.add(caller(address))
        order.take()
    for address in flood:
        order.add(caller(address))
    one = caller("10.0.0.1")
    order.add(one)
    assert order.take() is one
    assert order.take().place.network == flood[0] and len(order) == 249


def test_of_one_address_the_claims_take_turns():
    """As behind a proxy, where all have the proxy's address."""
    order = Order()
    order.add(caller("10.0.0.1", b"Bearer thief"))
    order.take()
    for _ in range(50):
        order.add(caller("10.0.0.1", b"Bearer thief"))
    phone = caller("10.0.0.1", b"Bearer phone")
    order.add(phone)
    assert order.take() is phone


def test_a_token_that_was_let_in_is_before_addresses_that_were_never_seen():
    """Once: as often as it is let in again."""
    order = Order()
    order.add(caller("10.0.0.1", b"Bearer phone"))
    order.let_in(order.take())
    for number in range(250):
        order.add(caller(f"127.0.1.{number}", b"Bearer thief"))
    back, twice = caller("10.0.0.1", b"Bearer phone"), caller("10.9.9.9", b"Bearer phone")
    order.add(back)
    order.add(twice)
    assert order.take() is twice  # whose address is as new
    assert order.take().claim == b"Bearer thief"
    order.let_in(twice)
    assert order.take() is back


def test_who_is_known_does_not_wait_while_strangers_do():
    """A fleet that comes back is not paced as a flood is."""

    async def main() -> None:
        loop, lobby = asyncio.get_running_loop(), Lobby(tls=False)
        phone, stranger = caller("10.0.0.1", b"phone"), caller("10.0.0.2", b"thief")
        lobby._order.let_in(phone)
        lobby._order.add(stranger)
        waits = asyncio.create_task(lobby.next(5.0))
        await asyncio.sleep(1.0)
        assert not waits.done()
        lobby._order.add(phone)
        lobby._came.set()
        assert await waits is phone and phone.known and loop.time() == 1.0
        assert await lobby.next(5.0) is stranger and not stranger.known
        assert loop.time() >= 5.0
        stranger.place.accept()
        lobby._order.add(again := caller("10.0.0.3", b"thief"))
        assert await lobby.next(9.0) is again and again.known and loop.time() < 5.1

    run(main())


def test_what_is_remembered_of_addresses_is_bounded():
    order = Order()
    for number in range(2 * REMEMBERED):
        order.add(caller(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
        order.let_in(order.take())
    assert len(order._served) <= REMEMBERED and len(order._known) <= REMEMBERED


def test_who_has_left_is_not_opened():
    order = Order()
    first, second = caller("10.0.0.1"), caller("10.0.0.2")
    order.add(first)
    order.add(second)
    order.drop(first)
    order.drop(first)
    assert order.take() is second and not len(order)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (WHOLE, None),
        (WHOLE.replace(b"\r\n", b"\n"), None),
        (b"G", None),
        (GET + b"Content-Length: 0\r\n\r\n", None),
        (WHOLE + b"content-length: 5\r\n\r\n", None),  # of another request
        (GET + b"content-LENGTH : 5\r\n\r\nhello", heads.BODY),
        (GET + b"Content-Length: 00x\r\n\r\n", heads.BODY),
        (GET + b"Transfer-Encoding:chunked\r\n\r\n", heads.BODY),
        (GET + b"A: b\r\n" * 97 + b"\r\n", None),
        (GET + b"A: b\r\n" * 130 + b"\r\n", heads.LONG),
        (GET + b"A: " + b"y" * 8000 + b"\r\n\r\n", None),
        (GET + b"A: " + b"y" * 9000 + b"\r\n\r\n", heads.LONG),
        (GET + b"A: " + b"y" * 9000, None),  # yet
        (GET + b"A: " + b"y" * 17000, heads.LONG),
        (GET + (b"A: " + b"y" * 4000 + b"\r\n") * 5, heads.LONG),
        (b"\x16\x03\x01\x02", heads.OTHER),
        (b"\r\n" + WHOLE, heads.OTHER),
        (b"\0", heads.OTHER),
    ],
)
def test_what_can_be_a_request(data, fault):
    assert heads.fault(data, heads.end(data)) == fault
    for cut in range(1, len(data), 997):  # what has come of it is no worse
        assert heads.fault(data[:cut], heads.end(data[:cut])) in (None, fault)


@pytest.mark.parametrize("mark", [b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"])
def test_a_head_ends_wherever_it_is_cut(mark):
    head = b"GET / HTTP/1.1\r\nA: b" + mark
    for cut in range(len(head)):
        assert heads.end(head[:cut]) is None
        assert heads.end(head + b"more\n\n", cut) == len(head)
    assert heads.end(head, 1 << 20) is None  # looked at before


def test_a_claim_is_the_tokens_header():
    claim = heads.claim(GET + b"Authorization: Bearer x y\r\n\r\n")
    assert claim == heads.claim(b"GET / HTTP/1.1\nauthorization:Bearer x y\nA: b\n\n")
    assert claim != heads.claim(GET + b"Authorization: Bearer x\r\n\r\n")
    assert len(claim) == 32  # however long it was
    assert heads.claim(WHOLE) == b""


async def heard(lobby: Lobby, pending: Pending, *parts: bytes) -> tuple[Caller | None, bytes]:
    """What becomes of a connection that says ``parts``, and what it is answered."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # as what is accepted
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    with closing(theirs):
        lobby.enter(ours, pending.take("10.0.0.1", 0.0))
        for part in parts:
            if part:
                await loop.sock_sendall(theirs, part)
            else:
                theirs.shutdown(socket.SHUT_WR)
            for _ in range(3):
                await asyncio.sleep(0)
        if len(lobby._order):
            opened = await lobby.next()
            opened.socket.close()
            return opened, b""
        if ours.fileno() < 0:
            try:
                return None, await loop.sock_recv(theirs, 4096)
            except ConnectionResetError:  # what it said was not read
                return None, b""
        lobby.close()
        return None, b"waits"


@pytest.mark.parametrize(
    ("tls", "parts", "becomes"),
    [
        (False, [WHOLE], "opened"),
        (False, [GET, b"\r\n"], "opened"),
        (False, [*(bytes([byte]) for byte in WHOLE)], "opened"),
        (False, [GET], "waits"),
        (False, [], "waits"),
        (False, [GET, b""], ""),
        (False, [b""], ""),
        (False, [GET + b"Content-Length: 5\r\n\r\n"], "HTTP/1.1 400"),
        (False, [GET, b"A: b\r\n" * 130 + b"\r\n"], "HTTP/1.1 431"),
        (False, [b"\x16\x03\x01"], "HTTP/1.1 400"),
        (True, [b"\x16\x03\x01"], "opened"),
        (True, [b""], ""),
        (True, [GET], ""),
        (True, [], "waits"),
    ],
)
def test_what_becomes_of_a_connection(tls, parts, becomes):
    async def main() -> None:
        pending, lobby = Pending(8), Lobby(tls=tls)
        opened, answer = await heard(lobby, pending, *parts)
        if becomes == "opened":
            assert opened is not None and len(pending) == 1
            assert opened.data == (b"" if tls else b"".join(parts))
        else:
            assert opened is None and answer.decode().startswith(becomes)
            assert bool(becomes) == bool(answer) and not len(pending) and not lobby._inside

    asyncio.run(main())
