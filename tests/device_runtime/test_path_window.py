"""The device's window while both ends write: what is due, without I/O, a clock or an id."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from device_runtime.drafting.actions import Draft, Propose, Show, Wait
from device_runtime.drafting.blocks import Proposed
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Limits
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.paths import LONG, LOOKS, PRICE, Paths
from device_runtime.drafting.trials import REST
from device_runtime.drafting.worth import MOST, SEEN

BEGINS = (
    10  # tokens that are there: two of them are written, where ``opens`` does not say otherwise
)


def window(*, shared: bool = False, gamma: int | None = None, ends: int = 500, context: int = 500,
           message: int = 64, rtt_s: float = 0.06, draft_s: float = 0.01,
           step_s: float = 0.04, price: float = PRICE, opens: bool = False,
           **options: Any) -> Paths:  # fmt: skip
    estimates = Estimates()
    estimates.rtt.add(rtt_s)
    for _ in range(10):
        estimates.draft.took(draft_s, beside=True)
        estimates.verify.took(step_s, beside=True)
    begins = BEGINS if opens else BEGINS - 2
    limits = Limits(begins, ends, context, message, 64, foretells=True, corrects=False)
    return Paths(
        Controller(estimates, gamma), limits, BEGINS, shared=shared, price=price, **options
    )


def play(one: Paths, tokens: int, ends: int | None = None) -> list:
    """Draft until nothing is due, or so many tokens are there; what was asked for."""
    asked, now, drafted = [], 0.0, 0
    while drafted < tokens:
        actions = one.due(now, cached=BEGINS)
        asked += actions
        if not any(isinstance(action, Draft) for action in actions):
            break
        now += 0.01
        drafted += 1
        assert one.drafted(now, [Proposed(0.7, drafted == ends)])
    return asked


def test_taking_turns_it_proposes_once_and_rests():
    asked = play(window(shared=True, gamma=3), 10)
    assert [a for a in asked if isinstance(a, Propose)] == [Propose(3, goes_on=False)]
    assert sum(isinstance(a, Draft) for a in asked) == 3


def test_taking_turns_the_prompt_and_the_first_step_are_the_base_stations():
    """To read it here, too, would slow both, and the first token; and a step beside which nothing
    is done tells what one takes without proposed tokens."""
    one = window(shared=True, gamma=3, opens=True)
    assert play(one, 10) == [Wait(None)]
    one.written(0.1, 0, 0, 1, step_s=0.0, rows=0)
    one.commit(1)
    assert play(one, 10) == [Wait(None)]
    one.written(0.15, 0, 0, 1, step_s=0.04, rows=1)
    one.commit(1)
    assert one._estimates.rows.mean_s == 0.04
    assert [a for a in play(one, 10) if isinstance(a, Propose)] == [Propose(3, goes_on=False)]
    assert any(isinstance(a, Propose) for a in play(window(gamma=3, opens=True), 10))


def test_a_turn_is_as_long_as_its_rows_are_worth():
    """What proposed tokens add to a step is no part of what a step costs without them."""
    free, dear, told = (window(shared=True, rtt_s=0.001) for _ in range(3))
    told.worth._row_s = 0.006
    for one, row_s in ((free, 0.0), (dear, 0.006), (told, 0.006)):
        for turn in range(40):
            rows = 9 if one is told else 2 + 8 * (turn % 2)
            one.written(turn, 0, 0, 1, step_s=0.04 + (rows - 1) * row_s, rows=rows)
            one.commit(1)
        one.heard(40.0)
    assert dear.worth._turn_s() == pytest.approx((0.04, 0.006), rel=0.1)
    assert told.worth._turn_s() == pytest.approx((0.04, 0.006), rel=0.1)
    assert dear.worth.group == told.worth.group < free.worth.group


def test_taking_turns_a_small_draft_is_asked_for_all_at_once():
    """To hand over each forward would take as long as it; a slow one is looked at in between."""
    one = window(shared=True, gamma=4, draft_s=0.001)
    assert one.due(0.0, cached=BEGINS) == [Draft(4, BEGINS - 2, True)]
    assert one.drafted(0.004, [Proposed(0.7, False)] * 4)
    assert one.due(0.004, cached=BEGINS + 4) == [Propose(4, goes_on=False)]
    one.written(0.02, 4, 4, 5, step_s=0.008, rows=1)
    one.commit(5)
    assert one.due(0.02, cached=BEGINS + 3)[0] == Draft(4, BEGINS - 2, True)
    for other in (window(shared=True, gamma=4), window(gamma=4, draft_s=0.001)):
        assert other.due(0.0, cached=BEGINS)[0] == Draft(1, BEGINS - 2, True)


def test_the_time_of_forwards_at_once_is_each_ones():
    one = window(shared=True, gamma=4, draft_s=0.001)
    for turn in range(20):
        assert one.due(turn, cached=BEGINS + 5 * turn - 1)[0].tokens == 4
        one.drafted(turn + 0.0038, [Proposed(0.7, False)] * 4)
        one.due(turn + 0.0038, cached=BEGINS + 5 * turn + 4)
        one.written(turn + 0.1, 4, 4, 5, step_s=0.008, rows=1)
        one.commit(5)
    assert abs(one._estimates.draft.mean_s(beside=False, slowdown=1.0) - 0.00095) < 1e-6


def test_behind_an_eos_among_several_nothing_more_is_drafted():
    one = window(shared=True, gamma=9, draft_s=0.002)
    assert one.due(0.0, cached=BEGINS)[0].tokens == 4
    one.drafted(0.008, [Proposed(0.7, place == 1) for place in range(4)])
    assert one.due(0.008, cached=BEGINS + 4) == [Propose(4, goes_on=False)]


def test_in_turns_it_follows_where_the_base_station_would_not_wait():
    """A turn that brings less in its time than the target's own steps; not where it was asked."""
    near, far = window(shared=True, rtt_s=0.001), window(shared=True, rtt_s=0.2)
    assert not follows_at_first(near) and follows_at_first(far)
    assert not follows_at_first(window(shared=True, rtt_s=0.2, gamma=4))


def test_it_follows_once_it_knows_what_a_forward_takes():
    """Not behind a whole first path, which the text would overtake."""
    estimates = Estimates()
    estimates.rtt.add(0.6)
    limits = Limits(BEGINS, 500, 500, 64, 64, foretells=True, corrects=False)
    one = Paths(Controller(estimates, None), limits, BEGINS, shared=False, step_s=0.04)
    asked = play(one, 20)
    assert sum(isinstance(a, Draft) for a in asked) == SEEN and one.follows


def follows_at_first(one: Paths) -> bool:
    one.due(0.0, cached=BEGINS)
    return one.follows


def test_elsewhere_it_goes_on_under_a_window():
    one = window()
    asked = play(one, 100)
    proposed = [a for a in asked if isinstance(a, Propose)]
    assert all(a.goes_on and a.tokens == one.worth.group for a in proposed[:-1])
    assert sum(a.tokens for a in proposed) == one.worth.most <= MOST
    assert one.worth.most >= (0.06 + 0.04) / 0.01


def test_what_it_drafts_on_over_a_stalled_link_is_proposed_in_groups():
    """Beyond its window: a frame for each token would cost more than ids."""
    one = window(offline_after_s=2.0, started_s=0.0)
    sent, shown, now = [], 0, 10.0
    one.due(0.0, cached=BEGINS)
    one.drafted(0.0, [Proposed(0.7, False)])
    for _ in range(100):
        for action in one.due(now, cached=BEGINS):
            if isinstance(action, Draft):
                one.drafted(now, [Proposed(0.7, False)])
            elif isinstance(action, Propose):
                sent.append(action.tokens)
            elif isinstance(action, Show):
                shown = action.first + 1
    assert shown > one.worth.most and sum(sent) > one.worth.most
    assert sum(tokens == 1 for tokens in sent) <= 1 < len(sent)  # one may fill the window
    # Taking turns it rests until it hears what came of all that it has proposed.
    turns = window(shared=True, gamma=3)
    play(turns, 10)
    turns.written(0.0, 1, 1, 1, step_s=0.04, rows=1)
    turns.commit(1)
    assert play(turns, 10) == [Wait(None)]
    turns.written(0.0, 2, 2, 3, step_s=0.04, rows=3)
    turns.commit(3)
    assert [a for a in play(turns, 10) if isinstance(a, Propose)] == [Propose(3, goes_on=False)]


def test_in_turns_a_step_that_was_disturbed_tells_nothing_of_steps():
    """Both slowed one another: turns that were as long as that says would disturb ever more."""
    for shared in (True, False):
        one = window(shared=shared, rtt_s=0.001)
        one.due(0.0, cached=BEGINS)
        one.drafted(0.09, [Proposed(0.7, False)])
        one.written(0.1, 1, 0, 1, step_s=0.1, rows=1)
        one.commit(1)
        assert (one._estimates.verify_s > 0.041) != shared
        one.written(0.2, 0, 0, 1, step_s=0.05, rows=1)
        assert one._estimates.verify_s > 0.04


def test_a_turn_is_over_before_the_base_station_gives_up_waiting():
    slow = window(shared=True, rtt_s=0.001, draft_s=0.03)
    for _ in range(200):
        slow._estimates.acceptance.foretold(0.99, True)
    assert slow.worth.group == 3 < window(shared=True, rtt_s=0.001, draft_s=0.003).worth.group


def test_nothing_is_drafted_behind_an_eos_the_limit_or_a_full_context():
    assert sum(isinstance(a, Draft) for a in play(window(), 100, ends=4)) == 4
    for bound in ({"ends": BEGINS + 5}, {"context": BEGINS + 5}):
        asked = play(window(**bound), 100)
        assert sum(isinstance(a, Draft) for a in asked) == 5
        assert sum(a.tokens for a in asked if isinstance(a, Propose)) == 5


def test_a_path_goes_on_where_the_text_agrees_and_ends_where_it_differs():
    one = window()
    play(one, 6)
    assert one.written(0.0, 2, 2, 2, step_s=0.04, rows=1)
    one.commit(2)
    one.due(1.0, cached=BEGINS + 6)  # the next token is asked for
    assert not one.written(0.0, 1, 1, 2, step_s=0.04, rows=1)
    one.commit(2)
    assert not one.drafted(1.1, [Proposed(0.7, False)])  # void: it was drafted on the path before
    assert Draft(1, BEGINS - 2, True) in one.due(1.2, cached=BEGINS + 3)


def test_a_path_that_the_text_overtakes_is_left():
    one = window()
    play(one, 3)
    assert not one.written(0.0, 3, 3, 4, step_s=0.04, rows=1)


def test_a_long_path_is_followed_by_another():
    one = window()
    tokens = 1
    play(one, 4)
    while one.written(0.0, 1, 1, 1, step_s=0.04, rows=1):
        one.commit(1)
        play(one, 4)
        tokens += 1
    assert tokens == LONG


def test_proposals_that_come_to_nothing_are_made_more_and_more_rarely():
    one = window(price=0.0)  # else fewer still
    tried = []
    for at in range(400):
        if play(one, 2)[0] != Wait(None):
            tried.append(at)
        one.written(0.0, 0, 0, 1, step_s=0.04, rows=1)
        one.commit(1)
    pauses = [b - a for a, b in itertools.pairwise(tried)]
    assert max(pauses) >= REST[1] and 20 < len(tried) < 60
    # The control: as soon as one is accepted, it drafts again.
    one.written(0.0, 1, 1, 2, step_s=0.04, rows=1)
    one.commit(2)
    assert one._trials.rest == REST[0]


def test_a_message_holds_no_more_than_the_base_station_takes():
    asked = play(window(shared=True, gamma=8, message=3), 20)
    assert [a.tokens for a in asked if isinstance(a, Propose)] == [3, 3, 2]


def follows(one: Paths, tokens: int, right: bool) -> tuple[int, int]:
    """Tokens that are drafted and proposed while the target writes so many on its own."""
    drafted = proposed = 0
    for _ in range(tokens):
        asked = play(one, 3)
        drafted += sum(isinstance(a, Draft) for a in asked)
        proposed += sum(a.tokens for a in asked if isinstance(a, Propose))
        one.written(0.0, int(right and bool(one._chances)), 0, 2, step_s=0.04, rows=1)
        one.commit(2)
    return drafted, proposed


def test_where_the_text_would_be_there_first_it_follows_and_looks_now_and_then():
    far = {"rtt_s": 0.6, "ends": 10_000, "context": 10_000}
    assert follows(window(price=0.01), 20, right=True)[1] > 10
    drafted, proposed = follows(window(**far), 400, right=False)
    assert proposed == 0 and 5 < drafted < 0.1 * 800
    # As slow as the target it is never in time.
    drafted, proposed = follows(window(draft_s=0.06, **far), 100, right=True)
    assert proposed == 0 and drafted <= 200 / LOOKS[1] + 1
    # Where all its looks are right it finds out that it would be in time.
    assert follows(window(**far), 400, right=True)[1] > 0


def test_a_price_makes_it_draft_less_deep_or_not_at_all():
    depths = [window(price=price, rtt_s=0.01).worth.most for price in (0.0, 0.02, 0.2)]
    assert depths == sorted(depths, reverse=True)
    assert follows(window(price=0.9), 100, right=True)[1] == 0


def test_it_takes_turns_where_both_ends_are_seen_to_slow_one_another():
    one = window(rtt_s=0.0)
    now = 0.0
    for slow in (1.0, 2.0):
        for _ in range(12):  # with the base station idle, and then beside a step
            one.due(now, cached=one._counts.length)
            now += 0.01 * slow
            one.drafted(now, [Proposed(0.7, ends=False)])
            one.written(now + 0.04 * (slow == 1.0) + 0.001, 1, 1, 2, step_s=0.04, rows=1)
            one.commit(2)
            now += 0.05
        assert one.turns is (slow == 2.0)


def test_what_would_miss_the_next_step_is_not_held_back_for_a_group():
    """The base station goes on writing: what comes behind a step's beginning waits for its end."""
    for told, first in ((True, 3), (False, 5)):
        one = window(draft_s=0.01, step_s=0.1, rtt_s=0.06, price=0.0)
        if told:  # the step behind this one begins at .07, and what is sent by .04 is there
            one.written(0.0, 0, 0, 1, step_s=0.1, rows=1)
        asked = [a for a in play(one, 8) if isinstance(a, Propose)]
        assert one.worth.group == 5 and asked[0].tokens == first
