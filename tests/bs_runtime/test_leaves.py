"""Which candidates a base station feeds."""

from __future__ import annotations

from bs_runtime.engine.late import Leaf
from bs_runtime.engine.leaves import Leaves
from bs_runtime.engine.prices import Prices

NEXT = [Leaf(0, 7), Leaf(0, 8), Leaf(5, 9)]


def priced(row_s: float) -> Prices:
    """Of steps of 20 ms, each with one round, and so much for a row."""
    prices = Prices()
    for i in range(200):
        rows = 1 + i % 8
        prices.stepped(rows, 0.02 + row_s * (rows - 1), 1, 2, 0.1 * i)
    return prices


def test_free_rows_are_all_fed():
    assert Leaves(Prices()).worth(NEXT, 0.7, 6) == NEXT
    assert Leaves(priced(0.0)).worth(NEXT, 0.7, 6) == NEXT


def test_dear_rows_are_fed_where_they_are_likely_to_save_a_step():
    assert Leaves(priced(0.0005)).worth(NEXT, 0.7, 6) == NEXT[:2]
    assert Leaves(priced(0.005)).worth(NEXT, 0.7, 6) == []


def test_a_step_that_brings_little_is_soon_worth_a_row_more():
    here = Leaves(priced(0.0016))
    assert here.worth(NEXT[:2], 0.7, 1) == NEXT[:2]
    assert here.worth(NEXT[:2], 0.7, 6) == []


def test_where_steps_do_not_tell_a_row_is_taken_to_cost_something():
    prices = Prices()
    for i in range(200):
        prices.stepped(1, 0.02, 1, 1, 0.1 * i)
    assert prices.row_s == 0.0
    assert Leaves(prices).worth(NEXT, 0.7, 6) == []


def test_what_the_text_says_counts():
    here = Leaves(priced(0.0005))
    for _ in range(50):
        here.judged(1, 0)
    assert here.worth(NEXT, 0.7, 6) == []
    for _ in range(50):
        here.judged(1, 1)
    assert here.worth(NEXT, 0.7, 6) == NEXT
