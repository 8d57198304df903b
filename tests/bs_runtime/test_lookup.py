"""How much is looked up for a step: by what has been right so far, and what rows cost."""

from __future__ import annotations

import random

import pytest

from bs_runtime.engine.lookup import LONGEST, LookUp
from bs_runtime.engine.prices import Prices
from tests.bs_runtime.test_runs import cheap

STEP_S = 0.03


def written(text: list[int], row_s: float, start: int = 3) -> tuple[int, float, int]:
    """Steps, seconds, and tokens looked up, of a text that is written by them."""
    prices, now, steps, given = Prices(), 0.0, 0, 0
    look, at = LookUp(prices), start
    while at < len(text):
        ids = list(look.proposed(text[:at]))
        right = 0
        while right < len(ids) and at + right < len(text) - 1 and ids[right] == text[at + right]:
            right += 1
        seconds = STEP_S + len(ids) * row_s
        now += seconds
        prices.stepped(len(ids) + 1, seconds, 1, right + 1, now)
        at, steps, given = at + right + 1, steps + 1, given + len(ids)
    return steps, now, given


def noise(count: int, size: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(size) for _ in range(count)]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.33, 1.0])
@pytest.mark.parametrize("size", [20, 5000])
def test_a_text_without_repeats_loses_a_hundredth_at_most(share, size):
    """Whatever a row costs, with nothing known at the start; runs of two meet by chance alone."""
    alone = with_ = 0.0
    for seed in range(8):
        text = noise(400, size, seed)
        alone += (len(text) - 3) * STEP_S
        with_ += written(text, share * STEP_S)[1]
    assert with_ <= 1.01 * alone


def test_control_all_that_is_found_costs_what_its_rows_cost(monkeypatch):
    monkeypatch.setattr(Prices, "worth", lambda self, chances, held=0: (len(chances), 1.0))
    text = noise(400, 20, 0)
    assert written(text, 0.33 * STEP_S)[1] > 1.3 * (len(text) - 3) * STEP_S


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_a_text_that_is_copied_comes_in_few_steps(share):
    page = noise(300, 5000, 1)
    steps, seconds, _ = written([*page, *page], share * STEP_S, start=len(page))
    assert steps < 45 and seconds < 0.35 * 300 * STEP_S


def test_where_a_row_costs_a_step_copying_loses_little():
    """More it cannot cost. What can be gained is nothing, and tokens come sixteen at once."""
    page = noise(300, 5000, 1)
    _, seconds, _ = written([*page, *page], STEP_S, start=len(page))
    assert seconds < 1.05 * 300 * STEP_S


def test_it_comes_back_where_a_text_begins_to_copy():
    """What was found and did not pay was held against the text all the same."""
    page = noise(300, 12, 2)  # runs of two that mean nothing
    steps, *_ = written([*page, *page], 0.3 * STEP_S)
    alone, *_ = written(page, 0.3 * STEP_S)
    assert alone > 280 and steps - alone < 150


def test_before_the_first_step_nothing_is_proposed_and_it_begins_with_few():
    look = LookUp(Prices())
    assert look.proposed([1, 2] * 40) == [] and look.rate == 0.0
    look = LookUp(cheap())
    assert 1 <= len(look.proposed([1, 2] * 40)) < LONGEST and look.rate > 0.0


def test_others_at_work_make_rows_dear():
    busy = Prices()
    now = 0.0
    for rows in (16, 48) * 50:
        now += 0.01 + rows * 0.0002
        busy.stepped(rows, 0.01 + rows * 0.0002, 16, 16, now)
    quiet = Prices()
    for rows in (1, 3) * 50:
        quiet.stepped(rows, 0.01 + rows * 0.0002, 1, 1, 0.0)
    chances = [0.3] * 8
    assert busy.worth(chances)[0] < quiet.worth(chances)[0]


def test_behind_what_is_held_less_is_worth_it_the_less_sure_that_is():
    prices = cheap()
    for rows in (1, 9) * 50:
        prices.stepped(rows, 0.01 + rows * 0.001, 1, 1, 0.0)
    counts = [prices.worth([alpha] * 4 + [0.8] * 8, 4)[0] for alpha in (0.1, 0.6, 0.95)]
    assert counts[0] == 4 and counts == sorted(counts) and counts[2] > 4
