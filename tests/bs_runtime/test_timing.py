"""What steps take is tried at load, so that devices are told before anybody has been served."""

from __future__ import annotations

import numpy as np
import pytest

import tinypair
from bs_runtime.engine.prices import Prices
from bs_runtime.model import timing
from bs_runtime.model.target import Target
from tests.fake_models import FakeModel


class Clocked(FakeModel):
    """Each forward takes 40 ms and 5 for each further row; every third one stalls."""

    now, count = 0.0, 0

    def forward(self, ids, *, last=False):
        self.count += 1
        self.now += 0.04 + 0.005 * (len(ids) - 1) + 0.5 * (self.count % 3 == 1)
        return super().forward(ids, last=last)


def fed(feeds):
    (feed,) = feeds
    return feed.slot.forward(feed.ids)


@pytest.mark.parametrize("held", [0, 5])
def test_one_row_and_several_without_stalls(held):
    slot = Clocked(np.zeros((6, 6)), rows=True)
    if held:
        slot.forward(range(held))
    found = dict(timing.times(fed, slot, range(6), lambda: slot.now))
    assert found == pytest.approx({1: 0.04, timing.ROWS: 0.04 + 0.005 * (timing.ROWS - 1)})
    assert slot.length == held


def test_a_slow_model_is_tried_once():
    class Slow(Clocked):
        def forward(self, ids, *, last=False):
            self.now += 2.0
            return super().forward(ids, last=last)

    slot = Slow(np.zeros((6, 6)), rows=True)
    timing.times(fed, slot, range(6), lambda: slot.now)
    assert slot.count == 2


def test_a_device_is_told_of_it_before_any_step():
    prices = Prices()
    assert prices.told() == {"step_us": 0, "row_us": 0}
    prices.tried([(1, 0.04), (8, 0.075)])
    assert prices.told()["step_us"] == pytest.approx(40_000, rel=0.1)
    assert prices.told()["row_us"] == pytest.approx(5_000, rel=0.1)
    assert prices.others == 0.0


def test_a_target_knows_what_its_steps_take():
    target = Target.load(tinypair.TARGET)
    assert [rows for rows, _ in target.times] == [1, timing.ROWS]
    assert all(seconds > 0.0 for _, seconds in target.times)
