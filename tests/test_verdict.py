"""The doctor's verdict against measured runs: both ends' own code, in virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Coupled
from device_runtime.probe import Probed, probe
from draftlink.link.shaping import PROFILES, make_link
from draftlink.planning import theory
from draftlink.planning.verdict import ERRORS, GOOD, Both, Measured, answer, judge, reason
from draftlink.schemes import topk
from tests.fake_models import FakeModel, letters, random_logits
from tests.fakes import FakeTarget

SIZE = 20
SHORT, LONG = (100, 2), (300, 3)  # tokens of a text, and texts, of a run that is compared
# What is left out of a forecast: acceptance that depends on what is written, chances by which a
# device cuts its blocks, the first forward of each text; in a short run also its own luck.
BESIDES = {SHORT: 0.2, LONG: 0.12}


@dataclass(frozen=True)
class Setting:
    """``noise``: of the draft's logits over the target's."""

    link: str
    draft_s: float
    target_s: float
    noise: float
    cause: str = ""  # why drafting does not pay; none where it does
    row_s: float = 0.0


SETTINGS = {
    "wifi, a good draft": Setting("wifi", 0.010, 0.045, 0.5),
    "lte, a fast draft": Setting("lte", 0.004, 0.090, 0.5),
    "5g, rows that cost": Setting("5g", 0.008, 0.060, 0.4, row_s=0.003),
    "a slow draft": Setting("wifi", 0.060, 0.045, 0.5, "draft"),
    "satellite": Setting("satellite", 0.010, 0.045, 0.5, "round trip"),
    "a bad draft": Setting("wifi", 0.008, 0.020, 3.0, "acceptance"),
}


def world(setting: Setting) -> World:
    table = random_logits(3, SIZE, 2.0)
    worse = table + np.random.default_rng(8).normal(0.0, setting.noise, table.shape)
    draft = FakeModel(worse, rows=False)
    costs = setting.draft_s, setting.target_s
    return World(
        draft, FakeTarget(table), letters(SIZE), draft.context, *costs, row_s=setting.row_s
    )


@cache
def probed(name: str) -> Probed:
    async def one() -> Probed:
        setting = SETTINGS[name]
        async with world(setting).device(make_link(PROFILES[setting.link], seed=9)) as device:
            return await probe(device, [1, 2, 3])

    return run(one())


@cache
def tokens_per_s(name: str, mode: str, length: tuple[int, int]) -> float:
    """Of some texts one after the other."""
    tokens, texts = length

    async def one() -> float:
        setting, seconds = SETTINGS[name], 0.0
        async with world(setting).device(make_link(PROFILES[setting.link], seed=1)) as device:
            for seed in range(texts):
                scheme = Coupled() if mode == "both" else topk.usual()
                generation = device.generate(
                    [4, 5, 6], max_tokens=tokens, eos_ids=(), mode=mode, scheme=scheme, seed=seed
                )
                async for _ in generation:
                    pass
                seconds += tokens / generation.result.tokens_per_s
        return texts * tokens / seconds

    return run(one())


def measured_gain(name: str, length: tuple[int, int]) -> float:
    modes = ("stop-and-wait", "run-ahead")
    drafting = max(tokens_per_s(name, mode, length) for mode in modes)
    return drafting / tokens_per_s(name, "stream", length)


@pytest.mark.parametrize("length", [SHORT, pytest.param(LONG, marks=pytest.mark.full)], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_verdict_is_what_runs_show(name, length):
    setting, found = SETTINGS[name], probed(name)
    verdict, gain = judge(found.measured), measured_gain(name, length)
    print(f"{name}: told {verdict.gain:.2f} ({verdict.low:.2f} to {verdict.high:.2f}), "
          f"measured {gain:.2f}; {reason(found.measured, verdict)}")  # fmt: skip
    assert verdict.pays == (gain > 1.0) == (not setting.cause)
    assert verdict.low * (1 - BESIDES[length]) <= gain <= verdict.high * (1 + BESIDES[length])
    if setting.cause:
        assert verdict.cause == setting.cause
        assert "the base station alone is faster" in reason(found.measured, verdict)
    else:
        assert f"drafting gains {verdict.gain:.1f} times" in reason(found.measured, verdict)


@pytest.mark.parametrize("length", [SHORT, pytest.param(LONG, marks=pytest.mark.full)], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_said_of_both_ends_writing_is_what_runs_show(name, length):
    found = probed(name)
    told = found.both
    gain = tokens_per_s(name, "both", length) / tokens_per_s(name, "stream", length)
    verdict = judge(found.measured)
    lines = answer(found.measured, verdict, told)
    print(f"{name}: told {told.gain:.2f}, measured {gain:.2f}; {lines}")
    # Two standard errors of what was told and of the run that it is held against.
    tokens, texts = length
    luck = 2.0 * math.hypot(told.error, Both(gain, 0.0, tokens * texts).error)
    assert abs(gain - told.gain) < luck
    assert gain > 1.0 if told.pays else abs(gain - 1.0) < luck
    assert len(lines) == 2 and ("both ends write" in lines[0]) == (
        told.pays and told.gain > max(1.0, verdict.gain)
    )


@pytest.mark.parametrize(
    ("gain", "words"),
    [(1.3, "drafting gains 1.3 times"), (1.02, "about as fast"), (0.5, "is faster, too")],
)
def test_both_choices_are_told_the_better_one_first(gain, words):
    """With rows drafting gains some 1.1 times in the one, and loses in the other."""
    pays = Measured(0.8, 0.0, 0.01, 0.045, 0.045, 0.0, 0.01, 0.01, 0.045)
    for measured in (pays, replace(pays, rtt_s=1.0, draft_s=0.1, draft_beside_s=0.1)):
        verdict = judge(measured)
        lines = answer(measured, verdict, Both(gain, 29.0, 64))
        first = gain > max(1.0 + Both(gain, 0.0, 64).error, verdict.gain)
        assert words in lines[0 if first else 1] and "topk" in " ".join(lines) + "topk" * (
            not verdict.pays
        )
        assert reason(measured, verdict) in lines[1 if first else 0]
        assert answer(measured, verdict, None) == [reason(measured, verdict)]


def test_a_verdict_that_leaves_something_out_is_wrong():
    """The controls: without the round trip, or with all accepted, the same times say to draft."""
    far = probed("satellite").measured
    assert judge(replace(far, rtt_s=0.0)).pays and not judge(far).pays
    bad = probed("a bad draft").measured
    assert judge(replace(bad, alpha=GOOD)).pays and not judge(bad).pays
    slow = probed("a slow draft").measured
    assert judge(replace(slow, draft_s=0.01, draft_beside_s=0.01)).pays and not judge(slow).pays


def test_what_was_measured_is_what_was_set():
    for name, setting in SETTINGS.items():
        found = probed(name).measured
        assert found.draft_s == pytest.approx(setting.draft_s, rel=0.05)
        assert found.target_s == pytest.approx(setting.target_s, rel=0.05)
        assert found.rtt_s == pytest.approx(
            PROFILES[setting.link].mean_rtt_s, rel=0.35, abs=0.002
        )  # stalls included, of which a few rounds have more or fewer
        assert found.row_s == pytest.approx(setting.row_s, abs=0.001)


def test_stop_and_wait_is_the_theory_s():
    """Where nothing is known of rows and a forward beside another one costs so much more."""
    found = Measured(0.8, 0.0, 0.01, 0.045, 0.045, 0.0, 0.06, 1.0, 0.045)
    gamma = theory.best_draft_length(0.8, fixed_s=0.105, draft_s=0.01)
    seconds = (0.105 + gamma * 0.01) / theory.expected_tokens(0.8, gamma)
    verdict = judge(found)
    assert verdict.mode == "stop-and-wait"
    assert verdict.gain == pytest.approx(0.045 / seconds)
    assert verdict.low == verdict.high == verdict.gain and ERRORS > 0
