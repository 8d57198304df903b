"""When blocks are checked: the formulas against epochs played out, and against all policies."""

from __future__ import annotations

import random

import pytest

from draftlink.planning import schedule, theory
from draftlink.planning.theory import Costs

COSTS = [
    Costs(0.010, 0.045, 0.045, 0.015),
    Costs(0.010, 0.090, 0.090, 0.060),
    Costs(0.010, 0.045, 0.045, 0.300, uplink_s=0.002),
    Costs(0.020, 0.005, 0.005, 0.030),  # the verifier is never waited for
]


def played(
    alpha: float,
    first: int,
    costs: Costs,
    restart_s: float,
    seed: int = 1,
    stall_s: float = 0.0,
) -> float:
    """Seconds per token of many epochs, event by event."""
    rng = random.Random(seed)
    seconds = tokens = 0.0
    back_s = costs.correction_s - costs.verify_s
    for _ in range(20_000):
        rejected = 1  # the place of the first rejection
        while rng.random() < alpha:
            rejected += 1
        checked, free_s, count = 0, 0.0, first
        while checked < rejected:
            start_s = max(free_s, (checked + count) * costs.pace_s)
            free_s, checked = start_s + costs.verify_s, checked + count
            count = max(1, int(free_s / costs.pace_s + 1e-9) - checked)
            seconds += stall_s * (checked < rejected)
        seconds += free_s + back_s + restart_s
        tokens += rejected
    return seconds / tokens


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("alpha", [0.5, 0.8, 0.9])
def test_blocks_against_epochs_played_out(alpha, costs):
    for first in (1, 3, 7):
        found = schedule.block_time(alpha, first, costs, restart_s=0.005)
        # 20,000 epochs: the mean of a geometric number is known to 0.7% at one standard error.
        assert found == pytest.approx(played(alpha, first, costs, 0.005), rel=0.02)
        wrong = schedule.block_time(
            alpha, first, costs, restart_s=0.005 + 0.5 * found
        )  # 5% of it at least
        assert wrong != pytest.approx(played(alpha, first, costs, 0.005), rel=0.02)


def test_messages_that_stall_make_for_larger_first_blocks():
    costs, stall_s = COSTS[0], 0.02
    for first in (2, 5):
        found = schedule.block_time(0.85, first, costs, stall_s=stall_s)
        assert found == pytest.approx(played(0.85, first, costs, 0.0, stall_s=stall_s), rel=0.02)
        assert found > 1.05 * schedule.block_time(0.85, first, costs)
    firsts = [schedule.best_schedule(0.85, costs, stall_s=s).first for s in (0.0, 0.01, 0.03)]
    assert firsts == sorted(set(firsts))
    # Of tokens 1 to 3 none is behind another block, of tokens 4 to 7 each is behind one.
    for tokens, stalls in ((3, 0), (4, 1), (7, 1), (8, 2)):
        late = schedule.epoch_time(tokens, 3, costs, stall_s=stall_s)
        in_time = schedule.epoch_time(tokens, 3, costs)
        assert late == pytest.approx(in_time + stalls * stall_s)


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("alpha", [0.6, 0.8, 0.9])
def test_taking_all_that_is_there_is_as_good_as_any_policy(alpha, costs):
    best = schedule.best_schedule(alpha, costs, restart_s=0.0)
    ideal = schedule.ideal_time(alpha, costs)
    bound = theory.run_ahead_time(alpha, costs)
    assert bound <= ideal <= best.token_s * (1 + 1e-5)
    assert best.token_s <= 1.01 * ideal


def test_certain_acceptance_runs_at_the_draft_s_pace_and_none_waits_for_each():
    costs = COSTS[0]
    # At α = 0.999 epochs of 1,000 tokens cost one round trip each.
    assert schedule.best_schedule(0.999, costs).token_s == pytest.approx(0.0101, rel=0.02)
    none = schedule.best_schedule(0.0, costs, restart_s=0.0)
    assert (none.first, none.token_s) == (1, pytest.approx(0.010 + 0.045 + 0.015))
    for alpha in (-0.1, 1.1):
        with pytest.raises(ValueError, match="alpha"):
            schedule.best_schedule(alpha, costs)
    with pytest.raises(ValueError, match="above 0"):
        schedule.best_schedule(0.5, Costs(0.0, 0.04, 0.04))
