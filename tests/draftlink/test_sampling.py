"""One definition of the sampled distribution, equal to transformers' own; and the draws from it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from scipy import stats
from transformers import generation

from draftlink.distribution import noise, sampling
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import Sampling

CASES = [
    Sampling(temperature=0.7),
    Sampling(temperature=1.3, top_k=5),
    Sampling(top_p=0.8),
    Sampling(min_p=0.2),
    Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
]


@pytest.mark.parametrize("params", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_transformers(params, seed):
    logits = np.random.default_rng(seed).normal(0, 3, 60)
    history = [3, 5, 5, 9]
    warpers = generation.LogitsProcessorList(
        [
            generation.RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
            generation.TemperatureLogitsWarper(params.temperature),
            *([generation.TopKLogitsWarper(params.top_k)] if params.top_k else []),
            *([generation.TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []),
            *([generation.MinPLogitsWarper(params.min_p)] if params.min_p else []),
        ]
    )
    scores = warpers(torch.tensor([history]), torch.from_numpy(logits)[None].clone())
    expected = scores.softmax(-1)[0].numpy()
    assert np.abs(sampling.distribution(logits, params, history) - expected).max() < 1e-12


def test_bias_and_penalties_are_openais():
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, over the output alone; the bias before."""
    logits = np.random.default_rng(3).normal(0, 3, 8)
    params = Sampling(
        frequency_penalty=0.5, presence_penalty=-0.25, logit_bias=((1, 2.0), (6, -100.0), (9, 5.0))
    )
    params.check()
    found = sampling.penalised(logits, params, [1, 1, 4, 2, 4], 2)  # written: 4, 2, 4
    expected = logits.copy()
    expected[1] += 2.0
    expected[6] -= 100.0
    expected[2] -= 0.5 - 0.25
    expected[4] -= 1.0 - 0.25
    assert np.array_equal(found, expected)
    assert np.array_equal(sampling.penalised(logits, params, [1, 4], 2)[[2, 4]], logits[[2, 4]])
    # With the repetition penalty, which counts the prompt, as transformers has it.
    both = msgspec.structs.replace(params, repetition_penalty=1.3, logit_bias=msgspec.UNSET)
    seen = sampling.penalised(logits, both, [1, 4], 1)
    penalty = generation.RepetitionPenaltyLogitsProcessor(1.3)
    expected = penalty(torch.tensor([[1, 4]]), torch.from_numpy(logits)[None].clone())[0].numpy()
    expected[4] -= 0.25
    assert np.abs(seen - expected).max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"presence_penalty": 2.1}, "presence_penalty must be between"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty must be between"),
        ({"frequency_penalty": "a"}, "frequency_penalty must be a number"),
        ({"logit_bias": ((1, 101.0),)}, "logit_bias must be between"),
        ({"logit_bias": ((1, float("nan")),)}, "logit_bias must be between"),
        ({"logit_bias": ((2, 1.0), (1, 1.0))}, "ascend"),
        ({"logit_bias": ((1, 1.0), (1, 1.0))}, "ascend"),
        ({"logit_bias": ((-1, 1.0),)}, "ascend"),
        ({"logit_bias": ((0.5, 1.0),)}, "pairs"),
        ({"logit_bias": 5}, "pairs"),
        ({"logit_bias": tuple((i, 1.0) for i in range(1025))}, "at most 1024"),
    ],
)
def test_bias_and_penalties_that_cannot_be(changes, says):
    with pytest.raises(ValueError, match=says):
        Sampling(**changes).check()


def test_what_is_not_stated_is_not_sent():
    """A frame without them has the bytes that it had before there were any."""
    data = msgspec.msgpack.encode(Sampling(0.7))
    assert b"penalties" not in data and b"bias" not in data and b"presence" not in data
    assert data[0] == 0x85  # a map of five
    stated = Sampling(presence_penalty=0.5, logit_bias=((3, 1.0),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(stated), type=Sampling) == stated
    assert hash(stated) != hash(Sampling())


def test_draws_follow_the_weights_and_never_take_a_weight_of_zero():
    weights = np.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    key = noise.key_from_seed(1, "bs")
    found = np.bincount(
        [sampling.draw(weights, noise.uniform(key, i, Purpose.BONUS)) for i in range(5000)],
        minlength=6,
    )
    assert (found[weights == 0] == 0).all()
    some = weights > 0
    assert stats.chisquare(found[some], 5000 * weights[some]).pvalue > 1e-6
    assert sampling.draw(weights, np.nextafter(1.0, 0.0)) == 4
    assert sampling.draw(weights, 0.0) == 1


def test_noise_is_the_same_everywhere():
    """Golden values: a change would break every stored seed and every resumed generation."""
    key = noise.key_from_seed(7, "bs")
    assert key.hex().startswith("4df8367d21c0b254")
    found = [noise.bits64(key, 5, purpose) for purpose in Purpose]
    assert found == [
        0x0DD9C31C666D640E,
        0x112B10381AB14115,
        0x97CA9BD4E2840F96,
        0x5E66ADC62E59EFD4,
        0xEF0A2C236E91D028,
        0x18B3C3F6853B44E9,
        0x647E85F80A5E3205,
    ]
    assert len(set(found)) == len(Purpose)
    assert noise.key_from_seed(7, "device") != key


def test_candidates_of_one_position_do_not_share_their_numbers():
    """Candidate 0 has the numbers of before; two siblings would else be accepted together."""
    key = noise.key_from_seed(7, "bs")
    assert noise.uniform(key, 5, Purpose.ACCEPT, 0) == noise.uniform(key, 5, Purpose.ACCEPT)
    found = [
        noise.bits64(key, position, purpose, tier, candidate)
        for position in (5, 6)
        for purpose in Purpose
        for tier in range(4)
        for candidate in range(64)
    ]
    assert len(set(found)) == len(found)
    # Golden values, as above.
    assert noise.bits64(key, 5, Purpose.ACCEPT, candidate=1) == 0xADA0CED0C677F6A7
    assert noise.bits64(key, 5, Purpose.ACCEPT, candidate=63) == 0xFAB3E97B5A036BC8
    for candidate in (-1, 256):
        with pytest.raises(ValueError, match="range"):
            noise.uniform(key, 5, Purpose.ACCEPT, candidate)


@pytest.mark.parametrize("value", [1e-308, 1e-7, -1.0, 101.0, float("nan"), float("inf")])
def test_no_temperature_whose_scores_overflow(value):
    with pytest.raises(ValueError, match="temperature"):
        Sampling(temperature=value).check()
    with pytest.raises(ValueError, match="repetition_penalty"):
        Sampling(repetition_penalty=-value if 0 < value < 1 else value).check()


def test_the_extremes_that_are_allowed_are_a_distribution():
    params = Sampling(temperature=sampling.COLDEST, repetition_penalty=0.01)
    params.check()
    largest = float(np.finfo(np.float32).max)
    p = sampling.distribution(np.array([largest, -largest, 0.0]), params, [0, 1, 2])
    assert p.tolist() == [1.0, 0.0, 0.0]
