"""The client beside a generation that sends and receives at once."""

from __future__ import annotations

import asyncio

from websockets.exceptions import ConnectionClosedError

from device_runtime.transport.client import Client
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes.topk import TopK

WELCOME = frames.Welcome(frames.VERSION, "x", 20, 48, ["topk"], "m", "float32", b"ticket")


class Socket:
    """``None`` in ``down`` closes it; while ``stuck`` is set, so does what is sent, once freed."""

    def __init__(self, *down: frames.Frame) -> None:
        self.down: asyncio.Queue[frames.Frame | None] = asyncio.Queue()
        for frame in down:
            self.down.put_nowait(frame)
        self.stuck: asyncio.Event | None = None
        self.sent: list[frames.Frame] = []

    async def send(self, message: bytes, /) -> None:
        if self.stuck is not None:
            await self.stuck.wait()
            raise ConnectionClosedError(None, None)
        self.sent.append(frames.decode(message))

    async def recv(self) -> bytes:
        frame = await self.down.get()
        if frame is None:
            raise ConnectionClosedError(None, None)
        return frames.encode(frame)

    async def close(self) -> None:
        pass


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_sender_leaves_a_lost_connection_to_whoever_receives():
    """A verdict has come and is not in the history yet: no Resume before it is."""

    async def run() -> None:
        first = Socket(WELCOME)
        verdict = frames.Verdict(1, 3, 2, None, False, 0, 0)
        second = Socket(
            WELCOME, frames.Resumed(1, 1, False), frames.Verdict(1, 5, 2, 7, False, 0, 0)
        )
        sockets = [second, first]

        async def connect(url: str) -> Socket:
            return sockets.pop()

        client = Client("ws://x", "x", 20, connect, 0.0)
        history = [1, 2, 3]
        client.history = history
        await client.open()
        start = frames.Start(1, 0, [1, 2, 3], Sampling(), TopK(), "draft", 30, [], None)
        await client.send(start)
        await client.send(frames.Draft(1, 3, 2, b"a", waits=False))
        receiver = asyncio.create_task(client.receive())
        await turns()
        first.stuck = asyncio.Event()
        late = frames.Draft(1, 5, 2, b"b", waits=True)
        sender = asyncio.create_task(client.send(late))
        await turns()
        first.down.put_nowait(verdict)
        first.down.put_nowait(None)
        await turns()
        first.stuck.set()
        await sender
        assert await receiver == verdict and sockets == [second]
        history += [8, 9]
        assert isinstance(await client.receive(), frames.Verdict)
        resume, draft = second.sent[1:]
        assert isinstance(resume, frames.Resume) and resume.length == 5
        assert draft == late and client.reconnects == 1

    asyncio.run(run())
