"""What a device learns from a stream that tells how likely the target found each token."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from device_runtime.device import Sampling
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.drafter import Drafter
from device_runtime.drafting.estimators import Acceptance
from draftlink.distribution import noise, sampling
from draftlink.protocol import frames
from draftlink.protocol.frames import Tokens
from draftlink.protocol.session import LocalProtocolError, ProtocolError
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.topk import TopK
from tests.draftlink.test_session import HELLO, WELCOME, Pair, start
from tests.fake_models import FakeModel, fake_device, random_logits, softmax
from tests.fakes import FakeTarget, served

FEATURES = [frames.STREAMED]


def greeted(*features: str) -> Pair:
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=list(features)))
    pair.down(msgspec.structs.replace(WELCOME, features=list(features)))
    return pair


@pytest.mark.parametrize("wanted", [True, False])
def test_a_start_needs_the_feature(wanted):
    asked = start("stream", streamed_surprisals=wanted)
    greeted(*FEATURES).up(asked)
    with pytest.raises(LocalProtocolError, match="streamed-surprisals was not agreed on"):
        greeted().up(asked)


def test_a_start_without_them_has_the_bytes_that_it_had():
    assert b"streamed" not in frames.encode(start())
    assert not frames.decode(frames.encode(start())).streams_surprisals


@pytest.mark.parametrize(
    ("wanted", "said"), [(True, b""), (True, b"\1"), (True, b"\1\2\3"), (False, b"\1\2")]
)
def test_there_is_one_for_each_token_where_they_were_asked_for(wanted, said):
    pair = greeted(*FEATURES)
    pair.up(start("stream", streamed_surprisals=wanted))
    right = b"\1\2" if wanted else b""
    pair.down(Tokens(1, 3, (5, 6), False, surprisals=right))
    wrong = frames.encode(Tokens(1, 5, (5, 6), False, surprisals=said))
    with pytest.raises(ProtocolError, match=f"{len(said)} surprisals for 2 tokens"):
        pair.device.receive(wrong)


def overlap(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.minimum(p, q).sum())


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_the_targets_tokens_are_the_overlap_on_average(seed):
    """Σ p(y) min(1, q(y)/p(y)), with p as a byte says it. Control: matching is something else."""
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(50, 0.4), 2)
    said = np.minimum(255, np.round(-8.0 * np.log2(p))) / 8.0
    shares = np.minimum(1.0, q * 2.0**said)
    assert p @ shares == pytest.approx(overlap(p, q), abs=0.02)
    assert p @ q < overlap(p, q) - 0.1


def test_they_change_the_rate_alone():
    here, other = Acceptance(), Acceptance()
    for share in (1.0, 0.25, 0.5):
        here.told(share)
    assert here.alpha == pytest.approx((1.75 + 3.0) / (3.0 + 4.0), abs=0.01)
    assert here.weight == pytest.approx(3.0, abs=0.05)
    assert [here.reached, here.stood] == [[], []]
    assert here.probability(0.99) != other.probability(0.99)  # by the rate, of which it hangs


def test_the_row_is_what_the_token_was_drawn_from():
    table = random_logits(1, 20).astype(np.float32)
    params = Sampling(0.7, top_k=5)
    asked = start("stream", sampling=params, scheme=TopK(4, 16))
    drafter = Drafter(FakeModel(table, rows=False), asked, 20, noise.key_from_seed(1, "device"))
    drafter.propose([1, 2, 3], 1, 3)
    expected = sampling.distribution(table[3], params, [1, 2, 3], 3)
    assert np.allclose(drafter.row(), expected, atol=1e-6)


SIZE, TEMPERATURE = 30, 0.8
TARGET, DRAFT = random_logits(1, SIZE), random_logits(2, SIZE)


def listened(monkeypatch, told: list[float]) -> None:
    """Whoever might write, the base station does; what is told of its tokens is noted."""
    monkeypatch.setattr(Controller, "begin", lambda self, *, near: "stream")
    monkeypatch.setattr(Controller, "choose", lambda self, left: "stream")
    monkeypatch.setattr(Acceptance, "told", lambda self, share: told.append(share))


def written(url: str, **how: object) -> list[int]:
    async def run() -> list[int]:
        async with fake_device(url, DRAFT) as device:
            asked = {"scheme": TopK(4, 16), "mode": "auto", "sampling": Sampling(TEMPERATURE)} | how
            generation = device.generate([3], max_tokens=200, seed=5, eos_ids=(), **asked)
            async for _ in generation:
                pass
            return generation.result.tokens

    return asyncio.run(run())


def shares(text: list[int], draft: np.ndarray) -> list[float]:
    """What each token's would be."""
    found = []
    for before, token in zip([3, *text], text, strict=False):
        p, q = (softmax(table[before] / TEMPERATURE)[token] for table in (TARGET, draft))
        found.append(min(1.0, q / p))
    return found


def runs_along(told: list[float], expected: list[float]) -> bool:
    """Whether they are some of those expected, in order, but for how finely they are said."""
    left = iter(expected)
    return all(any(abs(one - other) <= 0.045 * other for other in left) for one in told)


def test_a_device_that_follows_a_stream_is_told_of_its_tokens(monkeypatch):
    told: list[float] = []
    listened(monkeypatch, told)
    with served(FakeTarget(TARGET)) as url:
        text = written(url)
    assert len(text) == 200 and len(told) >= 20  # those that the draft was in time for
    assert runs_along(told, shares(text, DRAFT))
    assert not runs_along(told, shares(text, np.roll(DRAFT, 1, 0)))  # of another token's row


@pytest.mark.parametrize(
    "how", [{"mode": "stream"}, {"scheme": Coupled(), "mode": "stream"}, {"mode": "run-ahead"}]
)
def test_nobody_else_asks(monkeypatch, how):
    asked: list[frames.Start] = []
    encode = frames.encode

    def noted(frame):
        asked.extend([frame] if isinstance(frame, frames.Start) else [])
        return encode(frame)

    monkeypatch.setattr(frames, "encode", noted)
    with served(FakeTarget(TARGET)) as url:
        written(url, **how)
    assert asked and not any(one.streams_surprisals for one in asked)


def test_a_base_station_that_does_not_know_them_streams_as_before(monkeypatch):
    told: list[float] = []
    listened(monkeypatch, told)
    others = tuple(name for name in frames.FEATURES if name != frames.STREAMED)
    with served(FakeTarget(TARGET)) as url:
        monkeypatch.setattr(frames, "FEATURES", others)
        assert len(written(url)) == 200
    assert told == []
