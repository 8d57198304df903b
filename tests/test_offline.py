"""Going on alone while nothing is heard: what is shown, taken back, and in the end stands.

The text is the one that it would have been; each provisional token is confirmed or taken back.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Dense, Split, TopK
from device_runtime.generation import Generation
from device_runtime.result import Token
from draftlink.link.shaping import make_link
from tests.fake_models import FakeModel, fake_device, letters, random_logits
from tests.fakes import FakeTarget, served
from tests.fragile import connector
from tests.test_modes import COUPLED, GREEDY, LTE, MODES

SIZE = 20
OUTAGE = (1.0, 6.0)
SCHEMES = {
    "greedy": GREEDY,
    "coupled": COUPLED,
    "topk": {"scheme": TopK(8, 64), "seed": 3},
    "dense": {"scheme": Dense(), "seed": 3},
    "split": {"scheme": Split(8, 64), "seed": 3},
}


def events(tokens: int = 200, eos: tuple[int, ...] = (), noise: float = 0.7, **options):
    """What comes in virtual time, when, over a link with an outage; the generation."""
    table = random_logits(7, SIZE, 1.5)
    draft = table + np.random.default_rng(8).normal(0.0, noise, table.shape)
    model = FakeModel(draft, rows=False, context=options.pop("context", None))
    world = World(model, FakeTarget(table), letters(SIZE), model.context, 0.01, 0.045)

    async def main():
        link = make_link(LTE, seed=1, outages=[OUTAGE])
        loop = asyncio.get_running_loop()
        async with world.device(link) as device:
            generation = device.generate([1, 2, 3], max_tokens=tokens, eos_ids=eos, **options)
            come = []
            async for token in generation:
                come.append((loop.time(), token))
            cache = world.draft.cache
            assert cache == device.history[: len(cache)]
            return come, generation

    return run(main())


def replay(come: list[Token]) -> tuple[list[int], int, int]:
    """As a caller would keep it: the tokens that stand, how many were shown, and taken back."""
    stand: list[int] = []
    shown: list[int] = []
    count = taken_back = 0
    for token in come:
        if token.kind == "provisional":
            shown.append(token.id)
            count += 1
            continue
        assert token.confirms == (shown[:1] == [token.id])
        if token.confirms:
            del shown[0]
        else:
            assert token.takes_back == len(shown)
            taken_back += len(shown)
            shown.clear()
        stand.append(token.id)
    return stand, count, taken_back + len(shown)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCHEMES)
def test_an_outage(name, mode):
    calm, _ = events(mode=mode, **SCHEMES[name])
    come, generation = events(mode=mode, offline_after_s=0.5, **SCHEMES[name])
    stand, count, taken_back = replay([token for _, token in come])
    result = generation.result
    assert all(token.kind != "provisional" for _, token in calm)
    if name in ("greedy", "coupled") or mode in ("stop-and-wait", "run-ahead"):
        assert stand == [token.id for _, token in calm]
    assert stand == result.tokens and len(stand) == 200
    assert (count, taken_back) == (result.provisional, result.taken_back)
    assert generation.provisional == []
    if come[0][0] < OUTAGE[0] and calm[-1][0] > OUTAGE[1]:
        alone = [at for at, token in come if token.kind == "provisional"]
        assert OUTAGE[0] + 0.3 <= min(alone) < OUTAGE[0] + 1.0  # heard last a little before
        assert count > 50  # it does not wait for the window, or for a verdict


def test_an_outage_costs_no_time_where_the_draft_is_right():
    """What was drafted meanwhile is sent when the link is back, not drafted once more."""
    calm, _ = events(mode="run-ahead", noise=0.0, **COUPLED)
    come, generation = events(mode="run-ahead", noise=0.0, offline_after_s=0.2, **COUPLED)
    assert generation.result.taken_back == 0
    assert sum(token.confirms for _, token in come) == generation.result.provisional > 100
    after = [at for at, _ in come if at > OUTAGE[1]]
    assert after and calm[-1][0] - come[-1][0] > 0.25


def test_it_ends_at_an_eos_at_the_limit_and_at_the_draft_s_context():
    for limits in ({"eos": (2,)}, {"tokens": 60}, {"context": 90}):
        come, generation = events(
            **{"mode": "stop-and-wait", "offline_after_s": 0.1} | limits, **COUPLED
        )
        shown = 0
        for _, token in come:
            shown = shown + 1 if token.kind == "provisional" else max(0, shown - 1)
            if token.takes_back:
                shown = 0
            assert shown <= limits.get("tokens", limits.get("context", 200))
        stand, *_ = replay([token for _, token in come])
        assert stand == generation.result.tokens
        assert stand == [t.id for _, t in events(mode="stream", **limits, **COUPLED)[0]]


# --- Over real sockets, where the base station is not there at all ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCHEMES)
def test_a_base_station_that_comes_back_late(name, mode):
    table = random_logits(7, SIZE, 1.5)
    draft = table + np.random.default_rng(8).normal(0.0, 0.7, table.shape)
    given = {"max_tokens": 60, "mode": mode, "gamma": 4, **SCHEMES[name]}

    async def write(url: str, lost_at: int | None) -> tuple[list[Token], Generation]:
        device, come, lost = fake_device(url, draft), [], False
        enough = asyncio.Event()  # provisional tokens are there, or all that can be
        real = connector(lambda *_: lost)

        async def connect(url: str):
            nonlocal lost
            if lost:
                await enough.wait()
                lost = False
            return await real(url)

        device._connect = connect
        after = {} if lost_at is None else {"offline_after_s": 0.0}
        async with device:
            generation = device.generate([1, 2, 3], **given, **after)
            async for token in generation:
                come.append(token)
                if lost_at is not None and len(generation.tokens) >= lost_at:
                    lost_at, lost = None, True
                    device.client.socket._abort()
                left = generation._writing._decides._counts.left
                if lost and len(generation.provisional) >= min(25, left):
                    enough.set()
            return come, generation

    with served(FakeTarget(table)) as url:
        _, calm = asyncio.run(write(url, None))
        come, generation = asyncio.run(write(url, 20))
    stand, count, taken_back = replay(come)
    result = generation.result
    assert stand == result.tokens
    if name in ("greedy", "coupled") or mode in ("stop-and-wait", "run-ahead"):
        assert stand == calm.result.tokens
    assert result.reconnects == 1
    assert (count, taken_back) == (result.provisional, result.taken_back) and count >= 20


def test_what_does_not_go_together():
    async def run(url: str) -> None:
        async with fake_device(url, random_logits(7, SIZE)) as device:
            with pytest.raises(ValueError, match="leave one"):
                device.generate([1], offline_after_s=1.0, learn_temperature=True)
            with pytest.raises(ValueError, match="must not be negative"):
                device.generate([1], offline_after_s=-1.0)

    with served(FakeTarget(random_logits(7, SIZE))) as url:
        asyncio.run(run(url))


@pytest.mark.parametrize("place", [40, 90, None])
def test_nothing_of_a_stop_is_shown_while_alone(place):
    """A provisional token has the piece that it has once it stands, also where a stop ends it."""
    options = {"mode": "run-ahead", "tokens": 150, "offline_after_s": 0.1, **SCHEMES["topk"]}
    said = events(**options)[1].result.text
    stop = "ab" if place is None else said[place : place + 3]
    come, generation = events(stop=stop, **options)
    stand, shown, alone = "", list[str](), 0
    for _, token in come:
        if token.kind == "provisional":
            shown.append(token.text)
            alone += bool(token.text)
        else:
            assert not token.confirms or token.text == shown[0]
            shown = shown[1:] if token.confirms else []
            stand += token.text
        assert stop not in stand + "".join(shown)
    assert stand == generation.result.text == said.partition(stop)[0]
    assert alone > 20
