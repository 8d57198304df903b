"""Both ends write, and the link goes away: what is shown then is a path like any other."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.drafting.paths import Paths
from device_runtime.writers.both import Both
from draftlink.link.shaping import make_link
from draftlink.protocol import frames
from tests.fake_models import FakeModel, letters, random_logits
from tests.fakes import FakeTarget
from tests.fragile import outages
from tests.test_modes import COUPLED, GREEDY, LTE
from tests.test_offline import SIZE, events, replay

AWAY = (1.0, 6.0)


def away(tokens: int = 200, noise: float = 0.7, cuts=(AWAY,), seed: int = 3, **options):
    """As ``events``, but the connection breaks, and none can be made for a while."""
    table = random_logits(7, SIZE, 1.5)
    draft = table + np.random.default_rng(8).normal(0.0, noise, table.shape)
    model = FakeModel(draft, rows=False)
    world = World(model, FakeTarget(table), letters(SIZE), model.context, 0.01, 0.045)

    async def main():
        loop = asyncio.get_running_loop()
        async with world.device(make_link(LTE, seed=1)) as device:
            outages(world, device, cuts)
            asked = {**COUPLED, "seed": seed} | options
            generation = device.generate([1, 2, 3], max_tokens=tokens, eos_ids=(), **asked)
            come = [(loop.time(), token) async for token in generation]
            assert world.draft.cache == device.history[: len(world.draft.cache)]
            return come, generation

    return run(main())


@pytest.mark.parametrize("begin", [events, away], ids=["stalled", "broken"])
@pytest.mark.parametrize("rule", [GREEDY, COUPLED], ids=["greedy", "coupled"])
def test_what_is_shown_meanwhile_is_confirmed_or_taken_back(rule, begin):
    calm, _ = events(mode="stream", **rule)
    come, generation = begin(mode="both", offline_after_s=0.5, **rule)
    stand, count, taken_back = replay([token for _, token in come])
    result = generation.result
    assert stand == result.tokens == [token.id for _, token in calm]
    assert (count, taken_back) == (result.provisional, result.taken_back)
    alone = [at for at, token in come if token.kind == "provisional"]
    assert AWAY[0] + 0.3 <= min(alone) < AWAY[0] + 1.0  # heard last a little before
    assert 50 < count < 200  # it waits neither for the window nor for the text
    assert generation.provisional == []
    assert result.reconnects == (begin is away)


def test_nothing_is_shown_where_it_is_not_allowed():
    _come, generation = away(mode="both")
    assert generation.result.provisional == 0
    assert generation.result.tokens == away(mode="both", offline_after_s=0.1)[1].result.tokens


def test_what_was_shown_is_proposed_when_the_link_is_back_and_not_drafted_again(monkeypatch):
    proposed: list[frames.Propose] = []
    propose = Both._propose

    async def noted(self, action):
        await propose(self, action)
        proposed.append(action)

    monkeypatch.setattr(Both, "_propose", noted)
    asked = {"mode": "both", "noise": 0.0, "offline_after_s": 0.2, "tokens": 400}
    _come, generation = away(**asked)
    result = generation.result
    assert result.taken_back == 0 and result.provisional > 300
    assert result.drafted <= 400 and sum(action.tokens for action in proposed) > 300
    assert result.accepted > 300 and result.forwards < 100
    # The control: a device that begins anew then.
    lost = Paths.lost

    def forgets(self):
        lost(self)
        self._chances.clear()

    mend = Both._mend

    def mends(self):
        before = self._reconnects
        mend(self)
        if self._reconnects != before:
            self._nodes = []
            self._writing.drop(len(self._writing.history))

    monkeypatch.setattr(Paths, "lost", forgets)
    monkeypatch.setattr(Both, "_mend", mends)
    again = away(**asked)[1].result
    assert again.tokens == result.tokens
    assert again.drafted > 500
    assert again.tokens_per_s < result.tokens_per_s


@pytest.mark.parametrize("part", range(2))
def test_over_any_cuts_the_text_is_the_streams(part):
    """With drafts that are right and wrong, and silences that are longer and shorter than that."""
    shown = taken_back = 0
    for seed in range(8 * part, 8 * part + 8):
        chance = random.Random(seed)
        begins = sorted(chance.uniform(0.2, 4.0) for _ in range(3))
        cuts = tuple((at, at + chance.choice((0.05, 0.4, 1.5))) for at in begins)
        noise = chance.choice((0.0, 0.7, 3.0))
        after_s = chance.choice((0.0, 0.1, 0.5))
        tokens = chance.choice((40, 120))
        asked = {"seed": seed, "noise": noise, "tokens": tokens}
        come, generation = away(mode="both", cuts=cuts, offline_after_s=after_s, **asked)
        stand, count, gone = replay([token for _, token in come])
        assert stand == [token.id for _, token in away(mode="stream", cuts=(), **asked)[0]]
        assert (count, gone) == (generation.result.provisional, generation.result.taken_back)
        shown, taken_back = shown + count, taken_back + gone
    assert shown > 100 and 0 < taken_back < shown
