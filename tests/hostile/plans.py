"""What devices do in the conversations that are recorded, and later spoilt."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
from draftlink.coding.ids import IdModel
from draftlink.distribution import noise
from draftlink.distribution.sampling import distribution
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.protocol.states import State
from draftlink.schemes import AnyScheme
from draftlink.schemes.base import ID_ENTRIES
from tests.fake_models import random_logits

SIZE = 20
EOS = 7
TARGET = random_logits(1, SIZE)
DRAFT = TARGET + random_logits(2, SIZE, 0.7)
AT_POINT_NINE = Sampling(temperature=0.9)


@dataclass(frozen=True)
class Plan:
    """One device's generations, one after the other.

    ``breaks``: the numbers, from 0, of the frames down (but Welcome and Resumed) that are lost
    with their connection; ``forgets``: the base station then forgets everything but the key of its
    tickets.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    context: int = 1 << 20  # the draft's
    breaks: tuple[int, ...] = ()
    forgets: bool = False

    async def speak(self, device: Device) -> None:
        """A whole text, a turn that is cancelled on the same slot, and a text with a stop string.

        A ValueError is what a caller gets for parameters that this base station does not take.
        """
        for turn in range(3):
            options = {"mode": "stop-and-wait", "max_tokens": 9, "gamma": 3, "seed": 5 + turn}
            options |= self.options
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


@dataclass(frozen=True)
class Ahead(Plan):
    """Drafts in flight and switches both ways, by the session's rules alone."""

    scheme: AnyScheme = Coupled()  # noqa: RUF009 - frozen

    async def speak(self, device: Device) -> None:
        """Three drafts at a time until the text ends, with a stream in the middle of it."""
        client, session, history = device.client, device.client.session, device.history
        if client.welcome.vocab_size < SIZE:  # this draft knows ids that the target has not
            return
        history[:] = [1, 2, 3]
        most, owed, rounds = 40, None, 0
        flight: deque[list[int]] = deque()
        await client.send(
            frames.Start(1, 0, [*history], AT_POINT_NINE, self.scheme, "draft", most, [], 5)
        )
        while session.state is not State.READY:
            rounds += 1
            if session.state is State.STREAMING and rounds % 4 == 0:
                await client.send(frames.Switch(1, "draft"))
            if session.state is State.DRAFTING:
                left = most - (len(history) - 3)
                if owed is not None and left < 1:
                    break
                for last in (False, False, rounds % 3 == 0):
                    await client.send(self._draft(device, flight, owed, waits=last))
                    owed = None
                    for _ in range(4 * (rounds % 2)):  # the base station may judge it by itself
                        await asyncio.sleep(0)
                if rounds == 2 and self.scheme.corrects != "device":
                    await client.send(frames.Switch(1, "stream"))
            frame = await client.receive()
            if isinstance(frame, frames.Verdict):
                owed = self._settle(history, flight, frame)
            elif isinstance(frame, frames.Tokens):
                history += frame.ids
            assert len(history) - 3 <= most and all(0 <= token < SIZE for token in history)
        if session.state is not State.READY:
            await client.finish(session.length)

    def _draft(
        self, device: Device, flight: deque[list[int]], first: int | None, *, waits: bool
    ) -> frames.Draft:
        """Two tokens more; ``first`` is in the history already."""
        text = [*device.history, *(token for block in flight for token in block)]
        ids = IdModel(device.client.welcome.vocab_size)
        ids.extend(text)
        role = "coupled" if self.scheme.shares_seed else "device"
        drafted = []
        for _ in range(2):
            q = distribution(DRAFT[text[-1]], AT_POINT_NINE, text)
            drafted.append(self.scheme.propose(q, noise.key_from_seed(5, role), len(text)))
            text.append(drafted[-1].token)
        flight.append(text[-2:])
        session = device.client.session
        payload, _ = self.scheme.encode(drafted, ids)
        return frames.Draft(session.epoch, session.progress.expected, 2, payload, first, waits)

    @staticmethod
    def _settle(
        history: list[int], flight: deque[list[int]], verdict: frames.Verdict
    ) -> int | None:
        """What stands; the token that is owed, if one is."""
        history += [token for block in flight for token in block][: verdict.accepted]
        if verdict.closes:
            flight.clear()
        else:
            for _ in range(0, verdict.accepted, 2):
                flight.popleft()
        if verdict.next is not None:
            history.append(verdict.next)
        if verdict.row:
            history.append(5)  # any token may be the device's own
            return 5
        return None


@dataclass(frozen=True)
class Proposes(Plan):
    """Both ends write, by the session's rules alone. ``told``: log-probabilities of so many ids.

    ``branches``: beside two tokens another one, or another two.
    """

    told: int | msgspec.UnsetType = msgspec.UNSET
    branches: bool = False

    async def speak(self, device: Device) -> None:
        """Two tokens at a time, on a path as long as it is right; now and then on another."""
        client, session, history = device.client, device.client.session, device.history
        welcome = client.welcome
        if welcome.vocab_size < SIZE:  # this draft knows ids that the target has not
            return
        if frames.BOTH not in welcome.features or welcome.frame_entries < 2 * ID_ENTRIES:
            return
        told = self.told if frames.LOGPROBS in welcome.features else msgspec.UNSET
        history[:] = [1, 2, 3]
        rounds, most, base, path = 0, 40, 3, list[int]()
        await client.send(
            frames.Start(
                1, 0, [1, 2, 3], AT_POINT_NINE, Coupled(), "both", most, [], 5, logprobs=told
            )
        )
        while session.state is State.WRITING:
            rounds += 1
            agrees = [*history[base:], *path][: len(path)] == path
            if base + len(path) < len(history) or not agrees or rounds % 5 == 1:
                base, path = len(history), []
            if session.progress.proposed != len(path):  # over a new connection, too
                base, path = len(history), []
            if base + len(path) + 2 <= 3 + most:
                await client.send(self._proposal(device, base, path))
                if self.branches and frames.BRANCHES in welcome.features:
                    await client.send(self._beside(device, base, path, 1 + rounds % 2))
            for _ in range(4 * (rounds % 2)):
                await asyncio.sleep(0)
            frame = await client.receive()
            assert isinstance(frame, frames.Written)
            history += frame.ids
            assert len(history) - 3 <= most and all(0 <= token < SIZE for token in history)
            if rounds == 60:
                await client.finish(session.length)

    def _proposal(self, device: Device, base: int, path: list[int]) -> frames.Propose:
        """Two tokens more of the path."""
        session, first = device.client.session, len(path)
        text = [*device.history[:base], *path]
        ids = IdModel(device.client.welcome.vocab_size)
        ids.extend(text)
        drafted = []
        for _ in range(2):
            q = distribution(DRAFT[text[-1]], AT_POINT_NINE, text)
            key = noise.key_from_seed(5, "coupled")
            drafted.append(Coupled().propose(q, key, len(text)))
            text.append(drafted[-1].token)
        path += text[-2:]
        payload, _ = Coupled().encode(drafted, ids)
        number = session.progress.path + (not first)
        return frames.Propose(number, base, len(device.history), first, 2, payload)

    def _beside(self, device: Device, base: int, path: list[int], count: int) -> frames.Propose:
        """Other tokens in the place of the path's last two: it does not go on behind them."""
        text = [*device.history[:base], *path[:-2]]
        ids = IdModel(device.client.welcome.vocab_size)
        ids.extend(text)
        drafted = [Drafted((path[-2] + 1) % SIZE), Drafted(path[-1])][:count]
        payload, _ = Coupled().encode(drafted, ids)
        progress = device.client.session.progress
        return frames.Propose(
            progress.path, base, len(device.history), progress.proposed, count, payload, behind=2
        )


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
    Plan("switch-topk", {**_sampled(), "scheme": TopK(6, 16)}, context=6),
    Plan("switch-greedy", _sampled(temperature=0.0), context=7),
    Plan("switch-coupled", {**_sampled(), "scheme": Coupled()}, context=8),
    Plan(
        "resumed", {**_sampled(), "scheme": TopK(6, 16), "seed": 9}, breaks=(2, 4, 7)
    ),  # a long text
    Plan("resumed-split", {**_sampled(), "scheme": Split(6, 16)}, breaks=(1, 2, 6)),
    Plan("resumed-stream", {**_sampled(), "mode": "stream"}, breaks=(3, 5, 8)),
    Plan("replayed", {**_sampled(), "scheme": Split(6, 16)}, breaks=(2, 4, 7), forgets=True),
    Plan("replayed-stream", {**_sampled(), "mode": "stream"}, breaks=(3, 5, 8), forgets=True),
    Plan("run-ahead", {**_sampled(), "mode": "run-ahead", "scheme": TopK(6, 16)}),
    Plan("run-ahead-resumed", {**_sampled(), "mode": "run-ahead"}, breaks=(1, 3, 4)),
    Ahead("ahead", scheme=TopK(6, 16)),
    Ahead("ahead-coupled", scheme=Coupled()),
    Ahead("ahead-resumed", scheme=TopK(6, 16), breaks=(1, 4, 6, 9, 12)),
    Ahead("ahead-resumed-split", scheme=Split(6, 16), breaks=(1, 3, 6, 9)),
    Ahead("ahead-replayed", scheme=Split(6, 16), breaks=(1, 3, 6, 9), forgets=True),
    Proposes("both"),
    Proposes("both-resumed", breaks=(1, 4, 6)),
    Proposes("both-replayed", breaks=(1, 4, 6), forgets=True),
    Proposes("both-branches", branches=True),
    Proposes("both-told", breaks=(1, 4, 6), told=2),
    Plan("told", {**_sampled(), "scheme": TopK(6, 16), "logprobs": 2}),
    Plan("told-split", {**_sampled(), "scheme": Split(6, 16), "logprobs": 3}, breaks=(1, 2, 6)),
    Plan("told-stream", {**_sampled(), "mode": "stream", "logprobs": 0}),
]
