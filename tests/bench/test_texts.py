"""How many texts are played until it is told what they gain."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from bench.both.texts import FEW, LEAST, MOST, SURE, gain, played


def way(seed: int, mean: float, spread: float):
    """One in which a text of a token takes about ``mean`` seconds."""
    rng = random.Random(seed)

    def play(_):
        return SimpleNamespace(tokens=[1], tokens_per_s=1.0 / rng.gauss(mean, spread))

    return play


def counted(*ways) -> int:
    return len(played([None] * MOST, ways)[0])


def test_no_more_are_played_than_tell():
    same = way(1, 1.0, 0.0)
    assert counted(same, same) == FEW  # nothing changes
    assert counted(same, way(2, 0.7, 0.05)) == FEW and counted(same, way(2, 1.5, 0.05)) == FEW
    # The control: where luck may be all of it.
    assert counted(same, way(2, 1.0 / LEAST, 0.2)) == MOST
    assert FEW < counted(same, way(3, 0.94, 0.1)) <= MOST
    assert counted(same, way(2, 0.7, 0.05), way(2, 1.0 / LEAST, 0.2)) == MOST  # each of them


def test_the_standard_error_is_that_of_the_gain():
    gains, errors = [], []
    for seed in range(200):
        found = played([None] * MOST, (way(seed, 1.0, 0.1), way(1000 + seed, 0.99 * LEAST, 0.1)))
        if len(found[0]) == MOST:
            ratio, error = gain(*found)
            gains.append(ratio)
            errors.append(error)
    assert len(gains) > 100 and sum(errors) / len(errors) == pytest.approx(0.029, rel=0.1)
    away = [abs(ratio - LEAST) < SURE * error for ratio, error in zip(gains, errors, strict=True)]
    assert sum(away) / len(away) > 0.85
