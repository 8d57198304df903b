"""Many devices on the memory of few: they take turns, in virtual time, and nobody starves."""

from __future__ import annotations

import statistics

import pytest

from bench.slots import Case, measure
from bs_runtime.engine.places import Place
from bs_runtime.engine.slots import IDLE_ROUNDS, Slots
from tests.bs_runtime.test_slots import generation
from tests.fake_models import random_logits
from tests.fakes import FakeTarget

DEVICES, SLOTS = 24, 6
CASES = {
    "busy": Case("busy", 10e-3, 50e-6, 0.0, 300, 150),
    "near": Case("near", 10e-3, 50e-6, 50e-3, 300, 150),
    "far": Case("far", 1e-3, 50e-6, 200e-3, 200, 150),
}


class LeastRecentlyUsed(Slots):
    """The control: the slot that was used longest ago is emptied for whoever comes."""

    def admit(self, round, *, patient: bool = False) -> bool:  # type: ignore[no-untyped-def]
        return super().admit(round)

    def _gives_way(self, place: Place) -> bool:
        return True


@pytest.mark.parametrize("name", CASES)
def test_devices_on_a_quarter_of_their_memory_write_half_as_much_or_twice_what_they_did(name):
    case = CASES[name]
    free = measure(case, DEVICES, 3 * DEVICES)
    few = measure(case, DEVICES, SLOTS)
    control = measure(case, DEVICES, SLOTS, LeastRecentlyUsed)
    assert free.evicted == 0 < few.evicted < control.evicted
    enough = 0.5 * free.tokens_per_s
    assert few.tokens_per_s >= min(enough, 2 * control.tokens_per_s)
    assert few.tokens_per_s > 1.1 * control.tokens_per_s
    if name != "far":  # where feeding again costs less than the link, and the control's due
        assert control.tokens_per_s < min(enough, few.tokens_per_s / 2)
    for waits in (few.mean_waits, few.longest_waits):
        assert max(waits) <= 5 * statistics.median(waits)


def test_who_is_away_gives_way_to_those_that_are_at_work():
    """Its turn is not over, and the model has always something else to do."""
    target = FakeTarget(random_logits(1, 8))
    pool = Slots(8 * 3 * 400)
    gens = [generation(target, [i] * 300) for i in range(4)]
    away, *busy = gens[:3]
    for one in (away, *busy):
        serve(pool, one.prompt())
    waiting = gens[3].prompt()
    steps = 0
    while not admitted(pool, waiting):
        for one in busy:
            one._row = None
            serve(pool, one.prompt())
            assert one.slot.length == 300
        steps += 1
    assert away.slot.length == 0 and all(one.slot.length for one in busy)
    assert steps == IDLE_ROUNDS * 3 // 2
    # Control: those that are at work, and have just begun, are not emptied in their turns.
    serve(pool, waiting)
    assert not admitted(pool, away.prompt())


def serve(pool: Slots, round) -> None:  # type: ignore[no-untyped-def]
    pool.next_step()
    assert pool.admit(round, patient=True)
    round.prepare()
    round.slot.forward(round.feed(1000).ids)
    pool.release(round.slot)


def admitted(pool: Slots, round) -> bool:  # type: ignore[no-untyped-def]
    pool.next_step()
    return pool.admit(round, patient=True)
