"""Draft lengths from measured costs."""

from __future__ import annotations


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens a round writes, (1 − α^(γ+1)) / (1 − α) (arXiv 2211.17192, equation 1)."""
    if not 0.0 <= alpha <= 1.0 or gamma < 0:
        raise ValueError(f"alpha must be in [0, 1] and gamma at least 0, not {alpha} and {gamma}")
    if alpha == 1.0:
        return float(gamma + 1)
    return float((1.0 - alpha ** (gamma + 1)) / (1.0 - alpha))


def best_draft_length(alpha: float, *, fixed_s: float, draft_s: float, longest: int) -> int:
    """The γ in 1..longest with the most tokens a second.

    ``fixed_s``: seconds a round costs whatever γ (round trip and verification); ``draft_s``:
    seconds per drafted token. An integer search: exact, and cheaper than W₋₁.
    """

    def rate(gamma: int) -> float:
        return expected_tokens(alpha, gamma) / max(fixed_s + gamma * draft_s, 1e-12)

    return max(range(1, longest + 1), key=rate)
