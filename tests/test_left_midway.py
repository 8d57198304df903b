"""Generations that are left in the middle, and what the device writes next.

Each way of leaving once made the next generation fail, or go on behind text that nobody had seen.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from dataclasses import replace

import pytest

from bs_runtime.operations.limits import OPEN
from device_runtime.device import LinkError
from draftlink.protocol.states import State
from tests.fake_models import FakeModel, fake_device
from tests.fakes import FakeTarget, served
from tests.fragile import connector
from tests.test_stopping import GREEDY, collect, cycle

NEXT = ["d", "e", "f", "g", "h"]  # behind "abc"


def write(device, **options):
    options = {"max_tokens": 5, "sampling": GREEDY, "mode": "stop-and-wait"} | options
    return device.generate("abc", **options)


def play(scenario, model=None, connect=None, **options) -> None:
    async def run(url: str) -> None:
        device = fake_device(url, cycle())
        device.model = model or device.model
        assert device.draft_context == device.model.context
        device._connect = connect or device._connect
        await scenario(device)

    with served(FakeTarget(cycle()), **options) as url:
        asyncio.run(run(url))


@pytest.mark.parametrize("mode", ["stop-and-wait", "run-ahead", "stream", "auto"])
def test_an_iterator_collected_during_the_next_generation_leaves_it_alone(mode):
    """``break`` closes no iterator: the garbage collector does, at any time."""

    async def scenario(device):
        async with device:
            async for _ in write(device, mode=mode, max_tokens=400):
                if len(device.history) > 8:
                    break
            texts = []
            async for token in write(device, mode=mode, max_tokens=60):
                texts.append(token.text)
                if len(texts) == 10:
                    gc.collect()
                    await asyncio.sleep(0)
            assert "".join(texts) == ("defghabc" * 8)[:60]
            assert len(device.history) == 63

    play(scenario)


def test_what_is_appended_follows_the_text_that_was_seen():
    async def scenario(device):
        async with device:
            seen = []
            async for token in write(device, gamma=6, max_tokens=50):
                seen.append(token.id)
                break
            begun = list(device.history)
            appended = device.generate("h", append=True, max_tokens=3, sampling=GREEDY)
            assert device.history == begun  # which is touched when the generation begins
            texts = await collect(appended)
            assert texts == ["a", "b", "c"]
            stood = device.history[:-4]
            assert len(begun) > len(stood)  # a block had come, of which one was seen
            assert stood[-1] == seen[-1]
            device.history += [1, 2]  # a conversation from elsewhere stays as it is
            texts = await collect(device.generate("d", append=True, max_tokens=2, sampling=GREEDY))
            assert texts == ["e", "f"] and device.history[-5:] == [1, 2, 3, 4, 5]

    play(scenario)


def test_a_generation_that_another_has_ended_says_so():
    async def scenario(device):
        async with device:
            first = asyncio.create_task(collect(write(device, max_tokens=10_000)))
            await asyncio.sleep(0)
            second = asyncio.create_task(collect(write(device, max_tokens=40)))
            assert "".join(await second) == ("defghabc" * 5)[:40]
            with pytest.raises(RuntimeError, match="another generation has begun"):
                await first
            assert await collect(write(device)) == NEXT

    play(scenario)


@pytest.mark.parametrize("how", ["cancel", "aclose", "timeout"])
@pytest.mark.parametrize("where", ["pause", "connect", "greet"])
def test_left_while_a_new_connection_is_made(how, where):
    lost, gate, there = False, asyncio.Event(), asyncio.Event()
    real = connector(lambda *_: False)

    async def never() -> bytes:
        there.set()
        await gate.wait()
        raise AssertionError

    async def connect(url):
        if lost and where == "pause":
            there.set()
            raise OSError("the network is unreachable")
        if lost and where == "connect":
            await never()
        socket = await real(url)
        if lost:
            socket.recv = never
        return socket

    async def scenario(device):
        nonlocal lost
        async with device:
            # Alone, it goes on while nothing is heard, so that there are tokens to stop at.
            offline = None if how == "timeout" else 0.01
            generation = write(device, max_tokens=400, offline_after_s=offline)
            iterator = aiter(generation)

            async def read() -> None:
                nonlocal lost
                async for _ in iterator:
                    if len(generation.tokens) == 8 and not lost:
                        lost = True
                        device.client.socket._abort()
                    if lost and there.is_set() and generation.provisional:
                        if how == "aclose":
                            await iterator.aclose()
                            return
                        generation.cancel()

            reading = asyncio.create_task(read())
            if how == "timeout":
                await there.wait()
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            else:
                await reading
            assert how != "cancel" or generation.result.stop_reason == "cancel"
            assert "".join(device.tokenizer.decode(generation.tokens)).startswith("defgh")
            lost = False
            assert await collect(write(device)) == NEXT

    play(scenario, connect=connect)


def test_refused_once_it_goes_on_with_what_is_allowed():
    async def scenario(device):
        async with device:
            with pytest.raises(LinkError, match="the base station refuses"):
                await collect(device.generate("abc" * 20, sampling=GREEDY))
            assert await collect(write(device)) == NEXT

    play(scenario, limits=replace(OPEN, prompt_tokens=30))


def test_left_while_the_end_is_confirmed():
    slow, there = asyncio.Event(), asyncio.Event()
    real = connector(lambda *_: False)

    async def connect(url):
        socket = await real(url)
        receive = socket.recv

        async def recv() -> bytes:
            if slow.is_set():
                there.set()
                await asyncio.Event().wait()
            return await receive()

        socket.recv = recv
        return socket

    async def scenario(device):
        async with device:
            generation = write(device, max_tokens=400)

            async def read() -> None:
                async for _ in generation:
                    if len(generation.tokens) == 5:
                        slow.set()
                        generation.cancel()

            reading = asyncio.create_task(read())
            await there.wait()
            assert device.client.session.state is State.FINISHING
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            slow.clear()
            for _ in range(2):
                assert await collect(write(device)) == NEXT

    play(scenario, connect=connect)


class Busy(FakeModel):
    """Says when a forward begins, ends it when it may, and knows whether it is cut back before."""

    busy = False
    disturbed = False
    begun = staticmethod(lambda: None)

    def __init__(self) -> None:
        super().__init__(cycle(), rows=False)
        self.may_end = threading.Event()
        self.may_end.set()

    def forward(self, ids):
        self.busy = True
        self.begun()
        self.may_end.wait()
        row = super().forward(ids)
        self.busy = False
        return row

    def rollback(self, length: int) -> None:
        self.disturbed |= self.busy
        super().rollback(length)


def test_a_cache_is_not_cut_back_under_a_forward():
    model = Busy()
    real = connector(lambda *_: False)
    lost = False

    async def connect(url):
        if lost:
            raise OSError("the network is unreachable")
        return await real(url)

    async def scenario(device):
        nonlocal lost
        loop, under_way = asyncio.get_running_loop(), asyncio.Event()
        async with device:
            generation = write(device, max_tokens=400, gamma=4, offline_after_s=0.01)

            async def read() -> None:
                nonlocal lost
                async for _ in generation:
                    if len(generation.tokens) == 8 and not lost:
                        lost = True
                        device.client.socket._abort()
                    if len(generation.provisional) == 8:
                        model.may_end.clear()
                        model.begun = lambda: loop.call_soon_threadsafe(under_way.set)

            reading = asyncio.create_task(read())
            await under_way.wait()
            reading.cancel()
            for _ in range(20):  # rounds of the loop: all that does not wait for the forward
                await asyncio.sleep(0)
            model.may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert not model.disturbed
            assert model.cache == device.history[: len(model.cache)]

    play(scenario, model, connect)
