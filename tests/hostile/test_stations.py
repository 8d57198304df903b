"""A device against base stations that it should not trust, over real loopback sockets.

Whatever they say or keep to themselves, the device ends with a LinkError of one plain line, or goes
on; it does not call them thousands of times, and tells nobody else its token.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response

from device_runtime.transport import connecting
from device_runtime.transport.connecting import LinkError
from draftlink.protocol import frames
from tests.fake_models import fake_device
from tests.hostile.phones import NASTY, PLAIN, answers, once, phone, plain, run, text, writes
from tests.hostile.stations import (
    TABLE,
    WELCOME,
    Peer,
    Wire,
    begins,
    greets,
    listening,
    silent,
)

# Silence.


@pytest.mark.parametrize("where", ["welcome", "tokens", "verdict"])
def test_pings_and_nothing_else(where):
    async def talk(peer: Peer, _: int) -> None:
        if where == "welcome":
            await silent(peer)
        await begins(peer)
        await silent(peer)

    async def scenario() -> None:
        async with listening(talk, ping_interval=0.02) as (url, made):
            device = phone(url)
            with pytest.raises(LinkError, match=r"said nothing for 0\.1 s"):
                async with device:
                    await text(device, mode="stream" if where == "tokens" else "stop-and-wait")
            assert len(made) <= 8

    run(scenario)


def test_a_handshake_that_is_never_answered(monkeypatch):
    """A lost connection like any other, and the next one is answered."""

    class Brief(connecting._Direct):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, open_timeout=0.1)

    monkeypatch.setattr(connecting, "_Direct", Brief)
    tries = 0

    async def process_request(*_: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            await over.wait()

    async def scenario() -> None:
        options = {"process_request": process_request}
        async with listening(once, **options) as (url, made), phone(url) as device:
            assert await text(device) == [5, 6, 7, 8]
            assert tries == 3 and len(made) == 2
            over.set()

    over = asyncio.Event()
    run(scenario)


# Calling again and again.


def test_resuming_and_closing_at_once():
    async def talk(peer: Peer, _: int) -> None:
        await begins(peer)

    async def scenario() -> None:
        async with listening(talk) as (url, made):
            async with phone(url) as device:
                with pytest.raises(LinkError, match="has gone"):
                    await text(device)
            assert len(made) <= 8

    run(scenario)


@pytest.mark.parametrize("kind", ["Tokens", "Verdict", "Switched", "Written"])
def test_writing_on_for_ever_behind_finish(kind):
    async def talk(peer: Peer, _: int) -> None:
        start = await begins(peer)
        for i in range(2):
            await peer.says(frames.Tokens(1, start.begins + i, (5,), False))
        await peer.hears()
        late = {
            "Tokens": frames.Tokens(1, 5, (5,), False),
            "Verdict": frames.Verdict(1, 5, 1, None, False, 0, 0),
            "Switched": frames.Switched(1, 2, 5),
            "Written": frames.Written(5, (5,), 0, False, 0, 0),
        }[kind]
        while True:
            await peer.says(late)
            await asyncio.sleep(0)  # or nobody else of this process has a turn

    async def scenario() -> None:
        async with listening(talk) as (url, made):
            device = await fake_device(url, TABLE).open()
            generation = device.generate([1, 2, 3], mode="stream", max_tokens=40)
            with pytest.raises(LinkError, match="goes on writing behind the end"):
                async for _ in generation:
                    generation.cancel()
            assert generation.tokens == [5] and len(made) == 1
            await device.close()

    run(scenario)


# What is said.


@pytest.mark.parametrize("how", ["refused", "body", "close", "faulty", "greeting"])
def test_what_a_peer_says_does_nothing_to_a_terminal(how):
    async def talk(peer: Peer, _: int) -> None:
        if how == "greeting":
            await greets(peer, msgspec.structs.replace(WELCOME, schemes=[NASTY]))
        start = await begins(peer)
        if how == "refused":
            await peer.says(frames.Refused("request", NASTY * 1000))
        elif how == "faulty":
            mode = msgspec.msgpack.encode({"type": NASTY, "generation": start.generation})
            await peer.says(b"\x01" + mode)
        elif isinstance(peer, Wire):
            await peer.socket.close(1000, NASTY)

    async def scenario() -> None:
        body = Response(404, "x", Headers(), NASTY.encode())
        options = answers(body)[0] if how == "body" else {}
        async with listening(talk, **options) as (url, _):
            with pytest.raises(LinkError) as caught:
                async with phone(url) as device:
                    await text(device)
        assert plain(caught.value)
        assert how in ("faulty", "greeting") or PLAIN in str(caught.value)

    run(scenario)


def test_names_are_kept_as_they_can_be_shown():
    async def talk(peer: Peer, _: int) -> None:
        await greets(peer, msgspec.structs.replace(WELCOME, model=NASTY * 999, dtype=NASTY))
        await silent(peer)

    async def scenario() -> None:
        async with listening(talk) as (url, _), phone(url) as device:
            for name in (device.client.welcome.model, device.client.welcome.dtype):
                assert name.isprintable() and name.startswith(PLAIN) and len(name) <= 200

    run(scenario)


@pytest.mark.parametrize(
    "changes",
    [
        {"context": 1 << 62},
        {"context": 0},
        {"vocab_size": 1 << 40},
        {"ticket": bytes((1 << 20) - 1000)},
        {"ticket": bytes(5000)},
        {"schemes": ["topk", "unheard-of"]},
        {"schemes": ["topk"] * 10_000},
        {"frame_entries": -1},
        {"version": 1 << 62},
        {"eos_ids": [1 << 62]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_greeting_that_cannot_be(changes):
    async def talk(peer: Peer, _: int) -> None:
        await greets(peer, msgspec.structs.replace(WELCOME, **changes))
        await silent(peer)

    async def scenario() -> None:
        async with listening(talk) as (url, made):
            with pytest.raises(LinkError, match="broke the protocol") as caught:
                await phone(url).open()
            assert plain(caught.value) and len(made) == 1

    run(scenario)


def test_who_broke_the_protocol_is_left():
    """The text so far is kept, and the next one begins on a new connection."""

    async def talk(peer: Peer, number: int) -> None:
        if number:
            await writes(peer, number)
        start = await begins(peer)
        await peer.says(frames.Tokens(1, start.begins, (5,), False))
        await peer.says(frames.Tokens(7, 7, (5,), False))
        assert isinstance(peer, Wire)
        await peer.socket.wait_closed()
        left.set()

    left = asyncio.Event()

    async def scenario() -> None:
        async with listening(talk) as (url, made), phone(url) as device:
            generation = device.generate([1, 2, 3], mode="stream", max_tokens=9)
            with pytest.raises(LinkError, match="broke the protocol"):
                async for _ in generation:
                    pass
            assert generation.tokens == [5]
            await left.wait()
            assert await text(device) == [5, 6, 7, 8] and len(made) == 2

    run(scenario)
