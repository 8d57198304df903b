"""Attacks by somebody who has a token, with the default limits."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import cache

import numpy as np
from websockets.frames import Frame, Opcode

from bench.hostile.place import Place
from bench.hostile.speaker import VOCAB, Refused, Speaker, masked, repeat, start
from draftlink.coding import lattice
from draftlink.coding.ids import IdModel
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.protocol import frames
from draftlink.schemes.base import MAX_DRAFT, MAX_IN_FLIGHT
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.topk import TopK

PROMPT = 200  # tokens that the attacker's prompts may have, for ``bombs`` and ``prompts``
LONG = 32_000  # tokens of a history that a loop over it would feel
BAD = 8190  # the token whose embedding is not a number, or fails: see ``watched``


async def _pour(speaker: Speaker, flood: bytes) -> None:
    """Write until the connection is cut off; the bytes of a million frames at most."""
    transport = speaker.socket.transport
    for _ in range(2000):
        transport.write(flood)
        await asyncio.sleep(0.001)
        if transport.is_closing():
            return


async def tiny(place: Place) -> None:
    """Frames that are refused, as fast as can be."""
    flood = masked(frames.encode(frames.Finish(0, 0))) * 500
    await repeat(place, lambda speaker: _pour(speaker, flood))


async def pings(place: Place) -> None:
    """WebSocket pings, as fast as can be."""
    flood = Frame(Opcode.PING, b"").serialize(mask=True) * 500
    await repeat(place, lambda speaker: _pour(speaker, flood))


async def overtaken(place: Place) -> None:
    """Legal frames, as fast as can be: drafts of an epoch that is over."""

    async def once(speaker: Speaker) -> None:
        await speaker.say(start([5, 6, 7]))
        draft = frames.Draft(speaker.session.epoch, 3, 0, b"")
        await speaker.say(draft)
        await speaker.until(frames.Verdict)
        flood = masked(frames.encode(draft)) * 500
        await _pour(speaker, flood)

    await repeat(place, once)


async def oversize(place: Place) -> None:
    """A message above the limit."""

    async def once(speaker: Speaker) -> None:
        await speaker.socket.send(bytes(frames.MAX_MESSAGE_BYTES + 1))
        await speaker.socket.recv()

    await repeat(place, once)


async def prompts(place: Place, tokens: int | None) -> None:
    """Prompts of ``tokens``, None: the longest that the context takes; ended as they begin."""

    async def once(speaker: Speaker) -> None:
        length = tokens or speaker.welcome.context - 2
        await speaker.say(start([5] * length), frames.Finish(1, 0))
        await speaker.hear()

    await repeat(place, once)


async def long_start(place: Place) -> None:
    """The longest legal prompt, ended at once: all it costs is its arrival. Again and again."""
    ids = np.random.default_rng(1).integers(5, BAD, 1 << 15).tolist()

    async def once(speaker: Speaker) -> None:
        longest = ids[: min(len(ids), speaker.welcome.context - 2)]
        for generation in range(1, 1000):
            await speaker.say(start(longest, generation=generation))
            await speaker.say(frames.Finish(generation, 0))
            await speaker.until(frames.Done)

    await repeat(place, once)


async def deaf(place: Place) -> None:
    """A stream that is not read."""

    async def once(speaker: Speaker) -> None:
        transport = speaker.socket.transport
        transport.pause_reading()
        transport.write(masked(frames.encode(start([5] * 3, "stream"))))
        await asyncio.sleep(1.0)

    await repeat(place, once)


WIDEST = TopK(lattice.MAX_ENTRIES, 1 << 20, tiers=1)


@cache
def _wide(scheme: TopK, tokens: int) -> bytes:
    """A frame's payload of so many tokens with as many entries as the scheme has."""
    rng = np.random.default_rng(3)
    drafted = []
    for _ in range(tokens):
        ids = np.sort(rng.choice(VOCAB, scheme.k, replace=False)).astype(np.int64)
        cuts = np.sort(rng.choice(scheme.total - 1, scheme.k - 1, replace=False)) + 1
        counts = np.diff(cuts, prepend=0, append=scheme.total).astype(np.int64)
        drafted.append(Drafted.of(SparseRow(ids, counts, scheme.total), 0))
    return scheme.encode(drafted, IdModel(VOCAB))[0]


async def wide(place: Place, connections: int) -> None:
    """The widest legal drafts, as many as may be under way, over so many connections."""
    scheme = WIDEST

    async def once(speaker: Speaker) -> None:
        session, welcome = speaker.session, speaker.welcome
        tokens = min(MAX_DRAFT, welcome.frame_entries // scheme.k)
        flight = min(welcome.flight_entries // scheme.k, MAX_IN_FLIGHT)
        for generation in range(1, 1000):
            await speaker.say(start([5] * 3, generation=generation, scheme=scheme, temperature=1.0))
            while session.length < 100:
                left = flight // tokens
                while left:
                    left -= 1
                    await speaker.say(
                        frames.Draft(
                            session.epoch,
                            session.progress.expected,
                            tokens,
                            _wide(scheme, tokens),
                            waits=not left,
                        )
                    )
                asked = time.perf_counter()
                while session.progress.drafts:
                    await speaker.hear()
                place.note("verdict_s", time.perf_counter() - asked)
                place.count("verdicts")
            await speaker.say(frames.Finish(generation, 3))
            await speaker.until(frames.Done)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(repeat(place, once))


class Ids:
    """Coupled drafts of one token behind a long history, which is fed before the attack."""

    def __init__(self) -> None:
        self._fed = asyncio.Event()
        self._go = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def prepare(self, place: Place) -> None:
        """Feed the history."""
        self._task = asyncio.create_task(repeat(place, lambda one: self._once(place, one)))
        await self._fed.wait()

    async def play(self, place: Place) -> None:
        """Draft behind it."""
        self._go.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._go.clear()

    async def _once(self, place: Place, speaker: Speaker) -> None:
        session, scheme = speaker.session, Coupled()
        ids = np.random.default_rng(1).integers(5, BAD, LONG).tolist()
        model = IdModel(VOCAB)
        model.extend([*ids, 5])
        payload, _ = scheme.encode([Drafted(7)], model)
        await speaker.say(start(ids, scheme=scheme, temperature=1.0))
        await speaker.say(frames.Draft(session.epoch, LONG, 0, b""))
        await speaker.until(frames.Verdict)
        await speaker.say(frames.Finish(1, LONG))
        await speaker.until(frames.Done)
        self._fed.set()
        for generation in range(2, 1_000_000):
            await self._go.wait()
            one = start([5], generation=generation, base=LONG, scheme=scheme, temperature=1.0)
            await speaker.say(one)
            await speaker.say(frames.Draft(session.epoch, LONG + 1, 1, payload))
            await speaker.until(frames.Verdict)
            place.count("verdicts")
            await speaker.say(frames.Finish(generation, LONG))
            await speaker.until(frames.Done)


async def poison(place: Place) -> None:
    """A stream behind a token that the target has no numbers for."""

    async def once(speaker: Speaker) -> None:
        asked = time.perf_counter()
        await speaker.say(start([5, 6, BAD], "stream", temperature=1.0))
        with suppress(Refused):
            while True:
                await speaker.hear()
        place.note("refused_s", time.perf_counter() - asked)
        place.count("refused")

    await repeat(place, once)
