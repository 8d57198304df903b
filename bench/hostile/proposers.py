"""Attacks by a device with a token while both ends write: floods of legal proposals."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from msgspec.structs import replace

from bench.hostile.place import Place
from bench.hostile.speaker import VOCAB, Speaker, masked, repeat, start
from draftlink.coding.ids import IdModel
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.greedy import Greedy

PROMPT = (5, 6, 7)
TOKENS = 400  # of a text
# As many as a device may send, and no more: one that leaves hundreds waiting is cut off.
CHUNK, EVERY_S = 50, 0.1

Flood = Callable[[Iterator[int], list[int]], list[frames.Propose]]


def wrong_block(context: Sequence[int]) -> bytes:
    """A payload of as many ids as may come at once, at random: hardly any is the target's."""
    model = IdModel(VOCAB)
    model.extend(context)
    ids = np.random.default_rng(2).integers(8, VOCAB, MAX_DRAFT).tolist()
    return Greedy().encode([Drafted(token) for token in ids], model)[0]


async def _floods(place: Place, flood: Flood) -> None:
    """Text after text, and every so often what ``flood`` makes of path numbers and the text."""

    async def once(speaker: Speaker) -> None:
        numbers = itertools.count(1)
        for generation in itertools.count(1):
            begin = start(PROMPT, generation=generation)
            await speaker.say(replace(begin, mode="both", max_tokens=TOKENS))
            text, over = list(PROMPT), asyncio.Event()
            reading = asyncio.create_task(_read(speaker, text, over))
            transport = speaker.socket.transport
            try:
                while not over.is_set() and not transport.is_closing():
                    found = flood(numbers, text)
                    transport.write(b"".join(masked(frames.encode(one)) for one in found))
                    with suppress(TimeoutError):
                        await asyncio.wait_for(over.wait(), EVERY_S)
                await reading
            finally:  # an attack is cancelled at its end
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            place.count("texts")

    await repeat(place, once)


async def _read(speaker: Speaker, text: list[int], over: asyncio.Event) -> None:
    """The text as it comes, to its end, or to that of the connection."""
    try:
        ended = False
        while not ended:
            frame = await speaker.hear()
            assert isinstance(frame, frames.Written), frame
            text += frame.ids
            ended = frame.ended
    finally:
        over.set()


async def beside(place: Place) -> None:
    """No attack: texts that both ends may write, of a device that proposes nothing. What that alone
    costs the others, by its share of the steps, is what the floods are to be held against."""
    await _floods(place, lambda numbers, text: [])


async def dead_paths(place: Place) -> None:
    """What comes of paths that are dead, and of older ones: one token at a time, unread."""

    def flood(numbers: Iterator[int], text: list[int]) -> list[frames.Propose]:
        path, begin = next(numbers), len(PROMPT)
        older = [frames.Propose(max(1, path - 1), begin, begin, 0, 1, b"\xff")] * (CHUNK // 2)
        first = frames.Propose(path, begin, begin, 0, MAX_DRAFT, payload)
        if len(text) == begin:  # none is dead yet, and what is not has to decode
            return [first]
        rest = range(MAX_DRAFT, min(MAX_DRAFT + CHUNK // 2 - 1, TOKENS))
        return [first, *(frames.Propose(path, begin, begin, at, 1, b"\xff") for at in rest), *older]

    payload = wrong_block(PROMPT)
    await _floods(place, flood)


async def old_bases(place: Place) -> None:
    """A path after another from the prompt's end, 64 tokens each: all are decoded, and dead."""

    def flood(numbers: Iterator[int], text: list[int]) -> list[frames.Propose]:
        begin = len(PROMPT)
        return [
            frames.Propose(path, begin, begin, 0, MAX_DRAFT, payload)
            for path in itertools.islice(numbers, CHUNK)
        ]

    payload = wrong_block(PROMPT)
    await _floods(place, flood)


async def blocks(place: Place) -> None:
    """A path after another from where the text is, 64 tokens each, of which none is right."""

    def flood(numbers: Iterator[int], text: list[int]) -> list[frames.Propose]:
        known = min(len(text), len(PROMPT) + TOKENS - MAX_DRAFT)  # none is behind the limit
        if known not in payloads:
            payloads.clear()
            payloads[known] = wrong_block(text[:known])
        return [
            frames.Propose(path, known, known, 0, MAX_DRAFT, payloads[known])
            for path in itertools.islice(numbers, CHUNK)
        ]

    payloads: dict[int, bytes] = {}
    await _floods(place, flood)
