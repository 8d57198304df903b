"""Each epoch draws from numbers of its own, and they are the same over every link.

A token that is drawn and thrown away behind a correction has been seen: how long the epoch took may
hang on it, and with that what the controller does next.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Split, TopK
from device_runtime.drafting.controller import Controller, DraftPlan
from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.link.shaping import LinkProfile, make_link
from draftlink.protocol.session import Session
from tests.fake_models import FakeModel, letters
from tests.fakes import FakeTarget
from tests.fragile import outages
from tests.test_exactness import ERROR_RATE, chi_square
from tests.test_modes import world

SCHEMES = {"topk": TopK(4, 16), "split": Split(4, 16)}
LINKS = (LinkProfile(1e9, 1e9, 0.001, jitter_s=0.001),
         LinkProfile(5e6, 5e6, 0.060, jitter_s=0.02, loss=0.02),
         LinkProfile(1e5, 1e6, 0.3, jitter_s=0.1))  # fmt: skip


def test_keys():
    """A vector, so that seeded texts stay the same; and each number belongs to one epoch."""
    key = noise.key_from_seed(7, "device")
    expected = "5f3bfca5ff9c15d6ca907cf2d0dd5cd3cc9c5e3fef55c37148915a0d36c830a7"
    assert noise.key_of_epoch(key, 3).hex() == expected
    keys = [key, *(noise.key_of_epoch(key, position) for position in (0, 1, 256, 1 << 40))]
    draws = {noise.bits64(of, at, Purpose.DRAFT) for of in keys for at in range(100)}
    assert len(draws) == 100 * len(keys)


def text(link: int, cuts: int, draft_s: float, context: int, seed: int, **options) -> list[int]:
    async def main() -> list[int]:
        here, rng = world(1.0, draft_s, context=context), random.Random(cuts)
        async with here.device(make_link(LINKS[link], seed=cuts)) as device:
            times = sorted(rng.uniform(0.1, 2.0) for _ in range(cuts))
            outages(here, device, [(at, at + rng.choice([0.0, 0.3])) for at in times])
            generation = device.generate([1, 2, 3], max_tokens=40, seed=seed, **options)
            async for _ in generation:
                pass
            assert generation.result.reconnects >= min(cuts, 1)
            return generation.result.tokens

    return run(main())


@pytest.mark.parametrize("remembers", [True, False], ids=["parked", "forgotten"])
@pytest.mark.parametrize("offline", [None, 0.05], ids=["", "offline"])
@pytest.mark.parametrize("way", [("run-ahead", None), ("stop-and-wait", 3)])
@pytest.mark.parametrize("name", SCHEMES)
def test_a_seed_gives_one_text_over_every_link(monkeypatch, name, way, offline, remembers):
    """Whatever the jitter, and however often connections break and the base station forgets."""
    if not remembers:
        monkeypatch.setattr(Session, "adopt", lambda *_: False)
    mode, gamma = way
    given = {"mode": mode, "gamma": gamma, "scheme": SCHEMES[name], "offline_after_s": offline}
    for seed, context in ((1, 2048), (2, 30)):
        first = text(1, 0, 0.01, context, seed, **given)
        for link, cuts, draft_s in ((0, 0, 0.02), (2, 0, 0.002), (0, 6, 0.05), (1, 6, 0.01),
                                    (2, 6, 0.01)):  # fmt: skip
            assert text(link, cuts, draft_s, context, seed, **given) == first


def test_no_number_is_drawn_twice(monkeypatch):
    """In one generation, by any writer: neither in an epoch, nor by two of them.

    What is drafted beside a stream is never sent, and left out; its numbers are no epoch's.
    """
    propose, drawn = TopK.propose, list[tuple[bytes, int]]()

    def noted(self, q, key, position, weight=1.0):
        drawn.append((key, position))
        return propose(self, q, key, position, weight)

    monkeypatch.setattr(TopK, "propose", noted)
    monkeypatch.setattr("device_runtime.generation.Controller", Changing)
    ways = [
        ("auto", None),
        ("auto", 0.0),
        ("run-ahead", None),
        ("run-ahead", 0.0),
        ("stop-and-wait", 0.0),
    ]
    for seed, (mode, offline) in enumerate(ways):
        for link in range(3):
            drawn.clear()
            text(link, 6, 0.01, 2048, seed, mode=mode, scheme=SCHEMES["topk"],
                 offline_after_s=offline)  # fmt: skip
            key = noise.key_from_seed(seed, "device")
            epochs = {noise.key_of_epoch(key, position) for position in range(64)}
            sent = [draw for draw in drawn if draw[0] in epochs]
            assert len(sent) > 40 - 30
            assert len(set(sent)) == len(sent)


class Changing(Controller):
    """Changes its mode at random."""

    rng = random.Random(0)

    def choose(self, left: int):
        self.writer = self.rng.choice(["stream", "run-ahead", "stop-and-wait"])
        return self.writer


# --- A controller that watches time ---

P = np.array([0.24, 0.19, 0.19, 0.19, 0.19])
Q = np.array([0.6, 0.1, 0.1, 0.1, 0.1])  # a block goes on while token 0 is drawn
DRAFT_S, TARGET_S, RTT_S = 0.010, 0.045, 0.020


class Watching(Controller):
    """Drafts on behind an epoch of a certain length, and leaves drafting behind any other.

    A block is sent as soon as it holds an unlikely token: how long the epoch took tells whether the
    token behind the rejected one, which is thrown away, was one.
    """

    leaves = False

    def drafted(self, writer, tokens, seconds, length=0):
        drafted = (seconds - RTT_S - TARGET_S) / DRAFT_S
        self.leaves = abs(drafted - (tokens + 1)) > 0.5  # else one was drafted behind the rejected

    def choose(self, left: int):
        self.writer = "stream" if self.leaves and self.writer != "stream" else "run-ahead"
        self.leaves = False
        return self.writer

    def plan(self, mode):
        return DraftPlan(2, waits=False, sure=0.5, window=16)


def behind_corrections(monkeypatch, scheme, count: int) -> np.ndarray:
    """Counts (V,) of the tokens behind so many corrections, where the controller drafts on."""
    monkeypatch.setattr("device_runtime.generation.Controller", Watching)
    monkeypatch.setattr(
        "device_runtime.drafting.estimators.Acceptance.probability",
        lambda self, chance: 0.99 if chance > 0.2 else 0.1,
    )
    size, found = len(P), np.zeros(len(P), dtype=np.int64)
    target, draft = (np.tile(np.log(row), (size, 1)) for row in (P, Q))

    async def main() -> None:
        here = World(FakeModel(draft, rows=False), FakeTarget(target), letters(size),
                     2048, DRAFT_S, TARGET_S)  # fmt: skip
        async with here.device(make_link(LinkProfile(1e9, 1e9, RTT_S))) as device:
            seed = 0
            while found.sum() < count:
                seed += 1
                generation = device.generate([1], max_tokens=400, seed=seed, scheme=scheme)
                counts = False
                async for token in generation:
                    found[token.id] += counts
                    drafts = generation._writing.controller.writer == "run-ahead"
                    counts = token.kind == "correction" and drafts

    run(main())
    return found


@pytest.mark.parametrize(
    "count", [150, pytest.param(5_000, marks=pytest.mark.full)], ids=["150", "5k"]
)
@pytest.mark.parametrize("scheme", [TopK(5, 100), Split(5, 100)], ids=["topk", "split"])
def test_the_token_behind_a_correction_is_not_drawn_from_a_number_that_was_seen(
    monkeypatch, scheme, count
):
    found = behind_corrections(monkeypatch, scheme, count)
    assert chi_square(found, P) > ERROR_RATE


def test_one_key_for_all_epochs_fails(monkeypatch):
    """Negative control."""
    monkeypatch.setattr(noise, "key_of_epoch", lambda key, position: key)
    found = behind_corrections(monkeypatch, TopK(5, 100), 200)
    assert chi_square(found, P) < ERROR_RATE
