"""Whether a step waits for proposals: what it has measured decides, and nothing it is told."""

from __future__ import annotations

import pytest

from bs_runtime.engine.patience import LIMIT, LONGEST, TURNS, VAIN, Patience
from bs_runtime.engine.prices import SPARING, Prices

STEP_S, ROW_S = 0.05, 0.0005


def step(one: Patience, prices: Prices, rows: int, seconds: float) -> None:
    """A step of one conversation."""
    prices.stepped(rows, seconds, 1, 1, 0.0)
    one.stepped(seconds, rows)


def told(one: Patience, now: float, length: int) -> None:
    """The device is told of a text whose last token is not its path's."""
    one.told(now, length)
    one.left(length - 1)


def learned(
    *, alpha: float = 0.8, pause_s: float = 0.002, turn_s: float = 0.01, rests: bool = False
) -> Patience:
    """One that has seen steps, proposals and what came of them; ``rests``: the device, behind."""
    prices = Prices()
    made = Patience(prices)
    for number in range(30):
        for rows in (1, 5):
            step(made, prices, rows, STEP_S + (rows - 1) * ROW_S)
        made.judged(round(100 * alpha), round(100 * (1 - alpha)))
        told(made, number, 10 * number)
        made.proposed(number + turn_s, 2, 10 * number, goes_on=True, begins=True)
        made.proposed(number + turn_s + pause_s, 2, 10 * number, goes_on=not rests)
    return made


def test_it_waits_for_what_is_due_soon_and_likely_to_be_right():
    one = learned()
    told(one, 100.0, 500)
    assert one.wait_s(100.0, 100.0, 0, 50) >= 0.01
    # Nobody has been told anything new: nothing is due.
    assert learned().wait_s(100.0, 100.0, 0, 50) == 0.0
    # The controls: what comes late, or is seldom right, is not waited for.
    late = learned(turn_s=0.3)
    told(late, 100.0, 500)
    assert late.wait_s(100.0, 100.0, 0, 50) == 0.0
    wrong = learned(alpha=0.1)
    told(wrong, 100.0, 500)
    assert wrong.wait_s(100.0, 100.0, 0, 50) == 0.0


def test_what_is_late_is_not_waited_for_any_more():
    one = learned()
    told(one, 100.0, 500)
    assert one.wait_s(100.015, 100.0, 0, 50) > 0.0
    assert one.wait_s(100.025, 100.0, 0, 50) == 0.0


def test_the_later_it_is_the_later_it_is_expected():
    """Else a little would be waited again and again, up to the limit, for what does not come."""
    one = learned(turn_s=0.1, rests=True)
    told(one, 100.0, 500)
    waits = [one.wait_s(100.0 + at_s, 100.0, 0, 50) for at_s in (0.06, 0.07, 0.08, 0.19)]
    assert 0.0 < waits[0] < waits[1] < waits[2] and waits[3] == 0.0


def test_what_is_on_its_way_is_not_forgotten_where_a_token_is_written_meanwhile():
    """The device answers what refuted its path, and that is as near as it was."""
    for again, waits in ((False, True), (True, False)):
        one = learned(turn_s=0.1)
        told(one, 100.0, 500)
        assert one.wait_s(100.0, 100.0, 0, 50) == 0.0
        one.told(100.095, 501)
        one.left(500 if again else 499)  # the control: it was refuted only now
        assert (one.wait_s(100.095, 100.095, 0, 50) > 0.0) is waits


def test_what_came_in_time_is_believed_though_it_was_not_waited_for():
    """Else who has once been waited for in vain, and no more, would never be again."""
    one = learned()
    for _ in range(40):
        one.waited(0.1, came=False)
    told(one, 100.0, 500)
    assert one.wait_s(100.0, 100.0, 0, 50) == 0.0
    for number in range(101, 141):
        told(one, number, 5 * number)
        one.proposed(number + 0.01, 2, 5 * number, goes_on=True, begins=True)
    told(one, 200.0, 1000)
    assert one.wait_s(200.0, 200.0, 0, 50) > 0.0


def test_a_rest_and_the_end_of_the_text_are_not_waited_behind():
    for goes_on, left, waits in ((True, 50, True), (False, 50, False), (True, 1, False)):
        one = learned(alpha=0.9)
        told(one, 99.97, 500)
        one.proposed(100.0, 2, 500, goes_on=goes_on)
        assert (one.wait_s(100.0, 100.0, 2, left) > 0.0) is waits
    full = learned(alpha=0.9)
    told(full, 99.97, 500)
    full.proposed(100.0, 2, 500, goes_on=True)
    assert full.wait_s(100.0, 100.0, LONGEST, 50) == 0.0


def test_a_device_that_announces_and_never_sends_is_waited_for_less_and_less():
    one = learned()
    began = now = 100.0
    for number in range(400):
        told(one, now, 1000 + number)
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
        step(dear, dear._prices, 1, STEP_S)
        step(dear, dear._prices, 5, STEP_S + 4 * STEP_S)  # a row costs as much as a step
    assert dear.worth(10) == 0
    assert Patience(Prices()).worth(10) == 10  # nothing is known yet


def test_where_others_write_a_row_must_bring_what_it_costs_them():
    alone, beside = learned(alpha=0.8), learned(alpha=0.8)
    every_s = 0.1 * SPARING
    for number in range(200):  # 32 conversations, each step with about as many rows as the others
        rows = 96 + number % 9
        beside._prices.stepped(rows, STEP_S + (rows - 1) * ROW_S, 32, 60, every_s * number)
    assert beside._prices.others == pytest.approx(60 / every_s * 31 / 32, rel=0.01)
    assert beside._prices.row_s == pytest.approx(ROW_S, rel=0.05)
    # Of the others' tokens half a millisecond is worth .083, and a row must bring 3.5 times that:
    # .8 to the sixth is less.
    assert alone.worth(16) > 10 and 3 <= beside.worth(16) <= 6


def test_what_a_row_costs_is_told_from_what_makes_steps_slow_in_turn():
    prices = Prices()
    for number in range(300):
        prices.stepped(4, STEP_S * (1 + number % 2), 1, 1, 0.0)
    assert prices.row_s < 1e-6 and prices.step_s == pytest.approx(1.5 * STEP_S, rel=0.05)
    assert prices.told()["step_us"] == pytest.approx(1.5e6 * STEP_S, rel=0.05)
    assert Prices().told() == {"step_us": 0, "row_us": 0} and Prices().others == 0.0


def test_before_anything_was_measured_nothing_is_waited_for():
    assert Patience(Prices()).wait_s(0.0, 0.0, 0, 50) == 0.0
    assert Patience(Prices()).alpha == pytest.approx(0.75)


def test_a_device_that_drafts_on_is_waited_for_where_it_is_near():
    """What it drafts while a step runs is there behind it; one that rests has nothing then."""
    near, far = {"turn_s": 0.01}, {"turn_s": 0.03, "pause_s": 0.01}
    cases = ((0.8, near, True, True), (0.8, far, True, False), (0.2, far, False, False))
    for alpha, how, rests, drafts_on in cases:
        for goes_on, waits in ((False, rests), (True, drafts_on)):
            one = learned(alpha=alpha, rests=not goes_on, **how)
            told(one, 100.0, 500)
            assert (one.wait_s(100.0, 100.0, 0, 50) > 0.0) is waits, (alpha, how, goes_on)


def test_where_both_share_cores_a_turn_is_foretold_by_those_that_were_waited_for():
    """Beside a step it takes twice as long; so waiting would never seem to pay, and never begin."""
    slow = learned(alpha=0.6, turn_s=0.06)
    told(slow, 100.0, 500)
    assert slow.wait_s(100.0, 100.0, 0, 50) == 0.0
    slow.proposed(100.02, 2, 500, goes_on=False, begins=True, waits=True)
    told(slow, 101.0, 502)
    assert slow.wait_s(101.0, 101.0, 0, 50) > 0.0


def test_the_first_turn_is_tried_where_it_may_be_short_beside_a_step():
    for draft_s, waits in ((0.001, True), (0.01, False)):
        prices = Prices()
        one = Patience(prices)
        step(one, prices, 1, STEP_S)
        one.proposed(1.0, 4, 0, goes_on=True)
        one.proposed(1.0 + 4 * draft_s, 4, 0, goes_on=False)
        told(one, 2.0, 1)
        assert (one.wait_s(2.0, 2.0, 0, 50) > 0.0) is waits


def test_who_takes_turns_has_the_one_behind_the_first_step_and_is_not_waited_for_for_ever():
    """A step without proposed tokens is first: neither end knows otherwise what one takes."""
    for turns in (True, False):
        prices = Prices()
        one = Patience(prices, turns=turns)
        assert one.wait_s(4.0, 4.0, 0, 50) == 0.0
        step(one, prices, 1, STEP_S)
        told(one, 5.0, 1)
        wait_s = one.wait_s(5.0, 5.0, 0, 50)
        assert (wait_s > 0.0) is turns and wait_s <= LIMIT * STEP_S + 1e-9
        assert one.wait_s(5.0 + wait_s, 5.0, 0, 50) == 0.0
        assert one.wait_s(5.01, 5.0, 1, 50) == 0.0  # something is there to be checked
        step(one, prices, 1, STEP_S)
        told(one, 6.0, 2)
        assert one.wait_s(6.0, 6.0, 0, 50) == 0.0  # it was in vain, and is not tried again


def turned(*, turn_s: float, alpha: float) -> Patience:
    """One whose device has taken turns of four tokens, and has been told of the last one."""
    prices = Prices()
    one = Patience(prices, turns=True)
    for number in range(30):
        for rows in (1, 5):
            step(one, prices, rows, STEP_S + (rows - 1) * ROW_S)
        one.judged(round(100 * alpha), round(100 * (1 - alpha)))
        told(one, number, 10 * number)
        one.proposed(number + turn_s, 4, 10 * number, goes_on=False, begins=True, waits=True)
        assert one.wait_s(number + turn_s, number, 4, 50) == 0.0
    told(one, 100.0, 500)
    return one


def test_a_turn_that_brings_much_less_than_steps_alone_is_not_waited_for(monkeypatch):
    """The device reckons likewise, and rests: each time that it gave turns up two steps were lost.

    Where a turn is about as good it may come, and a step beside it would slow both.
    """
    cases = ((0.05, 0.8, True), (0.12, 0.8, True), (0.12, 0.5, False), (0.12, 0.3, False))
    for turn_s, alpha, waits in cases:
        assert (turned(turn_s=turn_s, alpha=alpha).wait_s(100.0, 100.0, 0, 50) > 0.0) is waits
    monkeypatch.setattr("bs_runtime.engine.patience.TURNS", 0.0)  # negative control
    assert TURNS and turned(turn_s=0.12, alpha=0.5).wait_s(100.0, 100.0, 0, 50) > 0.0


def test_a_device_that_rests_is_looked_for_sooner_than_it_came_beside_a_step():
    """Who is slowed by a step comes sooner without one; to try once tells. Who drafts on is not."""
    for goes_on, waits in ((False, True), (True, False)):
        one = learned(alpha=0.8, turn_s=0.09, rests=not goes_on)
        told(one, 100.0, 500)
        assert (one.wait_s(100.0, 100.0, 0, 50) > 0.0) is waits


def test_a_tariff_makes_it_wait_for_what_would_not_pay_alone():
    for tariff, waits in ((0.0, False), (40.0, True)):
        one = learned(alpha=0.8, turn_s=0.1)
        one._prices.tariff = tariff
        told(one, 100.0, 500)
        assert (one.wait_s(100.0, 100.0, 0, 50) > 0.0) is waits


def test_what_a_row_costs_others_is_known_while_all_steps_are_full():
    """Taken to be free it is given to whoever asks: 32 devices had .70 of the stream's tokens/s."""
    prices, row_s = Prices(), 0.01 * STEP_S
    for number in range(400):
        rows = min(32 + number, 64)
        seconds = STEP_S + rows * row_s
        prices.stepped(rows, seconds, 32, 40, number * seconds)
    dear = (prices.tokens(2) - prices.tokens(1)) / (SPARING * prices.others)
    assert row_s < dear < 10.0 * row_s and prices.row_s < 0.1 * row_s


def test_in_turns_what_a_device_has_proposed_is_checked_at_once():
    """It rests until it hears what came of all of it: to wait for more would be for nothing."""
    goes_on, rests = learned(), learned(rests=True)
    for one in (goes_on, rests):
        one.told(100.0, 500)
    assert rests.wait_s(100.0, 100.0, 2, 50) == 0.0 < goes_on.wait_s(100.0, 100.0, 2, 50)


def test_a_step_beside_a_device_that_drafts_on_the_same_cores_takes_longer():
    """So what comes of waiting need not be as much."""
    apart, turns = (learned(alpha=0.2, turn_s=0.04, rests=True) for _ in range(2))
    turns._turns = True
    for one in (apart, turns):
        told(one, 100.0, 500)
    assert apart.wait_s(100.0, 100.0, 0, 50) == 0.0 < turns.wait_s(100.0, 100.0, 0, 50)


def test_what_a_step_takes_beside_a_device_in_turns_is_measured():
    """One that was not known to take turns, and is slowed by steps, and they by it."""
    for crowded, waits in ((1.0, False), (1.6, True)):
        one = learned(alpha=0.3, turn_s=0.04, rests=True)
        for number in range(40, 50):
            told(one, number, 10 * number)
            one.proposed(number + 0.04, 2, 10 * number, goes_on=False, begins=True, waits=True)
            assert one.wait_s(number + 0.04, number, 2, 50) == 0.0
            one.stepped(STEP_S, 1)  # it rests
            one.wait_s(number + 0.1, number + 0.1, 0, 50)
            one.stepped(crowded * STEP_S, 1)
        told(one, 100.0, 500)
        assert (one.wait_s(100.0, 100.0, 0, 50) > 0.0) is waits
