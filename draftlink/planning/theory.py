"""What a generation costs in each mode, the best draft length, and bounds on acceptance.

A round of stop-and-wait costs ``fixed_s + γ draft_s``: ``draft_s`` holds all that a drafted token
costs (drafting and its uplink bits), ``fixed_s`` what a round costs whatever γ (verification, and
round trip). The paper (TK-SLT, arXiv 2509.04576) has no round trip: there ``fixed_s`` is one target
forward, and L = draft_s / fixed_s. Acceptance is taken as independent with probability α.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens a round writes, (1 − α^(γ+1)) / (1 − α) (arXiv 2211.17192, equation 1)."""
    if not 0.0 <= alpha <= 1.0 or gamma < 0:
        raise ValueError(f"alpha must be in [0, 1] and gamma at least 0, not {alpha} and {gamma}")
    if alpha == 1.0:
        return float(gamma + 1)
    if alpha == 0.0:
        return 1.0
    # expm1, because for α close to 1 the plain difference has no digits left.
    return -math.expm1((gamma + 1) * math.log(alpha)) / (1.0 - alpha)


def speedup(alpha: float, gamma: int, cost_ratio: float) -> float:
    """S(γ) = E[tokens] / (1 + γ L) against the target alone, no round trip; L = ``cost_ratio``."""
    return expected_tokens(alpha, gamma) / (1.0 + gamma * cost_ratio)


def drafting_pays(alpha: float, cost_ratio: float) -> bool:
    """Whether S(γ*) > 1, which is α > L.

    S(1) = (1 + α) / (1 + L); and where α ≤ L, E[tokens] ≤ 1 + γα ≤ 1 + γL for every γ
    (arXiv 2211.17192, corollary 3.9).
    """
    return alpha > cost_ratio


def lambert_w_minus1(excess: float) -> float:
    """−1 − W₋₁(−e^(−1−``excess``)) for ``excess`` ≥ 0: how far W₋₁ is below its branch point.

    The argument comes as a logarithm, so that it neither underflows where it is tiny nor loses its
    digits near −1/e. With W₋₁ = −1 − d the defining equation W e^W = −e^(−1−u) is
    d − ln(1 + d) = u. Raises ValueError where W₋₁ is not real.
    """
    if not 0.0 <= excess < math.inf:
        raise ValueError(f"W₋₁(−e^(−1−u)) is real for a finite u of at least 0, not {excess}")
    if excess < 1e-8:
        # The series around the branch point, where the difference d − ln(1 + d) loses its digits.
        root = math.sqrt(2.0 * excess)
        return root * (1.0 + root / 3.0 + root * root / 36.0)
    # An upper bound (arXiv 1601.04895, theorem 1), from which Newton falls monotonically.
    d = math.sqrt(2.0 * excess) + excess
    for _ in range(50):
        step = (d - math.log1p(d) - excess) * (1.0 + d) / d
        d -= step
        if abs(step) <= 1e-15 * d:
            break
    return d


def optimal_draft_length(alpha: float, cost_ratio: float) -> int:
    """The paper's γ*: the draft length with the greatest S(γ), at least 1.

    γ₀ = (1/ln α) [W₋₁(−(1/e) α^(1/L−1)) + 1] − 1/L, then the better of floor and ceiling (TK-SLT).
    See ``best_draft_length``, which it is with a round of 1 and L per drafted token.
    """
    return best_draft_length(alpha, fixed_s=1.0, draft_s=cost_ratio)


def best_draft_length(
    alpha: float, *, fixed_s: float, draft_s: float, longest: int | None = None
) -> int:
    """The γ from 1 to ``longest`` with the most tokens a second.

    ``fixed_s``: seconds a round costs whatever γ (round trip and verification); ``draft_s``:
    seconds per drafted token. With τ = fixed_s / draft_s − 1,
    γ₀ = (1 + W₋₁(−α^τ/e)) / ln α − τ − 1, then the better of floor and ceiling; tokens a second
    rise up to γ₀ and fall after it, so ``longest`` merely cuts. Raises ValueError for impossible
    costs, and where no length is the best (α = 1 or drafting is free) and ``longest`` is not given.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    if not (0.0 <= fixed_s < math.inf and 0.0 <= draft_s < math.inf):
        raise ValueError(f"costs must be at least 0 seconds, not {fixed_s} and {draft_s}")
    if longest is not None and longest < 1:
        raise ValueError(f"the longest draft must be at least 1, not {longest}")
    # For τ ≤ 0 no γ beats 1: E(γ+1) / E(γ) ≤ 1 + 1/(γ+1) ≤ the ratio of costs.
    if alpha == 0.0 or (fixed_s <= draft_s and draft_s > 0.0):
        return 1
    tau = fixed_s / draft_s - 1.0 if draft_s > 0.0 else math.inf
    if alpha == 1.0 or tau == math.inf:
        if longest is None:
            raise ValueError(
                "a longer draft is always better where all is accepted or drafting is free; "
                "give a longest draft"
            )
        return longest
    decay = -math.log(alpha)
    # The closed form with d − u = ln(1 + d) put in: the large terms cancel on paper.
    gamma = math.log1p(lambert_w_minus1(decay * tau)) / decay - 1.0
    if longest is not None and gamma >= longest:
        return longest
    floor = max(1, math.floor(gamma))
    # floor + 1 and not the ceiling: rounding may have put γ₀ just below a whole number.
    candidates = (floor, floor + 1) if longest is None or floor < longest else (floor,)
    return max(candidates, key=lambda g: expected_tokens(alpha, g) / (fixed_s + g * draft_s))


@dataclass(frozen=True)
class Costs:
    """What things cost, in seconds."""

    draft_s: float  # one draft forward
    target_s: float  # one target forward for one token, as the target alone would do
    verify_s: float  # one target forward over a block
    rtt_s: float = 0.0  # the round trip of an empty message
    uplink_s: float = 0.0  # serialising one drafted token's bits
    message_s: float = 0.0  # serialising what a round sends besides: headers up, the verdict down

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 seconds, not {value}")
        if self.target_s == 0.0:
            raise ValueError("target_s must be above 0 seconds")

    @property
    def fixed_s(self) -> float:
        """T₀: what a round of stop-and-wait costs whatever its length."""
        return self.rtt_s + self.message_s + self.verify_s

    @property
    def drafted_s(self) -> float:
        """c: what a drafted token costs in stop-and-wait."""
        return self.draft_s + self.uplink_s

    @property
    def pace_s(self) -> float:
        """Seconds between two drafted tokens when drafting and sending overlap."""
        return max(self.draft_s, self.uplink_s)

    @property
    def correction_s(self) -> float:
        """Seconds from the end of a token's drafting until its verdict is there, nothing queued."""
        return min(self.draft_s, self.uplink_s) + self.fixed_s


def stop_and_wait_time(alpha: float, gamma: int, costs: Costs) -> float:
    """Seconds per token of rounds of γ: (γ c + T₀) / E[tokens]."""
    return (gamma * costs.drafted_s + costs.fixed_s) / expected_tokens(alpha, gamma)


def run_ahead_time(alpha: float, costs: Costs) -> float:
    """The renewal bound on run-ahead's seconds per token: no window, one verdict per rejection.

    An epoch is n tokens, geometric with mean 1/(1 − α), the last of them rejected and replaced by
    the correction. Drafting and sending overlap, so its last token has left the device after
    n·max(t_draft, t_up) + min(t_draft, t_up), and the correction is there a round trip and a
    verification later. With no uplink time it is t_draft + (1 − α)(RTT + t_verify). A serial
    verifier that is busy with an earlier block when the rejected token comes costs more.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    return costs.pace_s + (1.0 - alpha) * costs.correction_s


def run_ahead_window(costs: Costs) -> int:
    """Drafted tokens in flight that keep the device drafting until the first one's verdict."""
    if costs.pace_s == 0.0:
        raise ValueError("a window needs a draft time or an uplink time above 0 seconds")
    return 1 + math.ceil(costs.correction_s / costs.pace_s)


def stream_time(costs: Costs, tokens: int | None = None) -> float:
    """Seconds per token when the target writes alone; the round trip, once, is left out or shared.

    ``tokens``: over so many tokens the round trip is paid once.
    """
    return costs.target_s + (0.0 if tokens is None else costs.rtt_s / tokens)


def total_variation(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """TV(p, q) = ½ Σ |p − q|, for distributions (V,)."""
    return float(0.5 * np.abs(p - q).sum())


def best_acceptance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Σ min(p, q) = 1 − TV, which no lossless scheme of one draft exceeds; ``topk`` reaches it."""
    return float(np.minimum(p, q).sum())


def acceptance_after(accepted: float, overlap: float) -> float:
    """What a target accepts of a draft that ``overlap``s with one of which it accepts ``accepted``.

    1 − √((1 − accepted)² + (1 − overlap)²): what rounding does to a draft's rows has nothing to do
    with what else they lack, so the two losses add in quadrature. (The triangle's inequality alone
    would allow anything from their difference to their sum.) Raises ValueError outside [0, 1].
    """
    for value in (accepted, overlap):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"an acceptance must be in [0, 1], not {value}")
    return max(0.0, 1.0 - math.hypot(1.0 - accepted, 1.0 - overlap))


def sample_and_match_acceptance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Σ p q: both ends draw on their own, and accept where they agree."""
    return float((p * q).sum())


def coupled_acceptance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """P[argmax(ln p + g) = argmax(ln q + g)] for shared Gumbel noise g, exactly.

    Σ_x 1 / Σ_y max(p_y/p_x, q_y/q_x) (Moulton and Jiang, arXiv 1809.04052, definition 1), in
    O(V log V): sorted by p/q, the first ratio is the greater from x on, the second before it.
    """
    x, sums = _greater(p, q)
    return float((p[x] / sums).sum())


def _greater(
    p: NDArray[np.float64], q: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens x that both can draw, and Σ_y max(p_y, q_y p_x / q_x) of each."""
    both = (p > 0) & (q > 0)
    x = np.flatnonzero(both)
    x = x[np.argsort(p[x] / q[x], kind="stable")]
    # Tokens that only one of the two can draw count in that one's sum, wherever x stands.
    after = np.cumsum(p[x][::-1])[::-1] + p[~both].sum()
    before = np.cumsum(q[x]) - q[x] + q[~both].sum()
    return x, after + before * (p[x] / q[x])


def candidates_acceptance_bound(
    p: NDArray[np.float64], q: NDArray[np.float64], count: int
) -> float:
    """A lower bound of P[p's winner is among q's ``count`` first arrivals], for one shared noise.

    1 − Σ_j p_j (1 − 1 / Σ_i max(p_i, q_i p_j / q_j))^count (Kobus and Gündüz, arXiv 2504.15475),
    in O(V log V); with a ``count`` of 1 it is ``coupled_acceptance``, exactly. A token that q never
    draws is never among them. Raises ValueError for a ``count`` below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    x, sums = _greater(p, q)
    return float(1.0 - p[(p > 0) & (q <= 0)].sum() - (p[x] * (1.0 - 1.0 / sums) ** count).sum())


def coupled_acceptance_bound(best: float) -> float:
    """(1 − TV) / (1 + TV), the least that ``coupled`` accepts where Σ min(p, q) is ``best``."""
    if not 0.0 <= best <= 1.0:
        raise ValueError(f"an acceptance must be in [0, 1], not {best}")
    return best / (2.0 - best)


def truncation_loss_bound(dropped: float, k: int, total: int) -> float:
    """The most acceptance that Top-K and a lattice of sum ``total`` can cost, at least 0.

    Σ min(p, ·) moves by at most TV(q, q̂): the mass that truncation drops, and k / (4 total) for
    rounding by largest remainders (m of k entries go up, so TV·total ≤ m (k − m) / k).
    """
    return dropped + k / (4.0 * total)
