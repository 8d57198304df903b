"""What is no frame at all, over real sockets and cut-off ones."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import torch
from websockets.asyncio.client import connect

from bs_runtime.engine.generation import Generation
from bs_runtime.verify import verify
from device_runtime.device import Sampling, Split, TopK
from device_runtime.transport import client as device_client
from device_runtime.transport.client import Client
from device_runtime.transport.connecting import LinkError
from draftlink.distribution import noise
from draftlink.protocol import frames
from tests.fake_models import HASH, FakeModel, fake_device, random_logits
from tests.fakes import FakeTarget, served
from tests.hostile.conversations import MEMORY, Kept, Script, Station, converse, record
from tests.hostile.plans import PLANS, SIZE, TARGET


def test_a_text_message_is_refused_by_the_base_station():
    async def run(url: str) -> frames.Frame:
        async with connect(url + "/v1/draft") as socket:
            await socket.send("\x02\x00\x00\x00\x00")  # would be a draft, were it binary
            return frames.decode(await socket.recv(decode=False))

    with served(FakeTarget(TARGET)) as url:
        answer = asyncio.run(run(url))
    assert isinstance(answer, frames.Refused) and answer.code == "protocol"


def test_a_text_message_is_refused_by_the_device():
    async def run() -> None:
        recording = await record(PLANS[0])
        text = frames.encode(frames.Tokens(1, 3, (5,), True)).decode()
        with pytest.raises(LinkError, match="a text message"):
            await converse(PLANS[0], Script([recording.down[0][0], text]))

    asyncio.run(run())


def test_a_base_station_that_does_not_close_is_not_waited_for(monkeypatch):
    class Deaf(Script):
        async def close(self) -> None:
            await asyncio.Event().wait()

    async def run() -> None:
        recording = await record(PLANS[0])

        async def deaf(url: str) -> Deaf:
            return Deaf(recording.down[0][:1])

        client = Client("ws://x", HASH, SIZE, deaf)
        await client.open()
        timeout = asyncio.timeout
        monkeypatch.setattr(device_client.asyncio, "timeout", lambda seconds: timeout(0.01))
        await client.close()

    asyncio.run(run())


def test_a_stream_that_fails_is_told(monkeypatch):
    """The device listens: without a word it would wait for ever."""

    async def run() -> list[frames.Frame]:
        recording = await record(next(plan for plan in PLANS if plan.name == "stream"))
        start = recording.situations[1]
        station = Station(start.kept)
        monkeypatch.setattr(Generation, "next", lambda generation: 1 // 0)
        await station.feed([start.next])
        return [frames.decode(data) for data in station.sent]

    (answer,) = asyncio.run(run())
    assert isinstance(answer, frames.Refused) and answer.code == "internal"


def test_a_token_that_was_owed_and_fills_the_context_has_no_draft_behind_it():
    """max_tokens would leave room; the target's context does not."""
    params = Sampling()
    start = frames.Start(1, 0, [1, 2], params, Split(6, 16), "draft", 9, [], 1)
    generation = Generation(FakeModel(TARGET, rows=True), start, [1, 2], SIZE, 3, bytes(32))
    with pytest.raises(ValueError, match="fills the context"):
        generation.decode([frames.Draft(1, 2, 0, b"", first=3)])


def test_any_top_k_that_fits_a_frame_beside_a_small_one():
    """Sessions of one step share a tensor of limits: one's must not spoil another's."""
    logits = torch.from_numpy(random_logits(3, SIZE)[:2].copy())
    jobs = [
        verify.Job((), [1], Sampling(top_k=k), TopK(), noise.key_from_seed(1, "bs"))
        for k in (3, 2**64 - 1)
    ]
    p = verify.distributions(logits, jobs)
    assert [int((row > 0).sum()) for row in p] == [3, SIZE]


def test_ids_that_the_smaller_vocabulary_lacks():
    async def run(url: str) -> None:
        async with fake_device(url, TARGET[:8, :8]) as device:
            assert device.client.session.vocab_size == 8
            with pytest.raises(ValueError, match="not among the 8"):
                device.generate([1, 9])

    with served(FakeTarget(TARGET)) as url:
        asyncio.run(run(url))


def test_a_connection_that_only_greeted_leaves_what_was_kept():
    """The link is lost again before Resume comes: the base station still knows the generation."""

    async def run() -> list[frames.Frame]:
        recording = await record(next(plan for plan in PLANS if plan.name == "resumed"))
        situations = recording.situations
        at = next(
            i for i, s in enumerate(situations) if isinstance(frames.decode(s.next), frames.Resume)
        )
        new, hello = situations[at - 1].kept, situations[at - 1].next
        await Station(new).feed([hello])  # and gone
        again = Station(Kept(new.fields, MEMORY._known, None))
        await again.feed([hello, situations[at].next], pauses=9)  # behind the Welcome
        return [frames.decode(data) for data in again.sent]

    answers = asyncio.run(run())
    assert isinstance(answers[1], frames.Resumed) and not answers[1].replay


def test_a_generation_does_not_go_on_with_another_target():
    async def run() -> None:
        plan = next(plan for plan in PLANS if plan.name == "resumed")
        recording = await record(plan)
        welcome = frames.decode(recording.down[1][0])
        assert isinstance(welcome, frames.Welcome)
        other = frames.encode(msgspec.structs.replace(welcome, model="another"))
        with pytest.raises(LinkError, match="now serves another target"):
            first = Script(recording.down[0], recording.after[0])
            await converse(plan, first, Script([other, *recording.down[1][1:]]))

    asyncio.run(run())
