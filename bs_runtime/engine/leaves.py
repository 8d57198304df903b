"""Which candidates beside a block are worth a row of a step: no I/O, no clock.

A leaf saves a step where the block comes to be refuted at the token that it stands beside, and it
is the token in its place. That is as likely as the tokens before it, α for each, and as leaves that
are reached have been so far. What its row costs is what it costs the others (see ``prices``), and
the time by which it makes the step longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from bs_runtime.engine.late import Leaf
from bs_runtime.engine.patience import MEMORY
from bs_runtime.engine.prices import Prices
from draftlink.planning import theory

PRIOR_RIGHT, PRIOR_REACHED = 0.6, 4.0  # as if so many had been right of so many that were reached


class Leaves:
    """One conversation's. ``prices``: everybody's."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._right, self._reached = PRIOR_RIGHT, PRIOR_REACHED

    def judged(self, reached: int, right: int) -> None:
        """The text has come to the places of so many candidates, and has so many of them.

        Whether a step was given them or not: else one that is refused its row would never be
        found to be better than it was thought to be.
        """
        fades = MEMORY**reached
        self._right = fades * self._right + right
        self._reached = fades * self._reached + reached

    def worth(self, leaves: Sequence[Leaf], alpha: float, count: int) -> list[Leaf]:
        """Those that are worth their rows, beside a block of ``count`` tokens.

        ``alpha``: how likely each of those is right, if those before it are.
        """
        if not leaves:
            return []
        prices, chance = self._prices, self._right / self._reached
        dear = prices.tokens(2) - prices.tokens(1)
        if prices.step_s > 0.0:  # of the tokens that the step brings
            brings = theory.expected_tokens(min(alpha, 0.99), count)
            dear += brings * prices.wary_s / prices.step_s
        return [leaf for leaf in leaves if alpha**leaf.beside * chance >= dear]
