"""Many devices at one base station while both ends write: who waits costs the others nothing."""

from __future__ import annotations

import random

from bench.both.cells import Costs
from bench.both.many import play
from bench.virtual.record import Record
from bs_runtime.engine import prices
from device_runtime.writers.both import Both

COSTS = Costs(20.0, 4.0, 15.0, row_ms=0.2)
SILENT = 0  # this device's first token


def records(count: int, tokens: int = 60) -> list[Record]:
    found = []
    for number in range(count):
        rng = random.Random(number)
        right = tuple(rng.random() < 0.75 for _ in range(tokens))
        found.append(Record(number, 3, right, (0.7,) * tokens))
    return found


def test_each_of_many_has_its_share_and_more_than_from_the_target_alone():
    texts = records(8)
    alone, both = play(COSTS, texts, "stream"), play(COSTS, texts, "auto")
    assert both.tokens_per_s > 1.2 * alone.tokens_per_s
    assert both.slowest > 0.5
    assert both.forwards < alone.forwards


def test_a_busy_base_station_is_fed_hardly_more_than_by_the_target_alone(monkeypatch):
    """Rows that are refused serve nobody: of 32 conversations few are worth theirs."""
    texts = records(32, tokens=40)
    alone, both = play(COSTS, texts, "stream"), play(COSTS, texts, "auto")
    assert both.tokens_per_s > alone.tokens_per_s
    assert both.rows < 1.2 * alone.rows and both.forwards < 1.1 * alone.forwards
    monkeypatch.setattr(prices, "SPARING", 1.0)  # the control: at what they cost at the moment
    assert play(COSTS, texts, "auto").rows > 1.3 * alone.rows


def test_a_device_that_announces_and_never_sends_costs_the_others_hardly_anything(monkeypatch):
    """Beside one that lets the target write alone; nobody waits for it, but it itself."""
    texts = records(8)
    propose = Both._propose

    async def silent(self, action):
        writing = self._writing
        if writing.history[0] != SILENT or len(writing.history) < 10:
            await propose(self, action)

    monkeypatch.setattr(Both, "_propose", silent)
    rates = play(COSTS, texts, "auto").each
    monkeypatch.undo()
    modes = ["stream", *["auto"] * 7]
    others = play(COSTS, texts, *modes).each
    assert sum(rates[1:]) > 0.98 * sum(others[1:])
    assert rates[0] > 0.9 * others[0]
