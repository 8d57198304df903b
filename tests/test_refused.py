"""A request that cannot work leaves no trace: it is checked before anything is touched."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict

import msgspec
import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Coupled, Dense, Device, LinkError, Sampling, Split, TopK
from draftlink.link.shaping import LinkProfile, make_link
from tests.fake_models import FakeModel, fake_device, letters, random_logits
from tests.fakes import FakeTarget, served

SIZE, CONTEXT = 20, 400
SCHEMES = [TopK(8, 64), Split(8, 64), Coupled()]

# What is asked for, beside a prompt that would do.
REFUSED = [
    {"prompt": [99]},
    {"prompt": [3, -1]},
    {"prompt": [SIZE]},
    {"prompt": [1.5]},
    {"prompt": []},
    {"prompt": ""},
    {"prompt": "~"},  # of which the tokenizer makes nothing
    {"prompt": "\ud800"},
    {"prompt": None},
    {"prompt": ["a"]},
    {"prompt": [1] * CONTEXT},
    {"prompt": "a" * CONTEXT},
    {"prompt": [1] * (CONTEXT - 5), "append": True},
    {"prompt": [99], "append": True},
    {"prompt": "", "append": True},
    {"max_tokens": 0},
    {"max_tokens": -3},
    {"max_tokens": 2.5},
    {"max_tokens": "9"},
    {"gamma": 0},
    {"gamma": 65},
    {"gamma": 1.5},
    {"mode": "fast"},
    {"seed": 1 << 64},
    {"seed": -(1 << 63) - 1},
    {"seed": 0.5},
    {"sampling": Sampling(-1.0)},
    {"sampling": Sampling(math.nan)},
    {"sampling": Sampling(top_p=0.0)},
    {"sampling": Sampling(top_k=-1)},
    {"sampling": Sampling(top_k=2.5)},
    {"sampling": Sampling(min_p=1.0)},
    {"sampling": Sampling(repetition_penalty=0.0)},
    {"sampling": "target"},  # which suggests none
    {"scheme": "topk"},
    {"scheme": TopK(0, 64)},
    {"scheme": TopK(SIZE + 1, 64)},
    {"scheme": Dense()},  # which this base station does not accept
    {"stop": ""},
    {"stop": ("a", "")},
    {"stop": (3,)},
    {"eos_ids": [SIZE]},
    {"eos_ids": [-1]},
    {"eos_ids": [1] * 10_000},
    {"eos_ids": ["a"]},
    {"suppressed_ids": range(SIZE)},
    {"suppressed_ids": [SIZE]},
    {"offline_after_s": -1.0},
    {"offline_after_s": math.nan},
    {"offline_after_s": math.inf},
    {"offline_after_s": 1.0, "learn_temperature": True},
    {"gama": 4},
]


def refuse(device: Device, asked: dict) -> None:
    options = {"prompt": [1, 2], **asked}
    with pytest.raises((ValueError, TypeError)):
        device.generate(options.pop("prompt"), **options)


def written(scheme, mode: str, refused: list[dict]) -> tuple[list, tuple, dict]:
    """All that there is to see at each token, between which each of ``refused`` is asked for."""

    async def main():
        model = FakeModel(DRAFT, rows=False)
        target = FakeTarget(TABLE, context=CONTEXT)
        world = World(model, target, letters(SIZE), model.context, 0.01, 0.03)
        seen, left = [], list(refused)
        async with world.device(make_link(LinkProfile(5e6, 5e6, 0.03), seed=1)) as device:
            welcome = device.client.welcome
            schemes = [name for name in welcome.schemes if name != "dense"]
            device.client.welcome = msgspec.structs.replace(welcome, schemes=schemes)
            generation = device.generate(
                [1, 2, 3], max_tokens=len(REFUSED) + 20, mode=mode, scheme=scheme, seed=3
            )
            async for token in generation:
                if left:
                    refuse(device, left.pop())
                session = device.client.session
                seen.append(
                    (
                        asyncio.get_running_loop().time(),
                        asdict(token),
                        list(device.history),
                        list(model.cache),
                        list(target.slots[-1].cache),
                        (session.state, session.generation, session.epoch, session.length),
                    )
                )
            after = list(device.history), list(model.cache), device.client.session.length
            assert not left
            return seen, after, msgspec.structs.asdict(generation.result)

    return run(main())


TABLE = random_logits(7, SIZE, 1.5)
DRAFT = TABLE + np.random.default_rng(8).normal(0.0, 0.7, TABLE.shape)


@pytest.mark.parametrize("mode", ["stop-and-wait", "run-ahead", "stream"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_refused_during_a_generation_nothing_has_happened(scheme, mode):
    """Once ``generate([99])`` cleared the history, and with it the text that was being written."""
    assert len(REFUSED) >= 30
    assert written(scheme, mode, REFUSED) == written(scheme, mode, [])


def test_a_call_that_is_not_refused_touches_nothing_before_it_begins():
    async def main(url: str) -> None:
        async with fake_device(url, TABLE) as device:
            running = device.generate(
                [1, 2, 3], max_tokens=30, seed=3, mode="stop-and-wait", gamma=4
            )
            tokens = [token.id async for token in running]
            again = device.generate([1, 2, 3], max_tokens=30, seed=3, mode="stop-and-wait", gamma=4)
            later, found = None, []
            async for token in again:
                found.append(token.id)
                if len(found) == 5:
                    later = device.generate([5], max_tokens=3, seed=1)
            assert found == tokens and device.history == [1, 2, 3, *tokens]
            assert [token.id async for token in later] == device.history[1:]
            assert device.history[:1] == [5]

    with served(FakeTarget(TABLE)) as url:
        asyncio.run(main(url))


def test_two_begun_in_another_order_than_they_were_asked_for():
    async def main(url: str) -> None:
        async with fake_device(url, TABLE) as device:
            options = {"max_tokens": 12, "seed": 3, "mode": "stop-and-wait", "gamma": 4}
            first, second = device.generate([1], **options), device.generate([2], **options)
            theirs = [token.id async for token in second]
            ours = [token.id async for token in first]
            assert device.history == [1, *ours]
            assert theirs == [token.id async for token in device.generate([2], **options)]

    with served(FakeTarget(TABLE)) as url:
        asyncio.run(main(url))


def test_a_device_that_is_not_connected_says_so():
    device = fake_device("ws://127.0.0.1:9", TABLE)
    with pytest.raises(LinkError, match="not connected"):
        device.generate([1])
    assert device.history == []
