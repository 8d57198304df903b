"""One device of eight sends what breaks the model; the others write their own texts, on sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch

from bs_runtime.model.target import Target
from device_runtime.device import Coupled, Sampling, Split, TopK
from tests.bs_runtime.tiny import CONFIGS, VOCAB, build, take
from tests.fake_models import HASH, fake_device, random_logits
from tests.fakes import served

POISON = VOCAB - 2  # an id that no good device has in its prompt or its draft
CASES: list[dict[str, Any]] = [
    {"sampling": Sampling(temperature=0.0)},
    {"scheme": Coupled(), "seed": 1},
    {"scheme": TopK(4, 64), "seed": 2},
    {"scheme": Split(4, 64), "seed": 3},
    {"mode": "stream", "seed": 4},
    {"scheme": Coupled(), "seed": 5, "mode": "run-ahead"},
    {"scheme": TopK(8, 64), "seed": 6, "sampling": Sampling(top_k=3, temperature=0.7)},
]
DRAFT = random_logits(5, VOCAB)
DRAFT[:, POISON] = -1e9


def poisoned(kind: str) -> Target:
    """A model whose embedding of POISON is not numbers, or that fails where it is fed it."""
    target = take(build(CONFIGS["qwen2"]))
    target.tokenizer_hash = HASH
    with torch.no_grad():
        target.model.model.embed_tokens.weight[POISON] = torch.nan
    # And which it never writes by itself.
    never = torch.tensor([POISON])
    target.model.lm_head.register_forward_hook(lambda *seen: seen[2].index_fill(-1, never, -1e4))
    if kind == "forward":

        def fail(_: object, __: object, given: dict[str, Any]) -> None:
            if (given["input_ids"] == POISON).any():
                raise RuntimeError("device-side assert")

        target.model.register_forward_pre_hook(fail, with_kwargs=True)
    return target


async def write(url: str, number: int) -> list[int]:
    options = {"max_tokens": 24, "eos_ids": (), "mode": "stop-and-wait", "gamma": 1 + number % 4}
    options |= CASES[number]
    async with fake_device(url, DRAFT, context=200) as device:
        return [token.id async for token in device.generate([number, 3, 1], **options)]


async def attack(url: str, met: asyncio.Event, refused: list[float], reasons: set[str]) -> None:
    """Come again and again with the poison in the prompt."""
    while True:
        begun = time.monotonic()
        async with fake_device(url, DRAFT, context=200) as device:
            with pytest.raises(Exception) as error:
                async for _ in device.generate([POISON, 3], max_tokens=8, mode="stream", seed=1):
                    raise AssertionError("a text from nothing")
        refused.append(time.monotonic() - begun)
        reasons.add(str(error.value))
        met.set()


@pytest.mark.parametrize("kind", ["rows", "forward"])
def test_seven_devices_write_their_own_texts_beside_a_poisoned_one(kind):
    async def run(url: str) -> tuple[list[list[int]], list[list[int]], list[float], set[str]]:
        alone = [await write(url, number) for number in range(len(CASES))]
        refused: list[float] = []
        reasons: set[str] = set()
        met = asyncio.Event()
        attacker = asyncio.create_task(attack(url, met, refused, reasons))
        await met.wait()  # the first time it is alone
        found = await asyncio.gather(*(write(url, number) for number in range(len(CASES))))
        attacker.cancel()
        outcome = await asyncio.gather(attacker, return_exceptions=True)
        assert isinstance(outcome[0], asyncio.CancelledError), outcome
        return alone, found, refused, reasons

    with served(poisoned(kind)) as url:
        alone, found, refused, reasons = asyncio.run(asyncio.wait_for(run(url), 60))
    assert found == alone
    assert all(len(text) == 24 for text in found)
    assert np.median(refused) < 2.0
    expected = "the model is broken" if kind == "rows" else "RuntimeError at the base station"
    assert all(expected in reason for reason in reasons), reasons
