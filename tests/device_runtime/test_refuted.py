"""A draft that has become another one is told from one that has bad luck."""

from __future__ import annotations

import random

import pytest

from device_runtime.drafting import refuted
from device_runtime.drafting.estimators import Acceptance
from device_runtime.drafting.refuted import Refuted

CHANCES = {0.98: 0.97, 0.75: 0.8, 0.3: 0.6}  # and how often what has them is accepted


def learned(tokens: int = 2000) -> Acceptance:
    here, rng = Acceptance(), random.Random(1)
    for _ in range(tokens):
        chance = rng.choice([*CHANCES])
        here.foretold(chance, rng.random() < CHANCES[chance])
    return here


def epochs(share: float, count: int, seed: int) -> int | None:
    """After how many epochs it is told that a draft has changed, if it is.

    What is accepted is accepted ``share`` times as often as before.
    """
    here = learned()
    looks, rng = Refuted(here), random.Random(seed)
    for epoch in range(count):
        chances, accepted = [], 0
        while True:
            chances.append(rng.choice([*CHANCES]))
            if rng.random() >= share * CHANCES[chances[-1]]:
                break
            accepted += 1
        looks.judged(0, chances, accepted, rejected=True)
        if here.weight < 100.0:  # it has begun anew
            return epoch + 1
    return None


def test_one_that_is_right_half_as_often_is_told_within_a_few_epochs(monkeypatch):
    found = [epochs(0.4, 40, seed) or 99 for seed in range(60)]
    assert sorted(found)[30] <= 6 and sorted(found)[54] <= 14
    monkeypatch.setattr(refuted, "CERTAIN", 1e9)
    assert epochs(0.4, 40, 0) is None


def test_bad_luck_is_seldom_taken_for_it(monkeypatch):
    """By Lorden (1971) once in 100 tokens at the most, which is what 20 epochs have."""
    false = sum(epochs(1.0, 20, seed) is not None for seed in range(100))
    assert false <= 25
    monkeypatch.setattr(refuted, "CERTAIN", 0.7)
    assert sum(epochs(1.0, 20, seed) is not None for seed in range(100)) > 50


@pytest.mark.parametrize(("chance", "alarms"), [(0.98, True), (0.03, False)])
def test_what_it_was_sure_of_says_more(chance, alarms):
    here = learned()
    looks = Refuted(here)
    for rejected in range(1, 4):
        looks.judged(0, [chance] * 2, 0, rejected=True)  # one is judged of the two
        assert (here.weight < 100.0) is (alarms and rejected >= 2)


def test_what_was_before_weighs_no_more_than_the_last_tokens():
    here = learned()
    looks = Refuted(here)
    looks.judged(0, [0.98] * 4, 4, rejected=False)  # the sum is 0 again
    looks.judged(0, [0.98], 0, rejected=True)
    looks.judged(0, [0.98] * 3, 1, rejected=True)
    assert here.weight > 100.0
    looks.judged(0, [0.98], 0, rejected=True)
    # They were picked for going badly: all that was noted weighs as much, and no more.
    noted = learned()
    for accepted in (1, 1, 1, 1, 0, 1, 0, 0):
        noted.foretold(0.98, bool(accepted))
    share = (noted.alpha * (noted.weight + 4.0) - 3.0) / noted.weight
    assert here.weight == pytest.approx(4.0 + 4.0)
    assert here.alpha == pytest.approx((4.0 * share + 1.0 + 3.0) / (8.0 + 4.0))
    assert here.probability(0.98) == pytest.approx(1.0 - 1.5 * 0.015 * (1.0 - here.alpha))
    assert sum(here.reached) == 8 and sum(here.stood) == 5  # but for what the result says
