"""Which of a draft's forwards went on beside a step, by what is told of the steps behind them."""

from __future__ import annotations

import pytest

from device_runtime.drafting.beside import Beside
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.levels import FEW, SOME, Work

STEP_S, ALONE_S, SLOWER = 0.05, 0.02, 2.5


def told(one: Beside, begun_s: float, ended_s: float, asked_s: float | None = None) -> bool:
    return one.stepped(ended_s, ended_s - begun_s, 0.0, asked_s)


def samples(draft: Work, beside: bool) -> list[float]:
    return [round(seconds, 6) for seconds in draft._apart[beside]._samples]


@pytest.fixture
def draft() -> Work:
    return Work()


@pytest.fixture
def one(draft: Work) -> Beside:
    """One that has heard of a step, and of a forward beside all of another."""
    made = Beside(draft)
    told(made, -1.0, -0.9)
    made.drafted(-0.8, -0.75)
    told(made, -0.8, -0.7)
    assert samples(draft, beside=True) == [0.05] and samples(draft, beside=False) == []
    return made


def test_a_forward_under_way_while_a_step_is_told_of_was_beside_it(one, draft):
    """Else it counts as alone, and takes twice as long as that."""
    told(one, 0.0, 0.1, asked_s=0.06)
    one.drafted(0.06, 0.106)  # 0.04 of it beside
    told(one, 0.2, 0.3)
    assert samples(draft, beside=False) == []
    # The control: where the step had ended before it.
    one.drafted(0.4, 0.42)
    told(one, 0.5, 0.6)
    assert samples(draft, beside=False) == [0.02]


def test_a_look_at_many_tokens_disturbs_a_step_and_tells_nothing_of_a_forward(one, draft):
    """Taken for a step of its own, it would make all of them seem slower, and turns worth it."""
    one.drafted(0.05, 0.09, one=False)
    assert not told(one, 0.0, 0.1)
    assert len(samples(draft, beside=True)) == 1 and samples(draft, beside=False) == []
    assert told(one, 0.2, 0.3)


def test_what_was_beside_a_forward_before_the_first_step_nobody_has_told(draft):
    """The base station reads the prompt then."""
    made = Beside(draft)
    made.drafted(0.0, 0.05)
    told(made, 0.1, 0.2)
    assert samples(draft, beside=False) == samples(draft, beside=True) == []
    made.drafted(0.21, 0.23)
    told(made, 0.3, 0.4)
    assert samples(draft, beside=False) == [0.02]


@pytest.mark.parametrize("slower", [1.0, SLOWER])
@pytest.mark.parametrize("share", [0.2, 0.4])
def test_of_a_forward_that_was_partly_beside_a_step_the_rest_tells(draft, slower, share):
    """What it takes alone; where nothing slows it, that is what it took."""
    made = Beside(draft)
    slow_s = slower * ALONE_S
    told(made, -1.0, -0.9)
    made.drafted(-0.8, -0.8 + slow_s)
    told(made, -0.8, -0.7)
    beside_s = share * slow_s
    made.drafted(0.1 - beside_s, 0.1 + (1.0 - share) * ALONE_S)
    told(made, 0.0, 0.1)
    told(made, 0.2, 0.3)
    assert samples(draft, beside=False) == [pytest.approx(ALONE_S)]


def test_of_one_that_was_mostly_beside_the_rest_tells_too_little(one, draft):
    one.drafted(0.07, 0.11)  # 0.03 of it beside
    told(one, 0.0, 0.1)
    told(one, 0.2, 0.3)
    assert samples(draft, beside=False) == []


def slowdown(draft: Work, number: int, slower: float) -> float:
    for _ in range(number):
        draft.took(ALONE_S, beside=False)
        draft.took(slower * ALONE_S, beside=True)
    return draft.slowdown


@pytest.mark.parametrize(
    ("number", "slower", "shows"),
    [(SOME - 1, 3.0, False), (SOME, 1.5, False), (SOME, 1.7, True), (FEW - 1, 1.3, False),
     (FEW, 1.3, True), (FEW, 1.2, False)],
)  # fmt: skip
def test_few_samples_tell_what_is_plain(draft, number, slower, shows):
    assert slowdown(draft, number, slower) == pytest.approx(slower if shows else 1.0)


def test_as_turns_begin_what_was_slowed_is_forgotten():
    here = Estimates()
    here.undisturbed()
    assert not len(here.verify)  # nothing is known of a step before the first
    slowdown(here.draft, SOME, SLOWER)
    for tokens in range(9):
        here.verify.took(SLOWER * STEP_S, beside=None)
        here.rows.add(tokens, SLOWER * (STEP_S + 0.01 * tokens))
    here.undisturbed()
    assert here.verify_s == pytest.approx(STEP_S)
    assert here.rows.tokens == 0.0 and here.rows.each_s(0.001) == 0.001
