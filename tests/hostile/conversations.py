"""Real conversations in memory: recorded, and replayed to either end with a frame in between."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosedError

from bs_runtime.engine.generation import Round
from bs_runtime.engine.prices import Prices
from bs_runtime.engine.turns import Turns
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from bs_runtime.verify.job import Outcome
from device_runtime.device import Device
from device_runtime.transport.connecting import LinkError, Lost
from device_runtime.transport.patience import Patience
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.protocol.states import State
from tests.fake_models import FakeModel, fake_device
from tests.fakes import FakeTarget, stepped
from tests.hostile.plans import DRAFT, EOS, SIZE, TARGET, Plan

CONTEXT = 48  # of the target: bounds what a hostile Start can have it write


class Inline(Executor):
    """Runs work at once: nothing is left to the scheduling of threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Alone:
    """A scheduler that runs each round at once; what was cached stays to be looked at."""

    def __init__(self, target: FakeTarget) -> None:
        self._target = target
        self.turns = Turns()
        self.prices = Prices()

    def run(self, round: Round) -> asyncio.Future[Outcome]:
        outcome, done = None, asyncio.get_running_loop().create_future()
        while outcome is None:
            (outcome,) = stepped(self._target, [(round, round.left)])  # type: ignore[arg-type]
        done.set_result(outcome)
        return done

    def sits_out(self, slot: object) -> None:
        pass

    def close(self, slot: object) -> None:
        pass


INLINE = Inline()
STATION_TARGET = FakeTarget(TARGET, CONTEXT)
SCHEDULER = Alone(STATION_TARGET)
SEALER = Sealer(bytes(32))  # one for all: tickets of recordings are true at every station


def conversations() -> Conversations:
    """A base station's memory."""
    return Conversations(
        STATION_TARGET.open,  # type: ignore[arg-type]
        SCHEDULER.close,
        SEALER,
        grace_s=5.0,  # a timer of each connection holds on to it for so long
    )


BOTH = ("_paths", "_proposals")  # what has been proposed
MEMORY = conversations()  # of the station that is under test now


@dataclass(frozen=True)
class Kept:
    """What a connection at the base station and its memory hold between two frames."""

    fields: dict[str, Any]  # of the connection's worker
    known: Any  # the conversations
    both: dict[str, Any] | None  # of its side, where both ends write

    @classmethod
    def of(cls, connection: Connection, memory: Conversations) -> Kept:
        """A copy."""
        names = ("_session", "conversation", "_asked", "drafts", "_prompt")
        fields = {name: vars(connection._worker)[name] for name in names}
        both = connection._worker._both
        own = None if both is None else {name: vars(both)[name] for name in BOTH}
        kept = cls(fields, memory._known, own).copied(connection)
        for conversation in kept.known.values():
            conversation.owner = None
        return kept

    def copied(self, *shared: object) -> Kept:
        """A copy that shares the model and nothing that changes."""
        memo = {id(x): x for x in (STATION_TARGET, SCHEDULER, TARGET, *shared)}
        return copy.deepcopy(self, memo)

    @property
    def quiet(self) -> bool:
        """Whether the base station does nothing until it hears from the device."""
        busy = (State.STREAMING, State.SWITCHING, State.WRITING, State.FINISHING)
        work = any(self.fields[name] for name in ("_asked", "drafts", "_prompt"))
        return not work and self.fields["_session"].state not in busy


class Station:
    """The real ``Connection``, in the midst of a conversation, fed with a list of messages."""

    def __init__(self, kept: Kept) -> None:
        kept = kept.copied()
        now = asyncio.get_running_loop().time()
        MEMORY._known = kept.known
        for conversation in kept.known.values():
            conversation.parked_s = now
        self._inbox: list[bytes] = []
        self._pauses = 0
        self.sent: list[bytes] = []
        self.connection = Connection(
            STATION_TARGET,  # type: ignore[arg-type]
            SCHEDULER,  # type: ignore[arg-type]
            MEMORY,
            self._receive,
            self._send,
        )
        connection = self.connection
        vars(connection._worker).update(kept.fields)
        connection._session = connection._out._session = connection._worker._session
        if self.conversation is not None:
            self.conversation.owner = self.connection
        if kept.both is not None:
            worker = connection._worker
            worker._both = worker._writes_too()
            vars(worker._both).update(kept.both)

    @property
    def conversation(self) -> Any:
        """The one that the device is in."""
        return self.connection._worker.conversation

    @property
    def slot(self) -> FakeModel:
        """The cache of the conversation, or of the one that could be gone on with."""
        known = [self.conversation, *MEMORY._known.values()]
        slots = [one.slot for one in known if one is not None]
        return slots[0] if slots else FakeModel(TARGET, rows=True)

    async def feed(self, messages: Sequence[bytes], pauses: int = 0) -> None:
        """Serve the messages, with so many turns of the event loop before the last of them.

        The device goes once the base station has nothing more to do.
        """
        self._inbox, self._pauses = list(messages), pauses
        await self.connection.serve()

    async def _receive(self) -> bytes | None:
        if not self._inbox:
            await self._rest()
            return None
        if len(self._inbox) == 1:
            for _ in range(self._pauses):
                await asyncio.sleep(0)
        return self._inbox.pop(0)

    async def _rest(self) -> None:
        """Come back when nothing has happened for some turns of the event loop."""
        still, before = 0, None
        while still < 5:
            now = (len(self.sent), self.connection._session.state, self.slot.forwards)
            decoding = SCHEDULER.turns.busy  # in turns, with pauses between them
            still = still + 1 if now == before and not decoding else 0
            before = now
            await asyncio.sleep(0)

    async def _send(self, data: bytes) -> None:
        self.sent.append(data)
        await asyncio.sleep(0)


class Script:
    """A socket of the device's: answers with a list of messages, and is closed after the last.

    ``after``: how many the device had sent before it heard each. For one that now sends fewer they
    come all the same.
    """

    def __init__(self, messages: Sequence[bytes | str], after: Sequence[int] = ()) -> None:
        self._messages = list(messages)
        self._messages.reverse()
        self._after = list(after) + [0] * (len(messages) - len(after))
        self._after.reverse()
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def recv(self, decode: bool | None = None) -> bytes | str:
        if not self._messages:
            raise ConnectionClosedError(None, None)
        for _ in range(50):
            if len(self.sent) >= self._after[-1]:
                break
            await asyncio.sleep(0)
        self._after.pop()
        return self._messages.pop()

    async def close(self) -> None:
        pass


def scripts(each: Sequence[Script]) -> Callable[[str], Awaitable[Script]]:
    """A ``connect`` that gives one script after the other, and then nothing."""
    left = list(each)

    async def connect(url: str) -> Script:
        if not left:
            raise LinkError("nobody is there")
        return left.pop(0)

    return connect


def in_memory(plan: Plan, connect: Any) -> Device:
    """The plan's real device on what ``connect`` gives."""
    device = fake_device("ws://in-memory", DRAFT, eos_ids=(EOS,), context=plan.context)
    device.worker.executor.shutdown(wait=False)
    device.worker.executor = INLINE  # type: ignore[assignment]
    device._connect = connect
    return device


class Tries(Patience):
    """As many attempts as there are scripts, and none is waited for."""

    def after(self, now: float, lost: Lost) -> float:
        return 0.0


async def run(plan: Plan, device: Device) -> None:
    """The device's part of the plan. Raises what it raises."""
    await device.open()
    device.client._patience = Tries(0.0)
    try:
        await plan.speak(device)
    finally:
        # The draft's cache never holds anything but the history.
        cache = device.model.cache  # type: ignore[attr-defined]
        assert cache == device.history[: len(cache)]
        await device.close()


async def converse(plan: Plan, *each: Script) -> None:
    """The plan's device against scripts, one for each connection. Raises what it raises."""
    await run(plan, in_memory(plan, scripts(each)))


@dataclass(frozen=True)
class Situation:
    """A base station in mid conversation, and what the device did say next."""

    kept: Kept
    next: bytes


@dataclass
class Recording:
    """What both ends of a plan said. ``down``: each connection's frames; ``after``: how many the
    device had sent before it heard each; ``sessions``: the device's session then.
    """

    plan: Plan
    up: list[bytes] = field(default_factory=list)
    down: list[list[bytes]] = field(default_factory=list)
    after: list[list[int]] = field(default_factory=list)
    situations: list[Situation] = field(default_factory=list)
    sessions: list[list[Session]] = field(default_factory=list)
    heard: int = 0  # frames down, those that were lost with their connection included


class _Live:
    """A socket of the device's whose other end is a connection in another task."""

    def __init__(self, device: Device, recording: Recording, memory: Conversations) -> None:
        self._device = device
        self._recording = recording
        self._memory = memory
        self._up: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._down: asyncio.Queue[bytes] = asyncio.Queue(2)  # a stream waits to be read
        self._lost = False
        self._sent = 0
        recording.down.append([])
        recording.after.append([])
        recording.sessions.append([])
        self._connection = Connection(
            STATION_TARGET,  # type: ignore[arg-type]
            SCHEDULER,  # type: ignore[arg-type]
            memory,
            self._receive,
            self._down.put,
        )
        self._serving = asyncio.create_task(self._connection.serve())

    async def _receive(self) -> bytes | None:
        data = await self._up.get()
        if data is not None:
            kept = Kept.of(self._connection, self._memory)
            self._recording.situations.append(Situation(kept, data))
        return data

    async def send(self, data: bytes) -> None:
        if self._lost:
            raise ConnectionClosedError(None, None)
        self._sent += 1
        self._recording.up.append(data)
        await self._up.put(data)

    async def recv(self, decode: bool | None = None) -> bytes:
        data = await self._down.get()
        if not isinstance(frames.decode(data), frames.Welcome | frames.Resumed):
            self._recording.heard += 1
            if self._recording.heard - 1 in self._recording.plan.breaks:
                self._lost = True
                raise ConnectionClosedError(None, None)
        self._recording.sessions[-1].append(copy.deepcopy(self._session()))
        self._recording.down[-1].append(data)
        self._recording.after[-1].append(self._sent)
        return data

    def _session(self) -> Session:
        if self._device._own.opened:
            return self._device.client.session
        session = Session("device", SIZE)  # that which the device is opening
        session.send(frames.decode(self._recording.up[0]))
        return session

    async def close(self) -> None:
        await self._up.put(None)
        await self._serving


async def record(plan: Plan) -> Recording:
    """Run the plan's device against a base station."""
    recording, memory = Recording(plan), conversations()

    async def connect(url: str) -> _Live:
        if recording.down and plan.forgets:
            memory._known.clear()
        return _Live(device, recording, memory)

    device = in_memory(plan, connect)
    await run(plan, device)
    assert len(recording.down) == 1 + len(plan.breaks), "a break that never came"
    STATION_TARGET.slots.clear()
    return recording
