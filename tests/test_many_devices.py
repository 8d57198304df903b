"""Several devices over real sockets at once write exactly the texts that each writes alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bs_runtime.engine.slots import Slots
from device_runtime.device import Coupled, Sampling, Split, TopK
from tests.bs_runtime.tiny import CONFIGS, VOCAB, build, take
from tests.fake_models import HASH, fake_device, random_logits
from tests.fakes import FakeTarget, served

COUNT = 8
GREEDY = {"sampling": Sampling(temperature=0.0)}


def texts(
    target, draft: np.ndarray, cases: list[dict], *, together: bool, slots: Slots | None = None
) -> list[list[int]]:
    """What a device for each case writes, one after the other or all at once."""

    async def write(url: str, number: int, options: dict) -> list[int]:
        async with fake_device(url, draft, context=200) as device:
            generation = device.generate(
                [number, 3, 1],
                eos_ids=(),
                **{"max_tokens": 40, "mode": "stop-and-wait", "gamma": 1 + number % 5, **options},
            )
            return [token.id async for token in generation]

    async def run(url: str) -> list[list[int]]:
        if together:
            return await asyncio.gather(*(write(url, i, case) for i, case in enumerate(cases)))
        return [await write(url, i, case) for i, case in enumerate(cases)]

    with served(target, slots=slots) as url:
        return asyncio.run(run(url))


SCHEMES = {
    "greedy": [GREEDY] * COUNT,
    "coupled": [{"scheme": Coupled(), "seed": i} for i in range(COUNT)],
    "mixed": [
        GREEDY,
        {"scheme": Coupled(), "seed": 1},
        {"scheme": TopK(4, 64), "seed": 2},
        {"scheme": Split(4, 64), "seed": 3},
        {"mode": "stream", "seed": 4},
        {"mode": "stream", **GREEDY},
        {"scheme": TopK(8, 64), "seed": 5, "sampling": Sampling(top_k=3, temperature=0.7)},
        {"scheme": Coupled(), "seed": 6, "mode": "stream"},
    ],
}


@pytest.mark.parametrize("name", SCHEMES)
def test_over_a_table(name):
    table = random_logits(3, 20)
    draft = table + np.random.default_rng(4).normal(0.0, 1.0, table.shape)
    cases = SCHEMES[name]
    alone = texts(FakeTarget(table), draft, cases, together=False)
    target = FakeTarget(table)
    assert texts(target, draft, cases, together=True) == alone
    assert max(target.batches) > 1


@pytest.mark.parametrize("name", SCHEMES)
def test_over_a_transformer(name):
    target = take(build(CONFIGS["llama"]))
    target.tokenizer_hash = HASH
    # As good a draft as a table can be: mostly wrong. Every round rolls back.
    draft = random_logits(5, VOCAB)
    alone = texts(target, draft, SCHEMES[name], together=False)
    assert texts(target, draft, SCHEMES[name], together=True) == alone
    assert len({tuple(text) for text in alone}) == COUNT
