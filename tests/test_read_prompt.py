"""The base station writes while the device reads its prompt, and no longer where drafting pays."""

from __future__ import annotations

import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Sampling, TopK
from device_runtime.drafting.estimators import Estimates
from device_runtime.result import Result
from draftlink.link.shaping import LinkProfile, make_link
from tests.fake_models import FakeModel, letters, random_logits
from tests.fakes import FakeTarget

RTT_S, TARGET_S = 0.020, 0.045


def texts(count: int, mode: str = "auto", *, served: bool = False) -> list[Result]:
    """Texts that one device writes one after the other; all that it drafts is accepted."""
    table = random_logits(1, 20)
    models = FakeModel(table, rows=False), FakeTarget(table)
    world = World(*models, letters(20), 1000, 0.010, TARGET_S, served=served)

    async def all_() -> list[Result]:
        found = []
        async with world.device(make_link(LinkProfile(50e6, 50e6, RTT_S))) as device:
            for seed in range(count):
                generation = device.generate(
                    [seed, 1, 2, 3, 4], max_tokens=40, eos_ids=(), mode=mode, seed=seed,
                    scheme=TopK(8, 64, tiers=3), sampling=Sampling(1.0),
                )  # fmt: skip
                async for _ in generation:
                    pass
                found.append(generation.result)
        return found

    return run(all_())


def test_a_device_that_knows_has_one_token_of_the_stream_and_has_it_as_early():
    """It asks as soon as it has read the prompt; the token that this brings is written before."""
    cold, *known = texts(4)
    (stream,) = texts(1, "stream")
    assert cold.kinds.count("stream") > 2  # nothing was known
    for result in known:
        assert result.kinds.count("stream") == 1 and result.kinds[0] == "stream"
        assert result.mode == "stream, then run-ahead"
        assert result.ttft_s == pytest.approx(stream.ttft_s, abs=1e-3)


def test_what_a_welcome_says_of_steps_tells_a_cold_device(monkeypatch):
    """It need not see two tokens of a stream; control: a base station that says nothing."""
    (told,), (untold,) = texts(1, served=True), texts(1)
    assert told.kinds.count("stream") < untold.kinds.count("stream")
    assert told.tokens_per_s > untold.tokens_per_s
    monkeypatch.setattr(Estimates, "stream_s", property(lambda self: self.target.typical))
    (deaf,) = texts(1, served=True)
    assert deaf.kinds.count("stream") == untold.kinds.count("stream")
