"""Which mode is chosen at stated costs, and that it is left alone."""

from __future__ import annotations

import random

import pytest

from device_runtime.drafting import controller as controllers
from device_runtime.drafting.controller import Controller, DraftPlan
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.levels import Level
from draftlink.planning import theory


def known(
    alpha: float, *, rtt_s: float, target_s: float, draft_s: float = 0.01, judged: int = 300
) -> Estimates:
    here = Estimates()
    here.rtt.add(rtt_s)
    here.draft.add(draft_s)
    here.verify.add(target_s)
    here.target.add(target_s)
    rng = random.Random(2)
    for _ in range(judged):
        here.acceptance.foretold(0.6, rng.random() < alpha)
    return here


def test_nothing_is_decided_before_anything_is_known():
    assert Controller(Estimates()).choose(200) == "stream"


@pytest.mark.parametrize(
    ("alpha", "rtt_s", "target_s", "writer"),
    [
        (0.8, 0.005, 0.045, "run-ahead"),
        (0.8, 0.060, 0.045, "run-ahead"),
        (0.8, 0.300, 0.045, "stream"),  # 10 + 0.2 · 345 ms a token, against 45
        (0.95, 0.300, 0.090, "run-ahead"),
        (0.3, 0.060, 0.045, "stream"),
    ],
)
def test_the_cheapest_mode_is_chosen_and_kept(alpha, rtt_s, target_s, writer):
    controller = Controller(known(alpha, rtt_s=rtt_s, target_s=target_s), foretells=True)
    chosen = []
    for _ in range(50):
        chosen.append(controller.choose(200))
        controller.streamed(5)
    assert set(chosen) == {writer}


def greeted(rtt_s: float) -> Estimates:
    here = Estimates()
    here.rtt.add(rtt_s)
    return here


@pytest.mark.parametrize(
    ("estimates", "near", "writer"),
    [
        (greeted(0.0005), True, "stop-and-wait"),
        (greeted(0.0005), False, "stream"),  # by its address it is elsewhere, and has its own cores
        (greeted(0.03), True, "stream"),  # behind something that delays, as links are tried out
        (known(0.8, rtt_s=0.001, target_s=0.045), True, "stop-and-wait"),
        (known(0.3, rtt_s=0.001, target_s=0.010), True, "stream"),  # found out earlier
        (known(0.8, rtt_s=0.001, target_s=0.045), False, "stream"),
    ],
)
def test_on_one_machine_the_device_writes_first_unless_it_knows_better(estimates, near, writer):
    controller = Controller(estimates)
    assert controller.begin(near=near) == controller.writer == writer


def leaves_after(accepted: int) -> int | None:
    """Tokens of a first trial of run-ahead over 60 ms, of whose epochs each begins so well."""
    here = known(0.0, rtt_s=0.06, target_s=0.045, judged=0)
    controller = Controller(here)
    assert controller.choose(100) == "run-ahead"
    for epoch in range(1, 40):
        here.acceptance.judged(0, [0.6] * (accepted + 1), accepted, rejected=True)
        controller.drafted("run-ahead", accepted + 1, 0.11 + 0.01 * accepted)
        if controller.choose(100 - (accepted + 1) * epoch) == "stream":
            return (accepted + 1) * epoch
    return None


def test_a_trial_that_goes_badly_ends_before_it_has_lasted(monkeypatch):
    """12 tokens, one a round trip, took longer than half a short text of the target's alone."""
    left = leaves_after(accepted=0)
    assert left is not None and left <= 4
    assert leaves_after(accepted=6) is None
    monkeypatch.setattr(controllers, "MORE_PATIENCE", 100.0)
    assert leaves_after(accepted=0) == controllers.DWELL_TOKENS


def test_a_slow_link_found_out_late_ends_drafting():
    controller = Controller(known(0.8, rtt_s=0.01, target_s=0.045), foretells=True)
    assert controller.choose(500) == "run-ahead"
    for _ in range(40):
        controller.estimates.rtt.add(0.5)
        controller.drafted("run-ahead", 5, 0.6)
        controller.choose(500)
    assert controller.writer == "stream"


@pytest.mark.parametrize("writer", ["stop-and-wait", "run-ahead"])
def test_a_clock_too_coarse_for_a_draft_forward(writer):
    """Windows ticks every 16 ms: everything may seem to take no time at all."""
    here = known(0.8, rtt_s=0.0, target_s=0.0, draft_s=0.0)
    controller = Controller(here, writer=writer, foretells=True)
    for _ in range(30):
        here.draft.add(0.0)
        controller.plan(writer)
        controller.drafted(writer, 5, 0.0)
        controller.choose(200)


def test_noise_around_the_break_even_point_does_not_make_it_oscillate():
    here = known(0.8, rtt_s=0.13, target_s=0.045)  # run-ahead takes about 45 ms a token, too
    controller, rng, changes = Controller(here, foretells=True), random.Random(3), 0
    for _ in range(2000):
        before = controller.writer
        here.acceptance.foretold(0.6, rng.random() < 0.8)
        here.rtt.add(0.13 * rng.uniform(0.7, 1.3))
        if before == "stream":
            controller.streamed(1)
        else:
            controller.drafted("run-ahead", 1, 0.045)
        changes += controller.choose(1000) != before
    assert changes <= 16  # a mode is kept for twice as long after each return


def test_a_window_holds_a_round_trip_of_drafts_and_shrinks_under_load():
    here = known(0.9, rtt_s=0.06, target_s=0.045)
    plan = Controller(here).plan("run-ahead")
    assert plan.window >= (0.06 + 0.045) / 0.01
    assert 0.0 < plan.sure < 1.0
    assert not plan.waits
    for _ in range(40):
        here.queue.add(0.18)
    assert Controller(here).plan("run-ahead").window <= plan.window / 3


def test_from_one_way_to_draft_to_the_other_is_no_way_back():
    """Neither costs anything to change to: what luck told is taken back as soon as it is known."""
    here = known(0.3, rtt_s=0.001, target_s=0.09, judged=60)
    here.target.became(0.3)  # the base station streams to many others
    controller = Controller(here, writer="run-ahead")
    controller.drafted("run-ahead", 12, 0.6)
    assert controller.choose(200) == "stop-and-wait"
    for _ in range(300):
        here.acceptance.foretold(0.6, True)
    here.rtt.became(0.06)
    controller.drafted("stop-and-wait", 12, 0.6)
    assert controller.choose(200) == "run-ahead"


def test_over_another_link_drafting_is_not_waited_with():
    """Control: over the same one, as long as it was found not to pay."""
    for nearer in (True, False):
        here = known(0.8, rtt_s=0.3, target_s=0.045)
        controller = Controller(here, writer="run-ahead", foretells=True)
        assert controller.choose(200) == "stream"
        here.rtt.became(0.005)
        if nearer:
            controller.nearer()
        assert (controller.choose(200) == "run-ahead") == nearer


@pytest.mark.parametrize("accident", [True, False], ids=["", "control"])
def test_one_stall_in_a_few_round_trips_ends_no_drafting(accident):
    """Nobody would measure another one: all texts would be streamed. Control: it is believed."""
    here = known(0.8, rtt_s=0.06, target_s=0.045)
    if not accident:
        here.rtt = Level(0.06)
    for sample in (0.06,) * 6 + (0.55,):
        here.rtt.add(sample)
    wanted = "run-ahead" if accident else "stream"
    assert Controller(here, foretells=True).choose(200) == wanted


def test_a_fixed_draft_length_is_kept():
    controller = Controller(known(0.8, rtt_s=0.06, target_s=0.045), gamma=7)
    plan = controller.plan("stop-and-wait")
    assert (plan.first, plan.waits, plan.window) == (7, True, 7)


def written(alpha: float, seed: int, tokens: int = 250) -> float:
    """A text of ``auto`` by satellite, over what the target alone would take for it.

    45 ms a step; drafting takes 10 + (1 - alpha) * 345 ms a token.
    """
    here, rng = known(alpha, rtt_s=0.3, target_s=0.045, judged=0), random.Random(seed)
    controller, left, seconds = Controller(here, foretells=True), tokens, 0.0
    while left > 0:
        before = controller.writer
        if before == "stream":
            here.acceptance.foretold(0.6, rng.random() < alpha)
            controller.streamed(1)
            left, seconds = left - 1, seconds + 0.045
        else:
            accepted = next(n for n in range(64) if rng.random() > alpha)
            here.acceptance.judged(0, [0.6] * (accepted + 1), accepted, rejected=True)
            epoch_s = 0.345 + 0.01 * (accepted + 1)
            controller.drafted(before, accepted + 1, epoch_s)
            left, seconds = left - accepted - 1, seconds + epoch_s
        if left > 0 and controller.choose(left) != before:
            seconds += 0.3
    return seconds / (tokens * 0.045)


@pytest.mark.parametrize("alpha", [0.75, 0.82, 0.89])
def test_where_changing_costs_much_a_lucky_streak_costs_little(alpha, monkeypatch):
    """The estimate is looked at 250 times, and acted on at its best. Control: nobody goes back."""
    mean = sum(written(alpha, seed) for seed in range(40)) / 40
    assert mean < 1.1
    if alpha < 0.8:
        for name in ("PATIENCE", "MORE_PATIENCE"):
            monkeypatch.setattr(controllers, name, 100.0)
        assert sum(written(alpha, seed) for seed in range(40)) / 40 > mean + 0.02


def test_one_stall_does_not_end_drafting_but_slowness_that_lasts_does():
    here = known(0.8, rtt_s=0.06, target_s=0.045)  # run-ahead takes some 37 ms a token
    controller = Controller(here, foretells=True)
    assert controller.choose(250) == "run-ahead"
    for seconds in (0.19, 0.19, 0.69, 0.19, 0.19, 0.19):
        controller.drafted("run-ahead", 5, seconds)
        assert controller.choose(200) == "run-ahead"
    for _ in range(40):
        controller.drafted("run-ahead", 5, 0.38)
        controller.choose(200)
    assert controller.writer == "stream"


def learns_that_drafting_on_costs(factor: float) -> list[str]:
    """The modes chosen in turn where both ends take ``factor`` times as long at once as in turns.

    4 and 9 ms a draft forward and a verification by themselves, no round trip to speak of.
    """
    here = Estimates()
    here.rtt.add(0.0005)
    for _ in range(20):  # while the target streams, the draft follows
        here.draft.took(0.004 * factor, beside=True)
        here.target.add(0.009 * factor)
    for judged in range(200):
        here.acceptance.foretold(0.6, judged % 10 != 0)
    controller, modes = Controller(here, foretells=True), []
    for left in range(400, 200, -5):
        writer = controller.choose(left)
        modes.append(writer)
        ahead = writer == "run-ahead"
        slow = factor if ahead else 1.0
        here.draft.took(0.004, beside=False)  # the first of an epoch
        here.draft.took(0.004 * slow, beside=ahead)
        here.verify.took(0.009 * slow, beside=ahead)
        controller.drafted(writer, 5, 5 * controller.token_s(writer, 0.9))
    return modes


def test_on_a_machine_that_both_ends_share_it_ends_up_waiting_and_stays():
    modes = learns_that_drafting_on_costs(2.0)
    assert modes[0] == "run-ahead"  # nothing tells yet
    assert modes.count("run-ahead") < 12
    assert set(modes[12:]) == {"stop-and-wait"}
    # And where each has its own, running ahead is right.
    assert set(learns_that_drafting_on_costs(1.0)) == {"run-ahead"}


def test_cores_that_turn_out_to_be_shared_end_run_ahead_at_once():
    """Where the address does not tell, what drafting on costs must be tried to be known.

    8 tokens tell; that a mode is kept for at least 24 tokens would cost three times as many.
    """
    here = known(0.9, rtt_s=0.0005, target_s=0.05)
    for _ in range(10):
        here.draft.took(0.01, beside=False)
    controller = Controller(here, writer="stop-and-wait")
    controller.drafted("stop-and-wait", 12, 0.2)
    assert controller.choose(100) == "run-ahead"
    tokens = 0
    while controller.writer == "run-ahead":
        here.draft.took(0.02, beside=True)
        here.verify.took(0.1, beside=True)
        tokens += 1
        controller.drafted("run-ahead", 1, 0.03)
        controller.choose(100 - tokens)
    assert controller.writer == "stop-and-wait" and tokens <= 9
    for _ in range(10):
        controller.drafted("stop-and-wait", 5, 0.12)
        assert controller.choose(50) == "stop-and-wait"


@pytest.mark.parametrize(("slowdown", "writer"), [(None, "stop-and-wait"), (1.0, "run-ahead")])
def test_on_one_machine_both_ends_are_taken_to_want_the_same_cores(slowdown, writer):
    """Until it is known. The device has drafted alone so far, which tells nothing of that."""
    here = known(0.9, rtt_s=0.0005, target_s=0.05)
    for _ in range(10):
        here.draft.took(0.01, beside=False)
        if slowdown:
            here.draft.took(0.01 * slowdown, beside=True)
    controller = Controller(here)
    assert controller.begin(near=True) == "stop-and-wait"
    controller.drafted("stop-and-wait", 12, 0.2)
    assert controller.choose(100) == writer


def test_a_stream_is_no_faster_than_verifications_show():
    """What was told was measured at a quiet time. Control: verifications as fast as that."""
    for verify_s, writer in ((0.02, "stop-and-wait"), (0.006, "stream")):
        here = greeted(0.001)
        here.told_step_s = 0.006
        here.draft.took(0.004, beside=False)
        for tokens in (4, 5, 4, 5):
            here.verify.took(verify_s, beside=False)
            here.rows.add(tokens, verify_s)
        for _ in range(30):
            here.acceptance.foretold(0.6, True)
            here.acceptance.foretold(0.6, False)
        controller = Controller(here, writer="stop-and-wait", foretells=True)
        controller.drafted("stop-and-wait", 30, 0.3)
        assert controller.choose(100) == writer


def longest_by(plan: DraftPlan, alpha: float) -> int:
    """Tokens of a block whose chances are all alike."""
    return next(n for n in range(1, plan.first + 1) if alpha**n <= plan.sure or n == plan.first)


@pytest.mark.parametrize("alpha", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("rtt_s", [0.001, 0.06])
def test_a_block_of_like_chances_is_as_long_as_the_best_fixed_one(alpha, rtt_s):
    here = known(alpha, rtt_s=rtt_s, target_s=0.045)
    plan = Controller(here).plan("stop-and-wait")
    best = theory.best_draft_length(
        here.acceptance.alpha, fixed_s=rtt_s + 0.045, draft_s=0.01, longest=16
    )
    assert plan.waits and plan.first == plan.window == 16
    assert abs(longest_by(plan, here.acceptance.alpha) - best) <= 1


def test_where_each_row_makes_a_verification_longer_blocks_are_shorter():
    """A target on a CPU: what was taken for a round's fixed cost is a token's."""
    here = known(0.9, rtt_s=0.001, target_s=0.1)
    free = Controller(here).plan("stop-and-wait")
    for n in (12, 10, 14, 12, 9, 15) * 5:
        here.rows.add(n, 0.04 + 0.005 * n)
    dear = Controller(here).plan("stop-and-wait")
    alpha = here.acceptance.alpha
    assert longest_by(dear, alpha) <= longest_by(free, alpha) - 3
