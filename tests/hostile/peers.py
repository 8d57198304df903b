"""A well-behaved device, one that costs, and a base station that has both as its guests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bs_runtime.operations.limits import Limits, Tenant
from bs_runtime.serving.auth import Tokens
from bs_runtime.serving.server import Server
from device_runtime.device import Device, Sampling
from device_runtime.transport.connecting import connector
from draftlink import __version__, schemes
from draftlink.protocol import frames
from draftlink.schemes.topk import TopK
from tests.fake_models import HASH, fake_device, random_logits
from tests.fakes import FakeTarget, serving

SIZE = 20
TABLE = random_logits(1, SIZE)
GREEDY = Sampling(temperature=0.0)
TOKENS = {name: f"the-secret-token-of-{name}" for name in ("phone", "thief", "ops")}


def tokens_of(**limits: Limits) -> Tokens:
    """The tenants of TOKENS; ``limits`` by name."""
    return Tokens(
        tuple(
            (
                hashlib.sha256(token.encode()).digest(),
                Tenant(name, limits.get(name, Limits()), operator=name == "ops"),
            )
            for name, token in TOKENS.items()
        )
    )


def phone(url: str, token: str | None = TOKENS["phone"]) -> Device:
    device = fake_device(url, TABLE)
    device._connect = connector(token)
    device.patience_s = 5.0
    return device


async def text(device: Device, count: int = 40) -> list[int]:
    options = {"max_tokens": count, "sampling": GREEDY, "gamma": 3, "mode": "stop-and-wait"}
    generation = device.generate([1, 2, 3], **options)
    return [token.id async for token in generation]


@contextlib.asynccontextmanager
async def raw(
    url: str, token: str = TOKENS["thief"], **options: Any
) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token}"}
    options |= {"additional_headers": headers, "compression": None, "max_size": None}
    async with connect(url + "/v1/draft", **options) as socket:
        yield socket


async def greeted(socket: ClientConnection) -> frames.Welcome:
    names = list(schemes.BY_NAME)
    hello = frames.Hello(frames.VERSION, HASH, SIZE, names, f"x/{__version__}")
    await socket.send(frames.encode(hello))
    welcome = frames.decode(await socket.recv(decode=False))
    assert isinstance(welcome, frames.Welcome)
    return welcome


def start(ids: list[int], base: int = 0, max_tokens: int = 5, mode: Any = "draft") -> bytes:
    frame = frames.Start(1, base, ids, GREEDY, TopK(4, 16), mode, max_tokens, [], None)
    return frames.encode(frame)


async def last_word(socket: ClientConnection) -> frames.Refused | int:
    """The refusal, or the code that the connection was closed with; 1006: it was cut off."""
    while True:
        try:
            frame = frames.decode(await socket.recv(decode=False))
        except ConnectionClosed as closed:
            return 1006 if closed.rcvd is None else closed.rcvd.code
        if isinstance(frame, frames.Refused):
            return frame


Attack = Callable[[str, Device, Server], Awaitable[None]]


def beside(attack: Attack, **limits: Limits) -> None:
    """Run the attack while a device writes, and check what it writes; then all are gone."""

    async def run(url: str, server: Server) -> None:
        async with phone(url) as device:
            alone = await text(device)
            writing = asyncio.create_task(text(device))
            async with asyncio.timeout(60):
                await attack(url, device, server)
            assert await writing == alone
            assert await text(device) == alone
            assert device.client.reconnects == 0

    with serving(FakeTarget(TABLE, 1 << 17), tokens=tokens_of(**limits)) as (url, server):
        asyncio.run(run(url, server))
        station = server._station
        for _ in range(500):
            if not station._links:
                break
            asyncio.run(asyncio.sleep(0.01))
        assert not station._links and not station.stats.devices
        assert all(tenant.sessions == 0 for _, tenant in station.tokens.tenants)
