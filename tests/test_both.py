"""Both ends write: whoever proposes a token, and whenever, the text is the base station's own."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.engine import patience
from bs_runtime.engine.paths import Paths
from device_runtime.device import Coupled, LinkError, Sampling, TopK
from device_runtime.drafting import paths as device_paths
from device_runtime.drafting.actions import Wait
from draftlink.link.shaping import LinkProfile, make_link
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from tests.fake_models import FakeModel, fake_device, letters, random_logits
from tests.fakes import FakeTarget, served
from tests.fragile import outages

SIZE, TOKENS = 20, 60
TABLE = random_logits(7, SIZE, 1.5)
PEAKED = random_logits(7, SIZE, 6.0)
STEP_S = 0.03


@lru_cache(maxsize=100_000)
def noise_behind(history: bytes) -> np.ndarray:
    seed = hashlib.blake2b(history, digest_size=4).digest()
    return np.random.default_rng(int.from_bytes(seed, "little")).normal(0.0, 0.5, SIZE)


class Deep(FakeModel):
    """Its rows depend on all of its cache: whatever is wrong there shows in the text."""

    def forward(self, ids, *, last=False):
        begin = len(self.cache)
        super().forward(ids, last=last)
        rows = []
        for end in range(begin + 1, len(self.cache) + 1):
            rows.append(self.table[self.cache[end - 1]] + noise_behind(bytes(self.cache[:end])))
        found = np.array(rows[-1:] if last or not self.rows else rows)
        return found if self.rows else found[0]


class DeepTarget(FakeTarget):
    def open(self):
        self.slots.append(Deep(self.table, rows=True, context=self.context))
        return self.slots[-1]


def draft_of(kind: str, seed: int, table: np.ndarray = TABLE) -> FakeModel:
    """A draft that is always right, right now and then, or never."""
    if kind == "right":
        return Deep(table, rows=False)
    noise = np.random.default_rng(seed).normal(0.0, 1.0, table.shape)
    return Deep(-table if kind == "adversarial" else table + noise, rows=False)


@dataclass
class Case:
    """A text: models, paces, a link that may be cut, and who proposes what."""

    seed: int
    kind: str = "random"
    rtt_s: float = 0.02
    draft_s: float = 0.006
    greedy: bool = False
    cuts: tuple[tuple[float, float], ...] = ()
    jitter_s: float = 0.0
    stop: int | None = None
    eos_ids: tuple[int, ...] = ()
    tokens: int = TOKENS
    look_up: bool = False
    peaked: bool = False  # so that the text comes back to what it has been through


def write(case: Case, mode: str = "both"):
    """The generation, ended; and the virtual seconds that it took."""

    async def main():
        profile = LinkProfile(1e7, 1e7, case.rtt_s, jitter_s=case.jitter_s)
        target = DeepTarget(PEAKED if case.peaked else TABLE)
        draft = draft_of(case.kind, case.seed, target.table)
        world = World(
            draft, target, letters(SIZE), 2048, case.draft_s, STEP_S, look_up=case.look_up
        )
        async with world.device(make_link(profile, seed=case.seed)) as device:
            outages(world, device, case.cuts)
            generation = device.generate(
                [1, 2, 3],
                max_tokens=case.tokens,
                scheme=Coupled(),
                sampling=Sampling(0.0 if case.greedy else 1.0),
                seed=case.seed,
                mode=mode,
                eos_ids=case.eos_ids,
            )
            async for _ in generation:
                if len(generation.tokens) == case.stop:
                    generation.cancel()
            cached = device.model.cache
            assert cached == device.history[: len(cached)]
            cached = target.slots[-1].cache
            if case.stop is None or not case.cuts:  # else it may not have heard of the end
                assert cached == device.history[: len(cached)]
            return generation

    return run(main())


@lru_cache(maxsize=1000)
def streamed(seed: int, greedy: bool, stop: int | None, eos_ids: tuple[int, ...]):
    """The text that the base station writes alone, and why it ended."""
    found = write(Case(seed, greedy=greedy, stop=stop, eos_ids=eos_ids), "stream")
    return found.tokens, found.result.stop_reason


def cases(count: int) -> list[Case]:
    found = []
    for seed in range(count):
        rng = random.Random(seed)
        begin = rng.uniform(0.1, 1.0)
        found.append(
            Case(
                seed,
                rng.choice(("right", "random", "random", "adversarial")),
                rng.choice((0.0005, 0.02, 0.1, 0.3)),
                rng.choice((0.001, 0.006, 0.04)),
                rng.random() < 0.3,
                ((begin, begin + rng.uniform(0.0, 0.5)),) if rng.random() < 0.4 else (),
                rng.choice((0.0, 0.01)),
                rng.randint(1, TOKENS) if rng.random() < 0.2 else None,
                tuple(range(0, SIZE, 7)) if rng.random() < 0.2 else (),
            )
        )
    return found


@pytest.mark.parametrize("limit", [0.0, 4.0, 1e9], ids=["never waits", "", "waits for ever"])
@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.full)], ids=["", "full"])
def test_the_text_is_the_streams(monkeypatch, limit, count):
    """Over links with jitter and cuts, with any draft, whatever the base station waits for."""
    monkeypatch.setattr(patience, "LIMIT", limit)
    accepted = 0
    for case in cases(count):
        found = write(case)
        wanted = streamed(case.seed, case.greedy, case.stop, case.eos_ids)
        assert (found.tokens, found.result.stop_reason) == wanted, case
        accepted += found.result.accepted
    assert accepted > 5 * count


def test_what_was_written_while_the_link_was_away_comes_in_parts(monkeypatch):
    monkeypatch.setattr(frames, "MAX_TOKENS", 3)
    away = Case(2, cuts=((1.2, 1.9),), rtt_s=0.3)  # a third of a second is under way
    found = write(away)
    assert found.tokens == write(Case(2), "stream").tokens
    told = [entry.frames for entry in found.result.ledger if entry.kind == "Written"]
    assert sum(told) > found.result.forwards + 1


@pytest.mark.parametrize("kept", [True, False], ids=["parked", "forgotten"])
def test_the_text_survives_links_that_break_again_and_again(monkeypatch, kept):
    if not kept:  # as after a restart: the device brings its history
        monkeypatch.setattr(Session, "adopt", lambda *_: False)
    reconnects = accepted = 0
    for seed in range(6):
        cuts = tuple((at / 7, at / 7 + 0.01) for at in range(1, 20))
        found = write(Case(seed, cuts=cuts))
        assert found.tokens == write(Case(seed), "stream").tokens
        reconnects += found.result.reconnects
        accepted += found.result.accepted
    assert reconnects > 10 and accepted > 10


def test_where_a_cache_keeps_one_token_too_many_the_text_is_another(monkeypatch):
    """The control of those above."""
    rollback = Deep.rollback

    def off_by_one(self, length):
        rollback(self, min(length + 1, len(self.cache)) if self.rows else length)

    monkeypatch.setattr(Deep, "rollback", off_by_one)
    with pytest.raises((AssertionError, LinkError)):
        for case in cases(5):
            assert write(case).tokens == write(Case(case.seed, greedy=case.greedy), "stream").tokens


def test_a_draft_that_is_right_saves_two_forwards_of_three(monkeypatch):
    near = Case(3, "right", rtt_s=0.0, draft_s=0.001, tokens=90)
    result = write(near).result
    assert result.rounds <= len(result.tokens) / 3
    assert result.alpha == 1.0
    # The control: where proposals are ignored, each token is a forward.
    monkeypatch.setattr(Paths, "following", lambda self, most: [])
    result = write(near).result
    assert result.rounds >= len(result.tokens)


def test_a_device_that_falls_silent_costs_what_is_stated(monkeypatch):
    """For ever, and for two seconds, at its first token and later: the text ends."""
    stream_s = _seconds(write(Case(4), "stream"))
    due = device_paths.Paths.due
    for begin, seconds in ((5, 1e9), (20, 1e9), (20, 2.0)):
        since: list[float] = []

        def silent(self, now, *, cached, begin=begin, seconds=seconds, since=since, **known):
            if self._counts.length >= begin and (not since or now < since[0] + seconds):
                since[:1] = since[:1] or [now]
                return [Wait(since[0] + seconds)]
            return due(self, now, cached=cached, **known)

        monkeypatch.setattr(device_paths.Paths, "due", silent)
        found = write(Case(4))
        assert found.tokens == write(Case(4), "stream").tokens
        most_s = stream_s * (1 + 2 * patience.VAIN) + patience.LIMIT * STEP_S
        assert _seconds(found) <= most_s


def test_a_draft_that_is_never_right_costs_the_stream_nothing_that_shows():
    for rtt_s in (0.001, 0.05):
        long = {"tokens": 400, "rtt_s": rtt_s}
        stream_s = _seconds(write(Case(6, **long), "stream"))
        found = write(Case(6, "adversarial", **long))
        assert _seconds(found) <= 1.02 * stream_s
        assert found.result.drafted < 0.5 * len(found.tokens)


def _seconds(generation) -> float:
    result = generation.result
    return len(result.tokens) / result.tokens_per_s


def test_modes_that_cannot_be_are_refused_by_name():
    import asyncio

    async def main(url: str) -> None:
        async with fake_device(url, TABLE) as device:
            with pytest.raises(ValueError, match="topk-lattice the text depends on who proposes"):
                device.generate([1], mode="both", scheme=TopK(4, 16))
            welcome = device.client.welcome
            device.client.welcome = type(welcome)(
                **{name: getattr(welcome, name) for name in welcome.__struct_fields__}
                | {"features": []}
            )
            with pytest.raises(ValueError, match="does not let both ends write"):
                device.generate([1], mode="both", scheme=Coupled())

    with served(FakeTarget(TABLE)) as url:
        asyncio.run(main(url))
