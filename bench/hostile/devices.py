"""Those who behave: a device that drafts, seven that replay one, and one that comes anew."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

import tinypair
from bench.batch import Recording, essence, record
from bench.hostile.place import TOKENS
from bench.hostile.speaker import GONE, PAUSE_S, Speaker, hello
from bench.hostile.station import Station
from device_runtime.device import Device, Sampling
from device_runtime.transport.connecting import PATH, LinkError, connector
from draftlink.protocol import frames

GRACE_S = 8.0  # that a verdict may be late, before a turn ends without it
GREETED_S = 5.0  # after which a new device is not waited for any more


@dataclass
class Seen:
    """What devices saw in a turn: verdict delays, tokens, connections that were lost."""

    delays_s: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    lost: int = 0


class Devices(Protocol):
    """One or several."""

    async def write(self, seconds: float) -> Seen:
        """Write for so long."""

    async def close(self) -> None:
        """They leave."""


class One:
    """A device that drafts greedily."""

    def __init__(self, station: Station, bundle: Path) -> None:
        self._station, self._bundle = station, bundle
        self._device: Device | None = None
        self._asked_s: float | None = None  # when the verdict that is missing was asked for
        self._seen = Seen()

    async def _open(self) -> Device:
        device = Device(
            self._bundle, self._station.url, token=TOKENS["phone"], ca=self._station.authority
        )
        device.patience_s = GRACE_S
        await device.open()
        client = device.client
        send, receive = client.send, client.receive

        async def timed_send(frame: frames.Frame, payload_bits: int | None = None) -> None:
            self._asked_s = time.perf_counter()
            await send(frame, payload_bits)

        async def timed_receive() -> frames.Frame:
            frame = await receive()
            if isinstance(frame, frames.Verdict) and self._asked_s is not None:
                self._seen.delays_s.append(time.perf_counter() - self._asked_s)
                self._seen.tokens += frame.accepted + (frame.next is not None)
                self._asked_s = None
            return frame

        client.send = timed_send  # type: ignore[method-assign]
        client.receive = timed_receive  # type: ignore[method-assign]
        return device

    async def write(self, seconds: float) -> Seen:
        """The listed prompts, 64 tokens each, in rounds of four."""
        seen = self._seen = Seen()
        self._asked_s = None
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(seconds + GRACE_S):
                if self._device is None:
                    self._device = await self._open()
                while time.perf_counter() < begun + seconds:
                    for prompt in tinypair.prompts(10):
                        generation = self._device.generate(
                            prompt,
                            sampling=Sampling(temperature=0.0),
                            mode="stop-and-wait",
                            gamma=4,
                            max_tokens=64,
                            eos_ids=(),
                        )
                        async for _token in generation:
                            if time.perf_counter() >= begun + seconds:
                                break
                        else:
                            seen.lost += generation.result.reconnects
                        if time.perf_counter() >= begun + seconds:
                            break
        except (LinkError, TimeoutError, OSError):
            seen.lost += 1
            if self._asked_s is not None:  # it is at least so late
                seen.delays_s.append(time.perf_counter() - self._asked_s)
            await self.close()
        seen.seconds = time.perf_counter() - begun
        return seen

    async def close(self) -> None:
        """The device leaves."""
        device, self._device = self._device, None
        if device is not None:
            with suppress(LinkError, OSError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await device.close()


class Seven:
    """Seven that send the frames of real generations; each must get its own's verdicts."""

    @staticmethod
    async def record(station: Station, bundle: Path) -> list[Recording]:
        """The real generations."""
        return await record(bundle, station.url, tinypair.prompts(7), TOKENS["phone"])

    def __init__(self, station: Station, recordings: list[Recording]) -> None:
        self._station, self._recordings = station, recordings

    async def write(self, seconds: float) -> Seen:
        """Text after text, each on a connection of its own."""
        seen, begun = Seen(), time.perf_counter()
        plays = [
            asyncio.create_task(self._play(one, seen, begun + seconds)) for one in self._recordings
        ]
        _, late = await asyncio.wait(plays, timeout=seconds + GRACE_S)
        for task in late:
            task.cancel()
            seen.delays_s.append(seconds + GRACE_S)
        seen.lost += len(late)
        await asyncio.gather(*set(plays) - late)  # raises what is no loss of a connection
        seen.seconds = time.perf_counter() - begun
        return seen

    async def close(self) -> None:
        """They have left after each text."""

    async def _play(self, one: Recording, seen: Seen, until: float) -> None:
        while time.perf_counter() < until:
            try:
                async with connect(
                    self._station.url + PATH,
                    compression=None,
                    additional_headers={"Authorization": f"Bearer {TOKENS['phone']}"},
                ) as socket:
                    await self._replay(Speaker(socket), one, seen, until)
            except GONE:
                seen.lost += 1
                await asyncio.sleep(PAUSE_S)

    async def _replay(self, speaker: Speaker, one: Recording, seen: Seen, until: float) -> None:
        socket, session = speaker.socket, speaker.session
        session.send(frames.decode(one.hello))
        await socket.send(one.hello)
        await speaker.hear()
        session.send(frames.decode(one.start))
        await socket.send(one.start)
        for draft, expected in zip(one.drafts, one.verdicts, strict=True):
            asked = time.perf_counter()
            session.send(frames.decode(draft))
            await socket.send(draft)
            verdict = await speaker.hear()
            assert isinstance(verdict, frames.Verdict), verdict
            assert essence(verdict) == expected, "beside others a device wrote another text"
            seen.delays_s.append(time.perf_counter() - asked)
            seen.tokens += verdict.accepted + (verdict.next is not None)
            if time.perf_counter() >= until:
                return


async def greeted_s(station: Station) -> float:
    """Seconds until a new device is connected and greeted; infinite after ``GREETED_S``."""
    dial = connector(TOKENS["phone"], station.authority)
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(GREETED_S):
            socket = await dial(station.url)
            await socket.send(frames.encode(hello()))
            data = await socket.recv()
            assert isinstance(data, bytes)
            if not isinstance(frames.decode(data), frames.Welcome):
                return math.inf
        seconds = time.perf_counter() - begun
        await socket.close()
    except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
        return math.inf
    return seconds
