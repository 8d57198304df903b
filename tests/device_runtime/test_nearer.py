"""A stream that comes nearer is noticed; one that is late, bursts, or changes its pace is not."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from device_runtime.drafting import nearer
from device_runtime.drafting.nearer import Nearer

PACE_S = 0.045


def found(times: Iterable[float], rtt_s: float = 0.06) -> list[tuple[int, float]]:
    """At which message, and by how much, a stream is found to have come nearer."""
    here = Nearer()
    told = ((number, here.came(at, rtt_s)) for number, at in enumerate(times))
    return [(number, early_s) for number, early_s in told if early_s]


def stream(count: int, way_s: float = 0.03, jitter_s: float = 0.0, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [way_s + number * PACE_S + rng.uniform(0.0, jitter_s) for number in range(count)]


def in_order(times: list[float]) -> list[float]:
    """As TCP delivers them."""
    return [max(times[: number + 1]) for number in range(len(times))]


@pytest.mark.parametrize("jitter_s", [0.0, 0.004])
def test_by_how_much_the_way_has_become_shorter(jitter_s):
    times = stream(40, jitter_s=jitter_s)
    times[20:] = [at - 0.0275 for at in times[20:]]
    ((number, early_s),) = found(times)
    assert number == 22  # two behind it came in time
    assert early_s == pytest.approx(0.0275, abs=1e-9 + jitter_s)


def test_what_is_late_and_then_comes_at_once_has_not():
    for length in (2, 5, 12, 30):
        times = stream(60)
        times[20 : 20 + length] = [times[20 + length]] * length
        assert found(times) == []
    assert found(in_order([at + 0.3 * (n % 9 == 0) for n, at in enumerate(stream(80))])) == []


def test_another_pace_is_not():
    for pace_s in (0.5 * PACE_S, 0.7 * PACE_S, 1.5 * PACE_S):
        times = stream(20)
        assert found([*times, *(times[-1] + pace_s * n for n in range(1, 30))]) == []


def test_nor_is_one_that_wanders():
    rng, at, times = random.Random(3), 0.0, []
    for _ in range(2000):
        at += PACE_S * rng.uniform(0.9, 1.1)
        times.append(at)
    assert found(times) == []


def uneven(rtt_s: float, texts: int = 40) -> int:
    """How often a link is said to have come nearer by steps of a base station that is busy: about
    as uneven as over ``wifi``, where one of 700 messages said so, and no round trip was left."""
    rng, times, at = random.Random(5), list[float](), 0.0
    for _ in range(100 * texts):
        at += 0.008 * rng.choice((1.0, 1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 0.85))
        times.append(at)
    return len(found(times, rtt_s))


def test_uneven_steps_are_not(monkeypatch):
    for rtt_s in (0.001, 0.005, 0.0075, 0.045, 0.15):
        assert uneven(rtt_s) == 0
    for name, value in (("LEAST", 0.0), ("MOST", 1e9)):  # negative control
        monkeypatch.setattr(nearer, name, value)
    assert uneven(0.045) >= 5


def test_nothing_is_nearer_than_none():
    """A way cannot be shorter by more than it is long: then it was not the way."""
    times = stream(40)
    times[20:] = [at - 0.04 for at in times[20:]]
    assert found(times, 0.06) == []
    assert found(times, 0.08) != []


def test_without_waiting_for_the_next_ones_a_pace_is_taken_for_a_way(monkeypatch):
    """Negative control of that: a step that is faster is so again."""
    monkeypatch.setattr(nearer, "NEXT", 1)
    monkeypatch.setattr(nearer.Nearer, "_follows", lambda self, gap_s: self._early_s)
    times = stream(20)
    assert found([*times, *(times[-1] + 0.5 * PACE_S * n for n in range(1, 30))])
