"""The law of ``auto`` where it changes between drafting ahead and streaming, over real sockets.

Verdicts land when the next token has just been drawn, and is held if it is a likely one. Then the
controller leaves drafting: whether that token is judged must not hang on which it is.
"""

from __future__ import annotations

import asyncio
import itertools
import threading

import numpy as np
import pytest

from device_runtime.device import Split, TopK
from device_runtime.drafting.controller import Controller, DraftPlan
from device_runtime.drafting.epochs import Epochs
from device_runtime.drafting.estimators import Estimates
from device_runtime.transport.connecting import connect_websocket
from device_runtime.writers.drafting import Drafting
from device_runtime.writers.writing import Writing
from draftlink.protocol import frames
from tests.fake_models import FakeModel, fake_device
from tests.fakes import FakeTarget, served
from tests.test_exactness import ERROR_RATE, chi_square

P = np.array([0.4, 0.15, 0.15, 0.15, 0.15])
Q = np.array([0.6, 0.1, 0.1, 0.1, 0.1])  # token 0 is a likely one
SIZE = len(P)


class Alternating(Controller):
    """Leaves drafting with every verdict, and streaming with every second token."""

    streamed_tokens = 0

    def begin(self, *, near: bool, unread: int):
        return self.writer

    def streamed(self, tokens: int) -> None:
        self.streamed_tokens += tokens

    def choose(self, left: int):
        if self.writer == "stream":
            if self.streamed_tokens >= 2:
                self.writer, self.streamed_tokens = "run-ahead", 0
        else:
            self.writer = "stream"
        return self.writer

    def plan(self, mode):
        return DraftPlan(2, waits=False, sure=0.5, window=16)


class Gated(FakeModel):
    """No forward begins while a verdict is to land before it."""

    def __init__(self) -> None:
        super().__init__(np.tile(np.log(Q), (SIZE, 1)), rows=False)
        self.gate = threading.Event()
        self.gate.set()

    def forward(self, ids):
        self.gate.wait()
        return super().forward(ids)


def counts(monkeypatch, scheme, count: int) -> np.ndarray:
    """Counts (V,) of so many tokens, the first behind verdicts with which drafting is left, where
    the epoch goes on.
    """
    model, drawn, behind = Gated(), asyncio.Event(), set[int]()
    held = 0
    event, append, apply = Writing.event, Epochs.append, Drafting._apply

    async def seen_event(self, *until_s):
        if self.job is None:  # nothing is being drawn: there is nothing to land behind
            drawn.set()
        await event(self, *until_s)

    def seen_append(self, proposed):
        append(self, proposed)
        if proposed and self._flight.sent:
            model.gate.clear()
            drawn.set()

    async def seen_apply(self, verdict):
        nonlocal held
        model.gate.set()
        held += not verdict.closes and bool(self._writing.window._epochs._flight.block)
        drawn.clear()
        batch = await apply(self, verdict)
        if not verdict.closes:
            behind.add(len(self._writing.history))
        return batch

    async def connect(url):
        socket = await connect_websocket(url)
        send, receive = socket.send, socket.recv

        async def sending(data):
            if isinstance(frames.decode(data), frames.Draft) and model.gate.is_set():
                drawn.clear()
            await send(data)

        async def receiving():
            data = await receive()
            if isinstance(frames.decode(data), frames.Verdict):
                await drawn.wait()
            return data

        socket.send, socket.recv = sending, receiving
        return socket

    monkeypatch.setattr("device_runtime.generation.Controller", Alternating)
    monkeypatch.setattr(
        "device_runtime.drafting.estimators.Acceptance.probability",
        lambda self, chance: 0.99 if chance > 0.2 else 0.1,
    )
    # The base station is always free, and a message costs nothing: an unlikely token is sent.
    monkeypatch.setattr(Estimates, "verify_s", 0.0)
    monkeypatch.setattr(Estimates, "stall_s", 0.0)
    monkeypatch.setattr(Epochs, "_holds", lambda self, now: False)
    monkeypatch.setattr(Writing, "event", seen_event)
    monkeypatch.setattr(Epochs, "append", seen_append)
    monkeypatch.setattr(Drafting, "_apply", seen_apply)
    found = np.zeros(SIZE, dtype=np.int64)

    async def run(url: str) -> None:
        device = fake_device(url, model.table)
        device.model, device._connect = model, connect
        async with device:
            for seed in itertools.count():
                if found.sum() >= count:
                    return
                generation = device.generate([0], max_tokens=200, scheme=scheme, seed=seed)
                behind.clear()
                async for token in generation:
                    found[token.id] += len(generation.tokens) in behind
                assert generation.result.mode == "stream, then run-ahead"

    with served(FakeTarget(np.tile(np.log(P), (SIZE, 1)))) as url:
        asyncio.run(run(url))
    assert held > count / 8
    return found


@pytest.mark.parametrize(
    "count", [1_000, pytest.param(10_000, marks=pytest.mark.full)], ids=["1k", "10k"]
)
@pytest.mark.parametrize("scheme", [TopK(4, 16), Split(4, 16)], ids=["topk", "split"])
def test_forced_changes_of_mode_do_not_change_the_law(monkeypatch, scheme, count):
    found = counts(monkeypatch, scheme, count)
    assert chi_square(found, P) > ERROR_RATE


def test_dropping_what_is_held_fails(monkeypatch):
    """Negative control: the base station writes the position of a likely token afresh."""
    leave = Epochs._leave

    def dropping(self, now):
        flight = self._flight
        flight._length -= len(flight.block)
        flight.block = []
        return leave(self, now)

    monkeypatch.setattr(Epochs, "_leave", dropping)
    found = counts(monkeypatch, TopK(4, 16), 1_000)
    assert chi_square(found, P) < ERROR_RATE


@pytest.mark.parametrize(("near_s", "begins"), [(1.0, "stop-and-wait"), (0.0, "stream")])
def test_at_a_loopback_address_the_device_writes_first(monkeypatch, near_s, begins):
    """Both ends then agree who does: the text goes on to its end."""
    monkeypatch.setattr("device_runtime.drafting.controller.NEAR_S", near_s)
    table = np.tile(np.log(P), (SIZE, 1))

    async def run(url: str) -> str:
        async with fake_device(url, table) as device:
            generation = device.generate([0], max_tokens=20, scheme=TopK(4, 16), seed=1)
            assert len([token async for token in generation]) == 20
            return generation.result.mode

    with served(FakeTarget(table)) as url:
        assert asyncio.run(run(url)).startswith(begins)
