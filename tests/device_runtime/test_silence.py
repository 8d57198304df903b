"""Deadlines and patience in virtual time, with the seconds that devices really wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bench.virtual.loop import VirtualLoop
from device_runtime.device import Device, Sampling
from device_runtime.transport.connecting import LinkError, Lost
from device_runtime.transport.patience import Patience
from device_runtime.transport.silence import Deadlines, Silence
from draftlink.protocol import frames
from draftlink.protocol.states import State
from tests.fake_models import fake_device
from tests.hostile.stations import TABLE, WRITES_BOTH, Peer, Talk, begins, greets, in_memory, silent

PROMPT = [1, 2, 3]
GREEDY = Sampling(temperature=0.0)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())  # type: ignore[arg-type]


def device_on(talk: Talk) -> tuple[Device, list[int]]:
    connect, made = in_memory(talk)
    device = fake_device("ws://in-memory", TABLE)
    device._connect = connect
    return device, made


async def text(device: Device, mode: str = "stream", count: int = 4) -> list[int]:
    options = {"mode": mode, "max_tokens": count, "sampling": GREEDY, "gamma": 2}
    return [token.id async for token in device.generate(PROMPT, **options)]


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_base_station_without_a_welcome_is_given_up_after_15_s():
    async def talk(peer: Peer, _: int) -> None:
        await silent(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        with pytest.raises(LinkError, match=r"no base station at .* said nothing for 15 s"):
            await device.open()
        assert now() == pytest.approx(15.0) and len(made) == 1

    play(scenario)


@pytest.mark.parametrize("mode", ["stream", "stop-and-wait", "run-ahead", "both"])
def test_work_of_ten_times_the_deadline_completes_as_long_as_it_is_told_of(mode):
    async def talk(peer: Peer, _: int) -> None:
        start = await begins(peer, WRITES_BOTH)
        epoch, base, accepted = 1, start.begins, 0
        if mode not in ("stream", "both"):
            draft = await peer.hears()
            assert isinstance(draft, frames.Draft)
            accepted = draft.length
        for fed in range(30):
            await asyncio.sleep(10.0)
            # Told once of each step, as it may be that no more than the step before was done.
            await peer.says(frames.Progress(1, fed // 2, 30, 0))
        if mode == "stream":
            await peer.says(frames.Tokens(epoch, base, (5, 6, 7, 8), True))
        elif mode == "both":
            await peer.says(frames.Written(base, (5, 6, 7, 8), 0, True, 0, 0))
        elif mode == "stop-and-wait":
            await peer.says(frames.Verdict(epoch, base, accepted, 4, True, 0, 0))
        else:
            await peer.says(frames.Verdict(epoch, base, accepted, None, True, 0, 0))
        await silent(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            assert await text(device, mode)
        assert now() == pytest.approx(300.0, abs=1.0) and len(made) == 1

    play(scenario)


@pytest.mark.parametrize("mode", ["stream", "stop-and-wait", "run-ahead", "both"])
def test_three_missing_frames_of_progress_are_a_lost_connection(mode):
    """Whatever the device sends meanwhile: its own drafts are no word of the base station's."""

    async def talk(peer: Peer, number: int) -> None:
        start = await begins(peer, WRITES_BOTH)
        if not number:
            await peer.says(frames.Progress(start.generation, 1, 3, 2))
            await silent(peer)
        if mode == "stream":
            await peer.says(frames.Tokens(1, start.begins, (5, 6, 7, 8), True))
        elif mode == "both":
            await peer.says(frames.Written(start.begins, (5, 6, 7, 8), 0, True, 0, 0))
        else:
            draft = await peer.hears()
            assert isinstance(draft, frames.Draft)
            more = 4 if mode == "stop-and-wait" else None
            await peer.says(frames.Verdict(1, start.begins, draft.length, more, True, 0, 0))
        await silent(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            assert await text(device, mode)
        assert now() == pytest.approx(30.0, abs=1.0) and len(made) == 2

    play(scenario)


def test_a_device_that_waits_for_nothing_may_wait_for_ever():
    """Between generations, and while its user looks at what has come, nothing is due."""

    async def talk(peer: Peer, _: int) -> None:
        start = await begins(peer)
        await peer.says(frames.Tokens(1, start.begins, (5, 6), False))
        await peer.says(frames.Tokens(1, start.begins + 2, (7, 8), True))
        start = await peer.hears()
        assert isinstance(start, frames.Start)
        await peer.says(frames.Tokens(2, start.begins, (5, 6, 7, 8), True))
        await silent(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            tokens = []
            async for token in device.generate(PROMPT, mode="stream", max_tokens=4):
                tokens.append(token.id)
                await asyncio.sleep(1000.0)
            assert tokens == [5, 6, 7, 8]
            await asyncio.sleep(10_000.0)
            assert await text(device) == tokens
        assert len(made) == 1

    play(scenario)


@pytest.mark.parametrize("end", ["Finish", "Resume"])
def test_an_end_or_a_new_beginning_that_is_not_answered(end):
    async def talk(peer: Peer, number: int) -> None:
        await greets(peer)
        if end == "Finish" and number:
            await silent(peer)
        start = await peer.hears()
        if end == "Resume" and number:
            assert isinstance(start, frames.Resume)
            await silent(peer)
        assert isinstance(start, frames.Start)
        await peer.says(frames.Tokens(1, start.begins, (5,), False))
        if end == "Finish" and not number:
            await peer.says(frames.Tokens(1, start.begins + 1, (6,), False))
            assert isinstance(await peer.hears(), frames.Finish)
            await silent(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            generation = device.generate(PROMPT, mode="stream", max_tokens=9)
            if end == "Finish":
                async for _ in generation:
                    generation.cancel()
                assert generation.result.tokens == [5] and len(made) == 2
                assert now() == pytest.approx(30.0, abs=1.0)
                return
            with pytest.raises(LinkError, match=r"has gone \(it said nothing for 30 s\)"):
                async for _ in generation:
                    pass
        assert generation.tokens == [5] and 60.0 <= now() < 100.0 and len(made) <= 4

    play(scenario)


def test_a_base_station_that_reads_nothing_is_a_lost_connection():
    async def talk(peer: Peer, _: int) -> None:
        await greets(peer)
        await silent(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        connect, stuck = device._connect, asyncio.Event()

        async def full(url: str):
            socket = await connect(url)
            send = socket.send

            async def sends(message: bytes) -> None:
                if isinstance(frames.decode(message), frames.Start | frames.Resume):
                    await stuck.wait()
                await send(message)

            socket.send = sends
            return socket

        device._connect = full
        async with device:
            with pytest.raises(LinkError, match="has gone"):
                await text(device)
        assert 60.0 <= now() < 100.0 and len(made) <= 4

    play(scenario)


def test_a_base_station_that_resumes_and_closes_is_called_some_20_times():
    async def talk(peer: Peer, _: int) -> None:
        await begins(peer)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            with pytest.raises(LinkError, match="has gone"):
                await text(device)
        assert 60.0 <= now() < 61.0 and 15 <= len(made) <= 30

    play(scenario)


def test_a_base_station_that_tells_a_token_a_connection_is_followed_to_the_end():
    """Each is a step: the generation moves, so patience does not end, and there are no pauses."""

    async def talk(peer: Peer, number: int) -> None:
        start = await begins(peer)
        await peer.says(frames.Tokens(1, start.begins + number, (5,), number == 39))
        await asyncio.sleep(5.0)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            assert await text(device, count=40) == 40 * [5]
        assert now() == pytest.approx(39 * 5.0, abs=6.0) and len(made) == 40

    play(scenario)


def test_a_long_prompt_outlives_a_link_that_is_cut_again_and_again():
    """No token for 400 s, but more of the prompt is fed each time: patience is for who is gone."""

    async def talk(peer: Peer, number: int) -> None:
        start = await begins(peer)
        await peer.says(frames.Progress(start.generation, 1 + number, 11, 0))
        if number == 10:
            await peer.says(frames.Tokens(1, start.begins, (5, 6, 7, 8), True))
        await asyncio.sleep(25.0)

    async def scenario() -> None:
        device, made = device_on(talk)
        async with device:
            assert await text(device) == [5, 6, 7, 8]
        assert 250.0 < now() < 320.0 and len(made) == 11

    play(scenario)


def test_patience():
    patience, lost = Patience(60.0), Lost("gone")
    assert patience.after(100.0, lost) == 0.0
    assert 0.05 <= patience.after(100.0, lost) <= 0.1
    assert 0.1 <= patience.after(101.0, lost) <= 0.2
    for _ in range(9):
        assert patience.after(110.0, lost) <= 5.0
    assert patience.after(159.9, lost) <= 0.1  # no longer than it lasts
    patience.heard(frames.Progress(1, 0, 5, 0), 159.9)  # which says that nothing was done
    assert patience.after(160.0, lost) is None
    patience.heard(frames.Progress(1, 1, 5, 0), 160.0)
    assert patience.after(219.0, lost) is not None and patience.after(220.0, lost) is None
    assert 3.5 <= patience.after(300.0, Lost("busy", 7)) <= 7.0
    patience.heard(frames.Done(1, 3, 1), 300.0)
    assert patience.after(1000.0, lost) == 0.0
    patience.heard(frames.Written(3, (5,), 0, False, 0, 0), 1001.0)
    assert patience.after(2000.0, lost) == 0.0


def test_what_is_sent_once_time_is_up_changes_nothing():
    """While the connection is closed, which takes seconds where nobody answers; a laptop that was
    asleep finds several of these at once."""

    class Mute:
        async def recv(self) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def close(self) -> None:
            silence.sends()
            await asyncio.sleep(3.0)

    session: Any = SimpleNamespace(state=State.GREETING)
    silence = Silence(session, Deadlines(welcome_s=15.0))

    async def scenario() -> None:
        silence.sends()
        asyncio.get_running_loop().call_later(15.0, silence.sends)
        asyncio.get_running_loop().call_later(16.0, silence.sends)
        with pytest.raises(Lost, match="said nothing for 15 s"):
            await silence.hear(Mute())
        assert now() == pytest.approx(18.0)

    play(scenario)
