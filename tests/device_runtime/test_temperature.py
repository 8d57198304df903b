"""The draft's temperature is found from the tokens that come back, and only where it pays."""

from __future__ import annotations

import numpy as np
import pytest

from device_runtime.drafting.temperature import FEWEST, RATIOS, UNITS_PER_BIT, DraftTemperature
from tests.fake_models import softmax

SIZE, TEMPERATURE = 50, 0.8


def teach(learned: DraftTemperature, best: float, rounds: int, seed: int = 0) -> None:
    """A target whose rows are the draft's at ``best`` times the request's temperature."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        logits = rng.normal(0, 2, SIZE)
        p = softmax(logits / (best * TEMPERATURE))
        token = int(rng.choice(SIZE, p=p))
        learned.begin()
        learned.drafted(logits)
        learned.drafted(logits * 100)  # a later row of the same draft: not looked at
        learned.observe(token, min(255, round(-np.log2(p[token]) * UNITS_PER_BIT)))


@pytest.mark.parametrize("best", [0.7, 1.0, 1.35])
def test_the_best_ratio_is_learned(best):
    learned = DraftTemperature(TEMPERATURE)
    teach(learned, best, 1500)
    assert abs(np.log(learned.value / best)) <= np.log(1.15)


def test_nothing_is_left_before_there_is_evidence():
    learned = DraftTemperature(TEMPERATURE)
    teach(learned, 0.6, FEWEST - 1)
    assert learned.value == 1.0


def test_its_estimate_is_the_expected_acceptance():
    """The mean gain of every ratio is that of Σ min(p, q_r), not of a likelihood."""
    learned = DraftTemperature(TEMPERATURE)
    rng = np.random.default_rng(1)
    logits, other = rng.normal(0, 2, SIZE), rng.normal(0, 2, SIZE)
    p = softmax((logits + 0.5 * other) / TEMPERATURE)
    for token in rng.choice(SIZE, 20_000, p=p):
        learned.begin()
        learned.drafted(logits)
        learned.observe(int(token), round(-np.log2(p[token]) * UNITS_PER_BIT))
    overlaps = [np.minimum(p, softmax(logits / (r * TEMPERATURE))).sum() for r in RATIOS]
    gains = np.array(overlaps) - np.minimum(p, softmax(logits / TEMPERATURE)).sum()
    assert np.abs(learned._mean - gains).max() < 0.01


def test_a_token_that_the_draft_does_not_have_is_passed_over():
    learned = DraftTemperature(TEMPERATURE)
    learned.begin()
    learned.drafted(np.zeros(SIZE))
    learned.observe(SIZE, 8)
    learned.begin()
    learned.observe(0, 8)  # an empty draft has no row
    assert learned.value == 1.0


def test_scores_far_below_the_peak_are_left_out_and_not_missed():
    """Of 150,000 most cannot count; what is learned is the same as from all of them."""
    logits = np.random.default_rng(3).normal(0, 4, 150_000).astype(np.float32)
    logits[7] = 22.0
    for token, surprisal in ((7, 20), (int(logits.argsort()[-30]), 60)):
        learned = DraftTemperature(TEMPERATURE)
        learned.begin()
        learned.drafted(logits)
        learned.observe(token, surprisal)
        p = 2.0 ** (-surprisal / UNITS_PER_BIT)
        q = np.array([softmax(logits / np.float64(r * TEMPERATURE))[token] for r in RATIOS])
        overlaps = np.minimum(1.0, q / p)
        assert np.abs(learned._mean - (overlaps - overlaps[list(RATIOS).index(1.0)])).max() < 1e-3
