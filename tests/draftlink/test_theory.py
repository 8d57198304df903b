"""Closed forms against brute force: integer search, simulation, enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special

from draftlink.distribution import sparse
from draftlink.planning import theory
from draftlink.planning.theory import Costs

ALPHAS = (0.01, 0.1, 0.4, 0.6, 0.8, 0.9, 0.97, 0.999)
RATIOS = (1e-4, 0.003, 0.01, 0.07, 0.1, 0.2, 0.4, 0.6, 0.99, 1.0, 1.7, 30.0)


def searched(alpha: float, fixed: float, draft: float, longest: int) -> tuple[int, np.ndarray]:
    """The best γ in 1..longest, and the tokens a second of each, by a running sum."""
    gamma = np.arange(1, longest + 1)
    rates = (1.0 + np.cumsum(alpha**gamma)) / (fixed + gamma * draft)
    return int(gamma[np.argmax(rates)]), rates


def test_expected_tokens_is_the_sum_it_stands_for():
    for alpha in (0.0, *ALPHAS, 1.0 - 1e-9, 1.0):
        for gamma in (0, 1, 2, 7, 64):
            total = math.fsum(alpha**i for i in range(gamma + 1))
            assert theory.expected_tokens(alpha, gamma) == pytest.approx(total, rel=1e-12)
    for alpha, gamma in [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.5, -1)]:
        with pytest.raises(ValueError, match="alpha must be in"):
            theory.expected_tokens(alpha, gamma)


def test_lambert_agrees_with_scipy_and_goes_where_scipy_cannot():
    for excess in np.geomspace(1e-6, 600, 400):
        w = scipy.special.lambertw(-math.exp(-1.0 - excess), -1).real
        # scipy's argument near −1/e holds only eps / √(2u) of the distance from the branch point.
        assert -1.0 - theory.lambert_w_minus1(excess) == pytest.approx(w, rel=1e-9)
    # Its own equation, at arguments that are 0 in float64 (e^-1e6) or equal to −1/e.
    for excess in [*np.geomspace(1e-4, 1e12, 200), 1e6]:
        d = theory.lambert_w_minus1(excess)
        assert d - math.log1p(d) == pytest.approx(excess, rel=1e-11)
    for excess in np.geomspace(1e-16, 1e-7, 60):  # across the series' end: next term −p⁴/270
        p = math.sqrt(2 * excess)
        assert theory.lambert_w_minus1(excess) == pytest.approx(p + p**2 / 3 + p**3 / 36, rel=1e-11)
    assert theory.lambert_w_minus1(0.0) == 0.0
    for excess in (-1e-9, math.inf, math.nan):
        with pytest.raises(ValueError, match="real"):
            theory.lambert_w_minus1(excess)


def test_the_formula_is_the_one_that_the_paper_prints():
    """γ₀ with scipy's W₋₁, its floor or ceiling: the same length."""
    for alpha in ALPHAS:
        for ratio in (r for r in RATIOS if 0.003 <= r < 1):
            argument = -(1 / math.e) * alpha ** (1 / ratio - 1)
            if argument == 0.0:
                continue  # scipy's W₋₁(−0) is −∞: why the logarithm is needed
            w = scipy.special.lambertw(argument, -1).real
            gamma = (w + 1) / math.log(alpha) - 1 / ratio
            near = {max(1, math.floor(gamma)), max(1, math.ceil(gamma))}
            assert theory.optimal_draft_length(alpha, ratio) in near


def test_the_papers_table():
    table = {0.4: (4, 2, 1, 1, 1), 0.6: (7, 3, 2, 1, 1), 0.8: (14, 6, 4, 2, 1)}
    for alpha, lengths in table.items():
        found = [theory.optimal_draft_length(alpha, ratio) for ratio in (0.01, 0.1, 0.2, 0.4, 0.6)]
        assert tuple(found) == lengths


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_best_length_is_what_a_search_finds(alpha):
    for fixed in (0.0, 0.002, 0.05, 0.35, 4.0):
        for ratio in RATIOS:
            draft = fixed * ratio if fixed else ratio
            longest = 20_000
            best, rates = searched(alpha, fixed, draft, longest)
            found = theory.best_draft_length(alpha, fixed_s=fixed, draft_s=draft)
            # Equal to the last digits is a tie, which rounding may settle either way.
            assert rates[found - 1] >= rates[best - 1] * (1 - 1e-12), (fixed, draft, found, best)
            assert abs(found - best) <= 1
            for cap in (1, 3, 16):
                best, rates = searched(alpha, fixed, draft, cap)
                capped = theory.best_draft_length(alpha, fixed_s=fixed, draft_s=draft, longest=cap)
                assert 1 <= capped <= cap
                assert rates[capped - 1] >= rates[best - 1] * (1 - 1e-12)


def test_random_costs():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        alpha, fixed = rng.uniform(0.001, 0.995), 10 ** rng.uniform(-4, 1)
        draft = fixed * 10 ** rng.uniform(-3, 1)
        best, rates = searched(alpha, fixed, draft, 3000)
        found = theory.best_draft_length(alpha, fixed_s=fixed, draft_s=draft)
        assert found == best or rates[found - 1] == pytest.approx(rates[best - 1], rel=1e-12)


def test_extreme_costs():
    # α^(1/L − 1) underflows here: log form only. 1 = h(γ) with h from the derivative, see below.
    for ratio in (1e-6, 1e-9, 1e-300):
        gamma = theory.optimal_draft_length(0.5, ratio)
        decay = math.log(2)
        # dS/dγ = 0 where α^(γ+1) (1 − ln α (1/L + γ)) = 1.
        root = math.log1p(decay * (1 / ratio + gamma)) / decay - 1
        assert abs(root - gamma) <= 1
    assert theory.best_draft_length(1 - 1e-12, fixed_s=1, draft_s=0.1) > 100_000
    assert theory.best_draft_length(0.0, fixed_s=1, draft_s=0.1) == 1
    assert theory.best_draft_length(1.0, fixed_s=1, draft_s=1) == 1
    for alpha, draft in [(1.0, 0.1), (0.5, 0.0), (0.5, 1e-320)]:
        assert theory.best_draft_length(alpha, fixed_s=1, draft_s=draft, longest=9) == 9
        with pytest.raises(ValueError, match="give a longest"):
            theory.best_draft_length(alpha, fixed_s=1, draft_s=draft)
    bad = [(1.1, 1, 1, 1), (0.5, -1, 1, 1), (0.5, 1, math.nan, 1), (0.5, math.inf, 1, 1)]
    for alpha, fixed, draft, longest in [*bad, (0.5, 1, 0.1, 0)]:
        with pytest.raises(ValueError, match="must be"):
            theory.best_draft_length(alpha, fixed_s=fixed, draft_s=draft, longest=longest)


def test_drafting_pays_exactly_when_some_length_is_faster_than_the_target():
    for alpha in np.linspace(0.0, 0.99, 34):
        for ratio in np.linspace(0.005, 1.5, 43):
            best = max(theory.speedup(alpha, g, ratio) for g in range(1, 200))
            if abs(alpha - ratio) > 1e-9:
                assert (best > 1.0) == theory.drafting_pays(alpha, ratio)


COSTS = [
    Costs(draft_s=0.010, target_s=0.045, verify_s=0.045, rtt_s=0.060),
    Costs(draft_s=0.010, target_s=0.045, verify_s=0.05, rtt_s=0.3, uplink_s=0.002, message_s=0.001),
    Costs(draft_s=0.003, target_s=0.045, verify_s=0.045, uplink_s=0.010),  # the link is the slower
]


def rejections(alpha: float, count: int, seed: int) -> np.ndarray:
    """Whether each of ``count`` drafted tokens is rejected, independently."""
    return np.random.default_rng(seed).random(count) >= alpha


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("alpha", [0.3, 0.8, 0.95])
def test_stop_and_wait_against_rounds_played_out(alpha, costs):
    for gamma in (1, 4, 12):
        rounds = 20_000
        drawn = rejections(alpha, rounds * gamma, gamma).reshape(rounds, gamma)
        written = np.where(drawn.any(1), drawn.argmax(1) + 1, gamma + 1)
        one = gamma * (costs.draft_s + costs.uplink_s)
        one += costs.rtt_s + costs.message_s + costs.verify_s
        played = one / written.mean()
        # Five standard errors of the mean of ``written``.
        slack = 5 * written.std() / math.sqrt(rounds) / written.mean()
        assert theory.stop_and_wait_time(alpha, gamma, costs) == pytest.approx(played, rel=slack)


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("alpha", [0.3, 0.8, 0.95])
def test_run_ahead_against_epochs_played_out(alpha, costs):
    """Token by token: drafted, queued for the uplink, verified on its own, never queued there."""
    drafted = sent = now = 0.0
    tokens = 40_000
    lengths, run = [], 0
    for rejected in rejections(alpha, tokens, 1):
        run += 1
        drafted = max(drafted, now) + costs.draft_s
        sent = max(sent, drafted) + costs.uplink_s
        if rejected:
            now = sent + costs.message_s + costs.rtt_s + costs.verify_s  # the correction is there
            drafted = sent = now
            lengths.append(run)
            run = 0
    played = now / sum(lengths)
    # n epochs: the mean epoch's standard error is √α / (1 − α) / √n, of a mean of 1 / (1 − α).
    slack = 5 * math.sqrt(alpha / len(lengths))
    assert theory.run_ahead_time(alpha, costs) == pytest.approx(played, rel=slack)


def test_run_ahead_is_the_design_s_formula_and_never_loses_to_waiting():
    costs = Costs(draft_s=0.01, target_s=0.045, verify_s=0.05, rtt_s=0.06)
    assert theory.run_ahead_time(0.8, costs) == pytest.approx(0.01 + 0.2 * (0.06 + 0.05))
    assert theory.run_ahead_time(1.0, costs) == 0.01
    # In flight until the first verdict: 11 tokens, and the one that is being drafted.
    assert theory.run_ahead_window(costs) == 12
    assert theory.stream_time(costs) == 0.045
    assert theory.stream_time(costs, 100) == pytest.approx(0.0456)
    for costs in COSTS:
        for alpha in ALPHAS:
            ahead = theory.run_ahead_time(alpha, costs)
            waits = [theory.stop_and_wait_time(alpha, g, costs) for g in range(1, 60)]
            # A bonus token is the one thing that only waiting gives: at most one in each round.
            assert ahead <= min(
                w
                * theory.expected_tokens(alpha, g)
                / max(1.0, theory.expected_tokens(alpha, g) - 1)
                for g, w in enumerate(waits, 1)
            )
    for name in ("draft_s", "rtt_s"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            Costs(**{"draft_s": 0.01, "target_s": 0.04, "verify_s": 0.04, name: -1.0})
    with pytest.raises(ValueError, match="target_s must be above"):
        Costs(0.01, 0.0, 0.04)
    with pytest.raises(ValueError, match="a window needs"):
        theory.run_ahead_window(Costs(0.0, 0.04, 0.04))


def rows(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    p, q = rng.dirichlet(np.full(size, 0.3), 2)
    if rng.random() < 0.5:  # tokens that one of the two cannot draw
        p[0], q[-1] = 0.0, 0.0
    return p / p.sum(), q / q.sum()


def test_coupled_acceptance_against_its_double_sum_and_its_bounds():
    rng = np.random.default_rng(3)
    for size in (2, 3, 8, 40):
        for _ in range(50):
            p, q = rows(rng, size)
            plain = sum(
                1 / np.maximum(p / p[x], q / q[x]).sum() for x in range(size) if p[x] and q[x]
            )
            found, best = theory.coupled_acceptance(p, q), theory.best_acceptance(p, q)
            assert found == pytest.approx(plain, rel=1e-12)
            assert theory.coupled_acceptance_bound(best) <= found * (1 + 1e-12)
            assert found <= best * (1 + 1e-12)
            assert best == pytest.approx(1 - theory.total_variation(p, q))
            assert theory.sample_and_match_acceptance(p, q) <= best
    assert theory.coupled_acceptance(p, p) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="an acceptance"):
        theory.coupled_acceptance_bound(1.2)


def test_coupled_acceptance_against_draws():
    rng = np.random.default_rng(5)
    draws = 40_000
    for _ in range(5):
        p, q = rows(rng, 12)
        noise = rng.gumbel(size=(draws, 12))
        with np.errstate(divide="ignore"):
            equal = (np.log(p) + noise).argmax(1) == (np.log(q) + noise).argmax(1)
        slack = 5 * 0.5 / math.sqrt(draws)
        assert theory.coupled_acceptance(p, q) == pytest.approx(equal.mean(), abs=slack)
        # Negative control: a coupling is not independent sampling.
        assert abs(theory.sample_and_match_acceptance(p, q) - equal.mean()) > slack


def test_truncation_and_rounding_lose_no_more_than_the_bound():
    rng = np.random.default_rng(8)
    worst = 0.0
    for _ in range(300):
        p, q = rows(rng, 60)
        k, total = int(rng.integers(1, 40)), int(rng.integers(1, 200))
        row = sparse.lattice(q, k, total)
        rounded = np.zeros(60)
        rounded[row.ids] = row.probabilities()
        dropped = 1 - np.sort(q)[::-1][:k].sum()
        loss = theory.best_acceptance(p, q) - theory.best_acceptance(p, rounded)
        bound = theory.truncation_loss_bound(dropped, k, total)
        assert loss <= bound + 1e-12
        assert theory.total_variation(q, rounded) <= bound + 1e-12
        worst = max(worst, theory.total_variation(q, rounded) / bound)
    assert worst > 0.5  # the bound says something


def test_losses_add_in_quadrature():
    """Between the larger loss alone and the sum of both, which the triangle's inequality bounds."""
    assert theory.acceptance_after(0.7, 0.944) == pytest.approx(0.6948, abs=1e-4)
    assert theory.acceptance_after(0.7, 1.0) == pytest.approx(0.7)
    assert theory.acceptance_after(0.0, 0.0) == 0.0
    for accepted, overlap in ((0.9, 0.8), (0.5, 0.99), (0.2, 0.3)):
        found = theory.acceptance_after(accepted, overlap)
        assert max(0.0, accepted + overlap - 1.0) <= found <= min(accepted, overlap)
    with pytest.raises(ValueError, match="must be in"):
        theory.acceptance_after(1.1, 0.9)
