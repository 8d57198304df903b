"""Who may have the token, and what is no address of a base station. Nothing is connected here."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from device_runtime.transport import connecting
from device_runtime.transport.connecting import LinkError, connector, spoken

TOKEN = "the-phone-s-own-token"


@pytest.fixture
def made(monkeypatch):
    """What would have been connected: addresses and options."""
    calls = []

    async def direct(url, **options):
        calls.append((url, options))

    monkeypatch.setattr(connecting, "_Direct", direct)
    return calls


def reached(url: str, **given) -> None:
    asyncio.run(connecting.reach(connector(**given), url))


@pytest.mark.parametrize(
    "host",
    [
        "base.example:8765",
        "10.0.0.1:1",
        "[2001:db8::1]:1",
        "localhost.example",
        "127.0.0.1.example",
        "0x7f.1",
        "0.0.0.0",
        "LOCALHOST.",
        "[::ffff:10.0.0.1]",
    ],
)
def test_a_token_does_not_cross_a_network_in_clear(made, host):
    for scheme in ("ws", "WS"):
        with pytest.raises(LinkError, match=r"in clear: give wss://.*--insecure"):
            reached(f"{scheme}://{host}", token=TOKEN)
    assert not made
    reached(f"ws://{host}")  # no token, nothing to lose
    reached(f"ws://{host}", token=TOKEN, insecure=True)
    for scheme in ("wss", "WSS", "Wss"):
        reached(f"{scheme}://{host}", token=TOKEN)
    assert [options["ssl"] for _, options in made] == [None, None, True, True, True]
    assert made[1][1]["additional_headers"] == {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_it_may_stay_on_this_machine(made, host):
    reached(f"ws://{host}:8765/", token=TOKEN)
    (url, options) = made[0]
    assert url == f"ws://{host}:8765/v1/draft"
    assert options["proxy"] is None  # the environment's proxy is another machine


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "ws://",
        "ws:///path",
        "ws://host:99999",
        "ws://host:x",
        "ws://host:0",
        "ws://host:-1",
        "ws://[::1",
        "ws://host?token=1",
        "ws://host#here",
    ],
)
def test_what_is_no_address(made, url):
    with pytest.raises(LinkError, match="is not a WebSocket address such as"):
        reached(url)
    assert not made


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "\udcff"])
def test_a_host_name_that_cannot_be(host):
    with pytest.raises(LinkError, match="is not a WebSocket address such as"):
        reached(f"ws://{host}:1")


def test_a_password_in_an_address_is_neither_sent_nor_shown(made):
    for url in ("ws://me:secret@127.0.0.1", "wss://secret@host", "nonsense://me:secret@host"):
        with pytest.raises(LinkError, match="--token") as caught:
            reached(url)
        assert "secret" not in str(caught.value)
    assert not made


@pytest.mark.parametrize("token", ["", " ", "a\r\nHost: other", "tök", "a\x00b"])
def test_a_token_that_no_header_can_carry(token):
    with pytest.raises(ValueError, match="HTTP header"):
        connector(token)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(111, "Connect call failed ('127.0.0.1', 9)"), os.strerror(111)),
        (OSError("Multiple exceptions: [Errno 111] x, [Errno 101] y, [Errno 111] z"),
         f"{os.strerror(111)}; {os.strerror(101)}"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (EOFError(), "EOFError"),
        (EOFError("it ended"), "it ended"),
    ],
)  # fmt: skip
def test_what_is_told_of_a_connection_that_was_not_made_has_no_numbers(error, words):
    assert spoken(error) == words
