"""Real conversations in memory: recorded, and replayed to either end with a frame in between."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any
from unittest import mock

from websockets.exceptions import ConnectionClosedError

import device_runtime.client
from bs_runtime.connection import Connection
from bs_runtime.generation import Round
from bs_runtime.scheduler import Served, step
from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
from draftlink import frames
from draftlink.session import Session
from tests.fakes import FakeTarget, fake_device, random_logits

SIZE = 20
CONTEXT = 48  # of the target: bounds what a hostile Start can have it write
EOS = 7
TARGET = random_logits(1, SIZE)
DRAFT = TARGET + random_logits(2, SIZE, 0.7)


@dataclass(frozen=True)
class Plan:
    """One device's generations, one after the other on one connection."""

    name: str
    options: dict[str, Any]
    context: int = 1 << 20  # the draft's

    async def speak(self, device: Device) -> None:
        """A whole text, a turn that is cancelled on the same slot, and a text with a stop string.

        A ValueError is what a caller gets for parameters that this base station does not take.
        """
        for turn in range(3):
            options = {"max_tokens": 9, "gamma": 3, "seed": 5 + turn, **self.options}
            stop = ("ab", "d") if turn == 2 else ()
            try:
                generation = device.generate([1, 2, 3], append=turn > 0, stop=stop, **options)
            except ValueError:
                return
            async for token in generation:
                # Whatever the base station sends: no more than was asked for, and no unknown ids.
                assert 0 <= token.id < SIZE and len(generation.tokens) <= options["max_tokens"]
                if turn == 1 and len(generation.tokens) == 2:
                    generation.cancel()


def _sampled(**changes: Any) -> dict[str, Any]:
    return {"sampling": Sampling(**{"temperature": 0.9, **changes})}


PLANS = [
    Plan("topk-lattice", {**_sampled(), "scheme": TopK(6, 16)}),
    Plan("topk-fp16", {**_sampled(top_p=0.9), "scheme": TopK(6, coding="fp16")}),
    Plan("topk-top-p", {**_sampled(top_k=9), "scheme": TopK(9, 64, mass=0.8)}),
    Plan("dense", {**_sampled(repetition_penalty=1.2), "scheme": Dense()}),
    Plan("split", {**_sampled(min_p=0.02), "scheme": Split(6, 16)}),
    Plan("coupled", {**_sampled(), "scheme": Coupled(), "learn_temperature": True}),
    Plan("learned", {**_sampled(), "scheme": Split(9, 64), "learn_temperature": True}),
    Plan("greedy", _sampled(temperature=0.0)),
    Plan("stream", {**_sampled(), "mode": "stream"}),
    Plan("switch", {**_sampled(), "scheme": Split(6, 16)}, context=9),
]


class Inline(Executor):
    """Runs work at once: nothing is left to the scheduling of threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


INLINE = Inline()
STATION_TARGET = FakeTarget(TARGET, CONTEXT)


class Alone:
    """A scheduler that runs each round at once; what was cached stays to be looked at."""

    def __init__(self, target: FakeTarget) -> None:
        self._target = target

    async def run(self, round: Round) -> Served:
        judgement = None
        while judgement is None:
            (judgement,) = step(self._target, [(round, round.left)])  # type: ignore[arg-type]
        return Served(judgement, 0, 0)

    def close(self, slot: object) -> None:
        pass


STATION_SCHEDULER = Alone(STATION_TARGET)


class Station:
    """The real ``Connection``, fed with a list of messages."""

    def __init__(self) -> None:
        self._inbox: list[bytes] = []
        self._pauses = 0
        self.sent: list[bytes] = []
        self.connection = Connection(
            STATION_TARGET,  # type: ignore[arg-type]
            STATION_SCHEDULER,  # type: ignore[arg-type]
            self._receive,
            self._send,
        )
        self.slot = STATION_TARGET.slots.pop()

    async def feed(self, messages: Sequence[bytes], pauses: int = 0) -> None:
        """Serve the messages, with so many turns of the event loop before the last of them."""
        self._inbox, self._pauses, self.sent = list(messages), pauses, []
        await self.connection.serve()

    def fork(self) -> Station:
        """A copy that shares the model and nothing that changes."""
        return copy.deepcopy(self, {id(x): x for x in (STATION_TARGET, STATION_SCHEDULER, TARGET)})

    async def _receive(self) -> bytes | None:
        if not self._inbox:
            return None
        if len(self._inbox) == 1:
            for _ in range(self._pauses):
                await asyncio.sleep(0)
        return self._inbox.pop(0)

    async def _send(self, data: bytes) -> None:
        self.sent.append(data)
        await asyncio.sleep(0)


class Script:
    """A socket of the device's: answers with a list of messages, and is closed after the last."""

    def __init__(self, messages: Sequence[bytes | str]) -> None:
        self._messages = list(messages)
        self._messages.reverse()
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def recv(self, decode: bool | None = None) -> bytes | str:
        if not self._messages:
            raise ConnectionClosedError(None, None)
        message = self._messages.pop()
        if decode is False and isinstance(message, str):  # as websockets has it
            return message.encode()
        return message

    async def close(self) -> None:
        pass


class _Live:
    """A socket of the device's whose other end is a connection in another task."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.down: asyncio.Queue[bytes] = asyncio.Queue()
        self.said: list[tuple[str, bytes]] = []

    async def send(self, data: bytes) -> None:
        self.said.append(("up", data))
        await self.up.put(data)

    async def recv(self, decode: bool | None = None) -> bytes:
        self.said.append(("down", await self.down.get()))
        return self.said[-1][1]

    async def close(self) -> None:
        await self.up.put(None)


async def converse(plan: Plan, socket: Any) -> Device:
    """The plan's real device on that socket. Raises what it raises."""

    async def connect(*_: Any, **__: Any) -> Any:
        return socket

    device = fake_device("ws://in-memory", DRAFT, eos_ids=(EOS,), context=plan.context)
    device.executor.shutdown(wait=False)
    device.executor = INLINE  # type: ignore[assignment]
    with mock.patch.object(device_runtime.client, "connect", connect):
        await device.open()
    try:
        await plan.speak(device)
    finally:
        # The draft's cache never holds anything but the history.
        cache = device.model.cache  # type: ignore[attr-defined]
        assert cache == device.history[: len(cache)]
        await socket.close()
    return device


@dataclass(frozen=True)
class Situation:
    """A base station in mid conversation. ``before`` is fed with what comes next: it streams."""

    station: Station
    before: tuple[bytes, ...]
    next: bytes  # what the device did say next


@dataclass(frozen=True)
class Recording:
    """What both ends of a plan said. ``sessions``: the device's before each frame down."""

    plan: Plan
    up: list[bytes]
    down: list[bytes]
    situations: list[Situation]
    sessions: list[Session]


async def record(plan: Plan) -> Recording:
    """Run the plan's device against a base station, then the base station alone."""
    live = _Live()
    target = FakeTarget(TARGET, CONTEXT)
    connection = Connection(target, Alone(target), live.up.get, live.down.put)  # type: ignore[arg-type]
    serving = asyncio.create_task(connection.serve())
    await converse(plan, live)
    await serving
    up = [data for direction, data in live.said if direction == "up"]
    down = [data for direction, data in live.said if direction == "down"]
    station, situations = Station(), []
    before: tuple[bytes, ...] = ()
    for data in up:
        situations.append(Situation(station, before, data))
        if before:
            station = station.fork()
            await station.feed(before)
            situations.append(Situation(station, (), data))
            before = ()
        if streams(data):
            before = (data,)
        else:
            station = station.fork()
            await station.feed([data])
    return Recording(plan, up, down, situations, _sessions(live.said))


def _sessions(said: Sequence[tuple[str, bytes]]) -> list[Session]:
    session, before = Session("device", SIZE), []
    for direction, data in said:
        if direction == "up":
            session.send(frames.decode(data))
        else:
            before.append(copy.copy(session))
            session.receive(data)
    return before


def streams(data: bytes) -> bool:
    """Whether the base station writes alone after this frame."""
    frame = frames.decode(data)
    return isinstance(frame, frames.Start | frames.Switch) and frame.mode == "stream"
