"""Estimates follow lasting changes, and shrug at outliers."""

from __future__ import annotations

import random

import pytest

from device_runtime.drafting.estimators import KEPT, Acceptance, Level


def test_a_level_is_cold_at_first_and_right_after_one_sample():
    level = Level()
    assert (len(level), level.typical, level.mean) == (0, 0.0, 0.0)
    level.add(0.05)
    assert (level.typical, level.mean) == (0.05, 0.05)


def test_an_outage_moves_a_level_little_and_stalls_count():
    level = Level()
    for _ in range(20):
        level.add(0.05)
    level.add(60.0)
    assert level.typical == 0.05
    assert level.mean < 0.07  # 60 s counted in full would make it 2.9 s
    stalling = Level()
    for sample in range(KEPT):
        stalling.add(0.3 if sample % 10 == 0 else 0.05)
    assert stalling.typical == 0.05
    assert stalling.mean == pytest.approx(0.05 + 0.25 * 4 / KEPT)


def test_what_is_late_now_and_then_is_remembered_for_longer_than_the_level():
    level, mean_s = Level(), 0.25 / 20
    for sample in range(400):
        level.add(0.3 if sample % 20 == 10 else 0.05)
        if sample == 10:
            assert 0.0 < level.excess < 0.7 * 0.25 / 11  # once in eleven is not yet believed
    assert level.typical == 0.05
    assert level.excess == pytest.approx(mean_s, rel=0.15)
    for _ in range(KEPT):
        level.add(0.05)
    assert level.mean == 0.05
    assert level.excess > 0.7 * mean_s
    level = Level()
    for _ in range(20):
        level.add(0.05)
    assert level.excess == 0.0
    level.add(60.0)  # an outage is no stall of the link's
    assert level.excess < 8 * 0.05 / 20


def test_a_lasting_change_is_followed():
    level = Level(0.05)
    for _ in range(KEPT):
        level.add(0.3)
    assert (level.typical, level.mean) == (0.3, pytest.approx(0.3))
    level.add(-1.0)  # a duration that came out negative is none
    assert level.mean >= 0.0


@pytest.mark.parametrize("alpha", [0.3, 0.8, 0.97])
def test_acceptance_is_found_by_position_and_by_probability(alpha):
    rng, found = random.Random(1), Acceptance()
    assert 0.5 < found.alpha < 1.0  # beforehand: drafting is worth a look
    for _ in range(1500):
        accepted = 0
        while accepted < 6 and rng.random() < alpha:
            accepted += 1
        found.judged(0, [0.6] * 6, accepted, rejected=accepted < 6)
    # It remembers some 150 tokens: three standard errors of as many.
    assert found.alpha == pytest.approx(alpha, abs=3 * (alpha * (1 - alpha) / 150) ** 0.5)
    assert found.probability(0.6) == pytest.approx(alpha, abs=0.05)
    assert found.probability(0.01) < 0.5  # of which nothing was seen
    assert found.reached[0] == 1500
    assert found.stood[0] / found.reached[0] == pytest.approx(alpha, abs=0.04)
    assert len(found.reached) == 6


def test_the_position_is_that_behind_the_last_correction():
    found = Acceptance()
    found.judged(0, [0.5, 0.5], 2, rejected=False)
    found.judged(2, [0.5, 0.5, 0.5], 1, rejected=True)
    assert found.reached == [1, 1, 1, 1]
    assert found.stood == [1, 1, 1, 0]
