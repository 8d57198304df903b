"""A draft that is nearly always right, near its base station: neither end holds the other up."""

from __future__ import annotations

import random

from bench.both import cells
from bench.both.cells import Costs, play
from bench.virtual.record import Record
from bs_runtime.engine import patience
from device_runtime.drafting import worth
from device_runtime.result import Mode

TEXTS, TOKENS = 3, 120
NEAR = Costs(20.0, 4.0, 2.0)


def record(seed: int) -> Record:
    rng = random.Random(seed)
    return Record(seed, 3, tuple(rng.random() < 0.97 for _ in range(TOKENS)), (0.97,) * TOKENS)


def rate(mode: Mode) -> float:
    """Tokens/s of all texts together, each cold."""
    return cells.rate([play(NEAR, record(seed), mode) for seed in range(TEXTS)])


def test_a_base_station_does_not_wait_for_what_a_full_window_keeps_back(monkeypatch):
    """It was three quarters of run-ahead: one waited for 16 tokens, the other rested behind 9."""
    ahead = rate("run-ahead")
    assert rate("auto") > 0.97 * ahead
    # The controls: a window without room for what is waited for, and more waiting as well.
    monkeypatch.setattr(worth, "LONGEST", 2)
    assert rate("auto") < 0.95 * ahead
    monkeypatch.setattr(patience, "AHEAD_GAIN", 0.96)
    assert rate("auto") < 0.75 * ahead
