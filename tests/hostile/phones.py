"""Devices that are set on base stations which they should not trust, and what those answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from device_runtime.device import Device, Sampling
from device_runtime.transport.connecting import LinkError, connector
from device_runtime.transport.silence import Deadlines
from draftlink.protocol import frames
from tests.fake_models import fake_device
from tests.hostile.stations import TABLE, Peer, begins, silent

TOKEN = "the-phone-s-own-token"
NASTY = "\x1bc\x1bPq\x1b\\ two\nlines \x9b2J \u202eback \u2028 [bold]x[/] [link=http://x]y[/link]"
PLAIN = r"\x1bc\x1bPq"


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Nothing here may take long: the old device waited for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


def phone(url: str, token: str | None = None) -> Device:
    device = fake_device(url, TABLE)
    device._connect = connector(token)
    device.patience_s, device.deadlines = 0.3, Deadlines(0.1, 0.1)
    return device


async def text(device: Device, **options: Any) -> list[int]:
    options = {"mode": "stream", "max_tokens": 4, "sampling": Sampling(0.0), **options}
    return [token.id async for token in device.generate([1, 2, 3], **options)]


def plain(error: LinkError) -> bool:
    return str(error).isprintable() and len(str(error)) <= 1000


async def writes(peer: Peer, number: int) -> None:
    """A base station that behaves: four tokens."""
    start = await begins(peer)
    await peer.says(frames.Tokens(1, start.begins, (5, 6, 7, 8), True))
    await silent(peer)


def answers(*statuses: int | Response | None) -> tuple[dict[str, Any], list[str]]:
    """A server's options: what it answers to each connection, None being the handshake, and at last
    whatever the last of them was; and the ``Authorization`` of each.
    """
    left, seen = list(statuses), []

    def process_request(_: Any, request: Request) -> Response | None:
        seen.append(request.headers.get("Authorization", ""))
        status = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(status, int):
            return Response(status, "x", Headers(), b"")
        return status

    return {"process_request": process_request}, seen


async def once(peer: Peer, number: int) -> None:
    """The first connection is lost once a text has begun; the second behaves."""
    if number:
        await writes(peer, number)
    await begins(peer)
