"""``split``'s recovery end to end: how pairs come, and over what, changes no token of a text."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.engine import corrections
from device_runtime.device import LinkError, Result, Sampling, Split
from device_runtime.drafting.drafter import Drafter, Missed
from draftlink.link.shaping import LinkProfile, make_link
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.schemes import split
from tests.fake_models import FakeModel, fake_device, letters, random_logits
from tests.fakes import FakeTarget, served
from tests.fragile import outages
from tests.test_exactness import ERROR_RATE, chi_square, transitions

SIZE = 50
TARGET = random_logits(1, SIZE, 1.0)
DRAFT = TARGET + random_logits(2, SIZE, 0.7)
LINK = LinkProfile(5e6, 5e6, 0.060, jitter_s=0.02, loss=0.02)


def written(seed: int, cuts: int = 0, pairs: int = 6, **options) -> Result:
    """A text in virtual time, over a link that is cut so often."""

    async def main() -> Result:
        rng = random.Random(cuts)
        model = FakeModel(DRAFT, rows=False, context=2048)
        here = World(model, FakeTarget(TARGET), letters(SIZE), 2048, 0.01, 0.045)
        async with here.device(make_link(LINK, seed=cuts)) as device:
            times = sorted(rng.uniform(0.1, 2.0) for _ in range(cuts))
            outages(here, device, [(at, at + rng.choice([0.0, 0.3])) for at in times])
            given = {"mode": "run-ahead", "scheme": Split(30, 1024, pairs), "seed": seed, **options}
            generation = device.generate([1, 2, 3], max_tokens=40, **given)
            async for _ in generation:
                pass
            assert generation.result.reconnects >= min(cuts, 1)
            return generation.result

    return run(main())


def at_once(monkeypatch, count: int) -> None:
    monkeypatch.setattr(corrections, "pairs_at_first", lambda size, rejected: count)


def test_how_many_pairs_come_at_once_changes_no_text(monkeypatch):
    """All at first, or one, and the others when they are asked for; and the row behind the last."""
    asked, texts = noted(monkeypatch), []
    for count in (6, 3, 1):
        at_once(monkeypatch, count)
        asked.clear()
        texts.append([written(seed).tokens for seed in range(3)])
        assert set(asked) == {count, 6}
    assert texts[0] == texts[1] == texts[2]


def noted(monkeypatch) -> list[int]:
    """How many pairs had missed, each time that more is asked for."""
    found, correct = list[int](), Drafter.correct

    def noting(self, *args):
        token = correct(self, *args)
        if isinstance(token, Missed):
            found.append(token.had)
        return token

    monkeypatch.setattr(Drafter, "correct", noting)
    return found


@pytest.mark.parametrize("remembers", [True, False], ids=["parked", "forgotten"])
@pytest.mark.parametrize(("mode", "gamma"), [("run-ahead", None), ("stop-and-wait", 3)])
def test_a_lost_connection_changes_no_text(monkeypatch, mode, gamma, remembers):
    """Not either where more has been asked for: few pairs, and most of them miss."""
    at_once(monkeypatch, 1)
    asked = noted(monkeypatch)
    if not remembers:
        monkeypatch.setattr(Session, "adopt", lambda *_: False)
    for seed in (1, 2):
        options = {"mode": mode, "gamma": gamma, "pairs": 2, "offline_after_s": 0.05 * seed}
        calm = written(seed, **options)
        assert calm.reconnects == 0 and asked
        for cuts in (5, 6, 7):
            assert written(seed, cuts, **options).tokens == calm.tokens


def test_draws_that_are_made_anew_change_the_text(monkeypatch):
    """The control: a base station that draws other pairs when it is asked again."""
    true = [written(seed).tokens for seed in range(3)]
    monkeypatch.setattr("bs_runtime.verify.recovery.noise.uniform", lambda *_: random.random())
    assert [written(seed).tokens for seed in range(3)] != true


def test_what_comes_over_sockets_follows_the_target(monkeypatch):
    """With pairs that miss at times; not where a pair is judged as a drafted token is."""
    monkeypatch.setattr(split, "FEW", 1)
    at_once(monkeypatch, 3)
    asked = noted(monkeypatch)

    def worst() -> float:
        found, law = transitions(6, Split(3, 16, 5), 4, 4000)
        return min(chi_square(found[token], law[token]) for token in range(6))

    assert worst() > ERROR_RATE
    assert set(asked) == {3, 5}
    monkeypatch.setattr(split, "stands", lambda share, drafted, u: u * drafted < share)
    assert worst() < ERROR_RATE


def bits_down(url: str, device_speaks, **options) -> tuple[int, list[int]]:
    async def write() -> tuple[int, list[int]]:
        async with fake_device(url, DRAFT) as device:
            assert (frames.RECOVERY in device.client.welcome.features) == device_speaks
            generation = device.generate(
                [1, 2, 3], max_tokens=60, mode="stop-and-wait", gamma=4, seed=1, **options
            )
            async for _ in generation:
                pass
            return generation.result.downlink_payload_bits, generation.result.tokens

    return asyncio.run(write())


def test_who_does_not_know_of_pairs_is_sent_rows(monkeypatch):
    """Either end, whatever is asked for; and so is who asks for none, or for log-probabilities."""
    with served(FakeTarget(TARGET)) as url:
        rows = bits_down(url, True, scheme=Split(4, 16, 0))
        pairs, _ = bits_down(url, True, scheme=Split(4, 16))
        assert pairs < 0.9 * rows[0]
        told, tokens = bits_down(url, True, scheme=Split(4, 16), logprobs=0)
        assert tokens == rows[1] and told > rows[0]
        without = tuple(name for name in frames.FEATURES if name != frames.RECOVERY)
        monkeypatch.setattr(frames, "FEATURES", without)
        for stated in ({}, {"pairs": 8}, {"pairs": 0}):
            bits, tokens = bits_down(url, False, scheme=Split(4, 16, **stated))
            assert tokens == rows[1] and bits == pytest.approx(rows[0], rel=0.01)  # and times


def test_a_small_p_is_sent_whole(monkeypatch):
    """Behind top-k there is no more to say, and nothing to miss."""
    asked = noted(monkeypatch)
    unpacked, supports = split.unpack_support, list[int]()

    def noting(data, size):
        p = unpacked(data, size)
        supports.append(np.count_nonzero(p))
        return p

    monkeypatch.setattr(split, "unpack_support", noting)
    written(1, sampling=Sampling(top_k=5))
    assert supports and set(supports) == {5} and not asked
    supports.clear()
    written(1)
    assert not supports


def drawn(*pairs: tuple[int, float], most: int = 6, size: int = SIZE) -> bytes:
    return split.pack_draws(pairs, 0, most, size)


NO_ANSWERS = {
    "nothing behind the form": b"\x01",
    "no set": b"\x02ab",
    "no form": b"\x07",
    "bytes left over": drawn((3, 0.5)) + bytes(9),
    "a row, where pairs are due": split.pack_row(np.zeros(SIZE, np.float32)),
    "no number": drawn((3, np.nan)),
    "never drawn": drawn((3, 0.0)),
    "below 0": drawn((3, -0.5)),
    "more than certain": drawn((3, 1.5)),
    "more than certain together": drawn((3, 0.7), (4, 0.7)),
    "more than there may be": drawn(*[(3, 0.5)] * 9, most=9),
    "of a larger vocabulary": drawn((3, 0.5), (4999, 0.5), size=5000),
    "suppressed": drawn((7, 0.5)),
    "all of p, with a suppressed id": split.pack_support([(7, 0.5), (8, 0.5)], SIZE),
    "not all of p": split.pack_support([(3, 0.5), (8, 0.4)], SIZE),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_ends_in_an_error(monkeypatch, answer):
    """A peer's bytes: never a token."""
    monkeypatch.setattr("bs_runtime.verify.verify.recovery.packed", lambda *_: answer)
    with pytest.raises(LinkError, match="the base station broke the protocol"):
        written(1, suppressed_ids=[7])


def test_the_control_of_what_is_no_answer(monkeypatch):
    """One pair, which stands: an id that the draft's rows do not list."""
    drafted = Split.propose

    def listing(self, q, key, position, weight=1.0):
        q = q.copy()
        q[3] = 0.0
        return drafted(self, q, key, position, weight)

    monkeypatch.setattr(Split, "propose", listing)
    monkeypatch.setattr("bs_runtime.verify.verify.recovery.packed", lambda *_: drawn((3, 0.5)))
    assert 3 in written(1, suppressed_ids=[7]).tokens
