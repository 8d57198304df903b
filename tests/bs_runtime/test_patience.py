"""Whether a step waits for proposals: what it has measured decides, and nothing it is told."""

from __future__ import annotations

import pytest

from bs_runtime.engine.patience import LIMIT, LONGEST, VAIN, Patience

STEP_S, ROW_S = 0.05, 0.0005


def learned(*, alpha: float = 0.8, pause_s: float = 0.01, turn_s: float = 0.03) -> Patience:
    """One that has seen steps, proposals and what came of them."""
    made = Patience()
    for number in range(30):
        made.stepped(STEP_S, 1)
        made.stepped(STEP_S + 4 * ROW_S, 5)
        made.judged(round(100 * alpha), round(100 * (1 - alpha)))
        made.told(number, 10 * number, alive=False)
        made.proposed(number + turn_s, 2, 10 * number, goes_on=True)
        made.proposed(number + turn_s + pause_s, 2, 10 * number, goes_on=True)
    return made


def test_it_waits_for_what_is_due_soon_and_likely_to_be_right():
    one = learned()
    one.told(100.0, 500, alive=False)
    assert one.wait_s(100.0, 100.0, 0, 50) >= 0.03
    # Nobody has been told anything new: nothing is due.
    assert learned().wait_s(100.0, 100.0, 0, 50) == 0.0
    # The controls: what comes late, or is seldom right, is not waited for.
    late = learned(turn_s=0.3)
    late.told(100.0, 500, alive=False)
    assert late.wait_s(100.0, 100.0, 0, 50) == 0.0
    wrong = learned(alpha=0.1)
    wrong.told(100.0, 500, alive=False)
    assert wrong.wait_s(100.0, 100.0, 0, 50) == 0.0


def test_what_is_late_is_not_waited_for_any_more():
    one = learned()
    one.told(100.0, 500, alive=False)
    assert one.wait_s(100.05, 100.0, 0, 50) > 0.0
    assert one.wait_s(100.07, 100.0, 0, 50) == 0.0


def test_a_rest_and_the_end_of_the_text_are_not_waited_behind():
    for goes_on, left, waits in ((True, 50, True), (False, 50, False), (True, 1, False)):
        one = learned()
        one.told(99.97, 500, alive=False)
        one.proposed(100.0, 2, 500, goes_on=goes_on)
        assert (one.wait_s(100.0, 100.0, 2, left) > 0.0) is waits
    full = learned()
    full.told(99.97, 500, alive=False)
    full.proposed(100.0, 2, 500, goes_on=True)
    assert full.wait_s(100.0, 100.0, LONGEST, 50) == 0.0


def test_a_device_that_announces_and_never_sends_is_waited_for_less_and_less():
    one = learned()
    began = now = 100.0
    for number in range(400):
        one.told(now, 1000 + number, alive=False)
        since = now
        while (wait_s := one.wait_s(now, since, 0, 50)) > 0.0:
            assert now + wait_s - since <= (LIMIT + 1) * STEP_S
            now += wait_s
        if now > since:
            one.waited(now - since, came=False)
        one.stepped(STEP_S, 1)
        now += STEP_S
    assert now - began <= 400 * STEP_S * (1 + 4 * VAIN)


def test_a_step_is_given_as_many_rows_as_they_are_worth():
    assert learned(alpha=0.8).worth(10) == 10
    dear = learned(alpha=0.3)
    for _ in range(50):
        dear.stepped(STEP_S + 4 * STEP_S, 5)  # a row costs as much as a step
    assert dear.worth(10) == 0
    assert Patience().worth(10) == 10  # nothing is known yet


def test_before_anything_was_measured_nothing_is_waited_for():
    assert Patience().wait_s(0.0, 0.0, 0, 50) == 0.0
    assert Patience().alpha == pytest.approx(0.5)
