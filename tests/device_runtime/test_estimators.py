"""Estimates follow lasting changes, and shrug at outliers."""

from __future__ import annotations

import random

import pytest

from device_runtime.drafting.estimators import Acceptance, Estimates
from device_runtime.drafting.levels import KEPT, Level
from device_runtime.drafting.rows import Rows


def test_a_level_is_cold_at_first_and_right_after_one_sample():
    level = Level()
    assert (len(level), level.typical, level.mean) == (0, 0.0, 0.0)
    level.add(0.05)
    assert (level.typical, level.mean) == (0.05, 0.05)


def test_an_outage_moves_a_level_little_and_stalls_count():
    level = Level()
    for _ in range(20):
        level.add(0.05)
    level.add(60.0)
    assert level.typical == 0.05
    assert level.mean < 0.07  # 60 s counted in full would make it 2.9 s
    stalling = Level()
    for sample in range(KEPT):
        stalling.add(0.3 if sample % 10 == 0 else 0.05)
    assert stalling.typical == 0.05
    assert stalling.mean == pytest.approx(0.05 + 0.25 * 4 / KEPT)


def test_what_is_late_now_and_then_is_remembered_for_longer_than_the_level():
    level, mean_s = Level(), 0.25 / 20
    for sample in range(400):
        level.add(0.3 if sample % 20 == 10 else 0.05)
        if sample == 10:
            assert 0.0 < level.excess < 0.7 * 0.25 / 11  # once in eleven is not yet believed
    assert level.typical == 0.05
    assert level.excess == pytest.approx(mean_s, rel=0.15)
    for _ in range(KEPT):
        level.add(0.05)
    assert level.mean == 0.05
    assert level.excess > 0.7 * mean_s
    level = Level()
    for _ in range(20):
        level.add(0.05)
    assert level.excess == 0.0
    level.add(60.0)  # an outage is no stall of the link's
    assert level.excess < 8 * 0.05 / 20


def test_of_a_few_round_trips_a_stall_may_be_an_accident():
    """Control: of any other work it is counted as it came."""
    here, plain = Estimates().rtt, Level()
    for sample in (0.06,) * 7 + (0.46,):
        here.add(sample)
        plain.add(sample)
    assert (here.mean, plain.mean) == (pytest.approx(0.085), pytest.approx(0.11))
    for sample in range(KEPT):
        here.add(0.46 if sample % 4 == 0 else 0.06)
    assert here.mean > 0.13  # they are no accidents


def test_texts_before_weigh_as_much_as_some_tokens_of_one():
    acceptance = Acceptance()
    for number in range(20):
        acceptance.told(float(number % 2))
    few = (acceptance.alpha, acceptance.error)
    acceptance.begin()
    assert (acceptance.alpha, acceptance.error) == pytest.approx(few)
    for number in range(300):
        acceptance.told(1.0 if number % 5 else 0.0)
    alpha, error = acceptance.alpha, acceptance.error
    acceptance.begin()
    assert acceptance.weight == pytest.approx(30.0)
    assert acceptance.alpha == pytest.approx(alpha)
    assert acceptance.error > 1.5 * error
    for _ in range(34):
        acceptance.told(0.0)
    assert acceptance.alpha < 0.55 * alpha  # of 150 it would be more than 0.75


def test_a_lasting_change_is_followed():
    level = Level(0.05)
    for _ in range(KEPT):
        level.add(0.3)
    assert (level.typical, level.mean) == (0.3, pytest.approx(0.3))
    level.add(-1.0)  # a duration that came out negative is none
    assert level.mean >= 0.0


@pytest.mark.parametrize("alpha", [0.3, 0.8, 0.97])
def test_acceptance_is_found_by_position_and_by_probability(alpha):
    rng, found = random.Random(1), Acceptance()
    assert 0.5 < found.alpha < 1.0  # beforehand: drafting is worth a look
    for _ in range(1500):
        accepted = 0
        while accepted < 6 and rng.random() < alpha:
            accepted += 1
        found.judged(0, [0.6] * 6, accepted, rejected=accepted < 6)
    # It remembers some 150 tokens: three standard errors of as many.
    assert found.alpha == pytest.approx(alpha, abs=3 * (alpha * (1 - alpha) / 150) ** 0.5)
    assert found.probability(0.6) == pytest.approx(alpha, abs=0.05)
    # Of other chances nothing was seen: told by these, in their order, and by nothing else.
    unseen = [found.probability(chance) for chance in (0.01, 0.15, 0.7, 0.99)]
    assert unseen == sorted(unseen) and unseen[0] < found.alpha - 0.4 * (1 - found.alpha) * 0.5
    assert unseen[0] == pytest.approx(max(0.0, 1 - 1.485 * (1 - found.alpha)))
    assert unseen[3] > max(0.95, found.alpha)
    assert found.reached[0] == 1500
    assert found.stood[0] / found.reached[0] == pytest.approx(alpha, abs=0.04)
    assert len(found.reached) == 6


def test_the_position_is_that_behind_the_last_correction():
    found = Acceptance()
    found.judged(0, [0.5, 0.5], 2, rejected=False)
    found.judged(2, [0.5, 0.5, 0.5], 1, rejected=True)
    assert found.reached == [1, 1, 1, 1]
    assert found.stood == [1, 1, 1, 0]


def fitted(samples: list[tuple[int, float]]) -> Rows:
    rows = Rows()
    for tokens, seconds in samples:
        rows.add(tokens, seconds)
    return rows


def test_what_a_token_adds_to_a_verification_is_told_by_blocks_of_many_lengths():
    rng = random.Random(1)
    lengths = [rng.randint(0, 12) for _ in range(KEPT)]
    samples = [(n, 0.04 + 0.004 * n + rng.gauss(0.0, 0.003)) for n in lengths]
    rows = fitted(samples)
    assert rows.token_s == pytest.approx(0.004, rel=0.25)
    assert rows.tokens == pytest.approx(sum(lengths) / KEPT)
    stalled = fitted([*samples[1:], (2, 60.0)])  # one that waited for the machine
    assert 0.0 < stalled.token_s < 2 * 0.004
    # Of one length, or where length is of no account, nothing is made of the noise.
    noise = [0.04 + rng.gauss(0.0, 0.003) for _ in range(KEPT)]
    assert fitted([(5, seconds) for seconds in noise]).token_s == 0.0
    assert fitted(list(zip(lengths, noise, strict=True))).token_s < 0.0005
    assert Rows().token_s == Rows().tokens == 0.0


def test_a_round_costs_the_same_however_its_cost_is_shared_out():
    here = Estimates()
    here.rtt.add(0.001)
    here.draft.took(0.008, beside=False)
    for n in (2, 4, 6, 8):
        here.verify.took(0.04 + 0.004 * n, beside=False)
        here.rows.add(n, 0.04 + 0.004 * n)
    fixed_s, drafted_s = here.round_s()
    assert 0.008 < drafted_s < 0.012
    whole_s = 0.001 + here.verify.mean + 5 * 0.008  # of the mean length
    assert fixed_s + 5 * drafted_s == pytest.approx(whole_s)


@pytest.mark.parametrize(("was", "becomes"), [(0.06, 0.005), (0.005, 0.06)])
def test_three_samples_far_from_all_others_are_another_level(was, becomes):
    level = Level()
    for _ in range(KEPT):
        level.add(was)
    for _ in range(2):
        level.add(becomes)
    assert level.typical == was
    level.add(becomes)
    assert level.typical == level.mean == becomes


def test_a_link_that_loses_segments_now_and_then_stays_what_it_is():
    """2% each way are lost, and stall for .26 s: three in a row are one in 15,000."""
    rng, level, others = random.Random(4), Level(), 0
    for _ in range(3000):
        level.add(0.06 + 0.26 * (rng.random() < 0.04))
        others += len(level) < 4 and level.typical > 0.1
    assert others <= 3


def test_shares_tell_more_than_tokens_that_are_accepted_or_not():
    rng, shares, tokens = random.Random(5), Acceptance(), Acceptance()
    for _ in range(100):
        share = rng.choice((1.0, 1.0, 0.9, 0.7, 0.5))
        shares.told(share)
        tokens.told(float(rng.random() < share))
    assert shares.error < 0.6 * tokens.error
    total = tokens.weight + 4.0
    beta = (tokens.alpha * (1.0 - tokens.alpha) / (total + 1.0)) ** 0.5
    assert tokens.error == pytest.approx(beta)


def test_what_the_base_station_says_of_its_steps_counts_until_there_are_samples():
    here = Estimates(told_step_s=0.05)
    assert here.stream_s == here.verify_s == 0.05
    here.verify.took(0.07, beside=False)
    assert (here.stream_s, here.verify_s) == (0.05, 0.07)  # a step of one row
    here.target.add(0.04)
    assert (here.stream_s, here.verify_s) == (0.04, 0.07)


def test_many_steps_without_a_block_do_not_hide_what_a_row_adds():
    """Where a device rests, all of them are: turns would soon be taken to cost no rows at all."""
    here = Rows()
    for _ in range(6):
        here.add(4, 0.012)
    for _ in range(200):
        here.add(0, 0.008)
    assert 0.0007 < here.each_s(0.0) < 0.001
    assert here.mean_s - here.tokens * 0.001 == pytest.approx(0.008)
    empty = Rows()
    empty.add(0, 0.008)
    assert empty.tokens == 0.0 and empty.mean_s == 0.008 and empty.each_s(0.001) == 0.001
