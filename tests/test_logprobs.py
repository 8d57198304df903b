"""Log-probabilities are the target's own at every position: in every mode, over every lost link."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
from device_runtime.result import MODES
from draftlink.link.shaping import LinkProfile, make_link
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from tests.fake_models import fake_device, letters
from tests.fakes import FakeTarget, served
from tests.fragile import outages
from tests.test_both import SIZE, STEP_S, TABLE, DeepTarget, draft_of, noise_behind

WITHIN = 1e-4
PROMPT = [1, 2, 3]
# Each changes p, and none of them the log-probabilities.
SHAPED = Sampling(0.7, top_k=9, repetition_penalty=1.2, presence_penalty=0.5,
                  logit_bias=((4, -3.0), (7, 2.0)))  # fmt: skip
SCHEMES = {
    "greedy": {"sampling": Sampling(0.0)},
    "coupled": {"scheme": Coupled(), "sampling": SHAPED},
    "topk": {"scheme": TopK(8, 64), "sampling": SHAPED},
    "dense": {"scheme": Dense()},
    "split": {"scheme": Split(8, 64), "sampling": SHAPED},
}
CASES = [
    (name, mode) for name in SCHEMES for mode in MODES
    if mode != "both" or name in ("greedy", "coupled")
]  # fmt: skip


def own(past: list[int]) -> np.ndarray:
    """The target's log-softmax behind ``past``, by its definition."""
    scores = TABLE[past[-1]] + noise_behind(bytes(past))
    scores = scores - scores.max()
    return scores - np.log(np.exp(scores).sum())


def written(name: str, mode: str, count: int = 5, cuts=(), kind: str = "random", **options):
    """The tokens that stand, all that came, and the result, in virtual time."""

    async def main():
        world = World(draft_of(kind, 3), DeepTarget(TABLE), letters(SIZE), 2048, 0.006, STEP_S)
        async with world.device(make_link(LinkProfile(1e7, 1e7, 0.02), seed=1)) as device:
            outages(world, device, cuts)
            given = {"max_tokens": 50, "seed": 5, "gamma": 4, "suppressed_ids": (0, 11)}
            generation = device.generate(
                PROMPT, mode=mode, logprobs=count, **given | SCHEMES[name] | options
            )
            come = [token async for token in generation]
            return [token for token in come if token.kind != "provisional"], come, generation.result

    return run(main())


def check(stand, count: int = 5) -> None:
    past = list(PROMPT)
    for token in stand:
        law = own(past)
        assert abs(token.logprob - law[token.id]) <= WITHIN
        likeliest = np.argsort(-law)[:count]
        assert [each for each, _ in token.top_logprobs] == likeliest.tolist()
        assert np.abs([value for _, value in token.top_logprobs] - law[likeliest]).max(
            initial=0.0
        ) <= WITHIN  # fmt: skip
        past.append(token.id)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_they_are_the_targets_log_softmax(name, mode):
    stand, _, result = written(name, mode)
    check(stand)
    assert len(stand) == 50 and (mode in ("stream", "auto") or result.drafted)
    assert result.logprobs == [(token.logprob, token.top_logprobs) for token in stand]
    assert {0, 11} & {each for token in stand for each, _ in token.top_logprobs}  # not cut off


@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "replayed"])
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_over_a_new_connection_none_is_missing(name, mode, forgets, monkeypatch):
    """What was lost on its way comes again, by the log or by the model; nothing is made up."""
    if forgets:
        monkeypatch.setattr(Session, "adopt", lambda self, parked: False)
    cuts = ((0.3, 0.35), (0.6, 0.9))
    stand, _, result = written(name, mode, cuts=cuts)
    check(stand)
    assert len(stand) == 50 and result.reconnects == 2


def test_of_a_text_that_is_told_again_too(monkeypatch):
    """Where both ends write frames are not kept: what was said of each token is."""
    told = []
    real = Session.send

    def sends(self, frame):
        told.append(isinstance(frame, frames.Written) and frame.rows == 0)
        return real(self, frame)

    monkeypatch.setattr(Session, "send", sends)
    for begin in np.arange(0.2, 1.0, 0.02):  # until something was on its way
        stand, _, _ = written("coupled", "both", cuts=((begin, begin + 0.1),))
        check(stand)
        if any(told):
            return
    raise AssertionError("nothing was told again")


def test_provisional_tokens_have_none():
    for name, mode in (("coupled", "both"), ("topk", "stop-and-wait"), ("topk", "stream")):
        stand, come, result = written(
            name, mode, cuts=((0.4, 2.0),), offline_after_s=0.1, kind="right"
        )
        shown = [token for token in come if token.kind == "provisional"]
        assert shown and all(each.logprob is None and not each.top_logprobs for each in shown)
        check(stand)  # those that confirm one, too
        assert len(result.logprobs) == len(result.tokens) == 50


@pytest.mark.parametrize("count", [0, 1, 20])
def test_as_many_as_are_asked_for(count):
    stand, _, _ = written("topk", "run-ahead", count)
    check(stand, count)


def test_nobody_is_told_who_did_not_ask():
    stand, _, result = written("topk", "run-ahead", None)
    assert result.logprobs == [] and all(token.logprob is None for token in stand)


def test_what_cannot_be_told_is_refused_by_name(monkeypatch):
    async def asks(url: str, count: object) -> None:
        async with fake_device(url, TABLE) as device:
            device.generate([1], logprobs=count)

    with served(FakeTarget(TABLE)) as url:
        for count in (-1, 21, "a", 1.5):
            with pytest.raises(ValueError, match=r"^logprobs must be"):
                asyncio.run(asks(url, count))
        others = tuple(name for name in frames.FEATURES if name != frames.LOGPROBS)
        monkeypatch.setattr(frames, "FEATURES", others)
        with pytest.raises(ValueError, match=r"^logprobs cannot be told"):
            asyncio.run(asks(url, 0))


@pytest.mark.parametrize("mode", MODES)
def test_of_a_real_target_in_float32(mode, model_folder, bundle):
    """A small model of transformers': its own log-softmax, in one forward over the whole text."""
    import torch

    from bs_runtime.model.target import Target

    target = Target.load(str(model_folder("llama")))

    async def write(url: str):
        async with Device(bundle(), url, threads=1) as device:
            generation = device.generate(
                "Once upon a time", mode=mode, logprobs=3, max_tokens=24, scheme=Coupled(), seed=2,
                sampling=Sampling(0.8), eos_ids=(),
            )  # fmt: skip
            return [token async for token in generation], list(device.history)

    with served(target) as url:
        come, history = asyncio.run(write(url))
    with torch.inference_mode():
        model = load(model_folder("llama"))
        logits = model(torch.tensor([history])).logits[0]
    law = torch.log_softmax(logits.float(), dim=-1)
    begins = len(history) - len(come)
    for place, token in enumerate(come, begins):
        row = law[place - 1]
        assert abs(token.logprob - float(row[token.id])) <= WITHIN
        likeliest = dict(token.top_logprobs)
        assert set(likeliest) == set(row.topk(3).indices.tolist())
        assert all(abs(value - float(row[each])) <= WITHIN for each, value in likeliest.items())


def load(folder):
    """By transformers alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).float().eval()


def test_the_control_sees_another_position():
    """The target's rows differ from position to position by far more than is allowed."""
    stand, _, _ = written("greedy", "stream")
    past = [*PROMPT, stand[0].id]
    assert abs(stand[0].logprob - own(past)[stand[0].id]) > 100 * WITHIN
