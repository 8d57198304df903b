"""Whether a draft has become another one: more is rejected than what it was would explain.

Page's cumulative sum (Biometrika 41, 1954): how much likelier the fates of the last tokens are if
each is accepted half as often as was foretold of it. What is rejected where the draft was sure says
much, what it was unsure of next to nothing; so a streak of bad luck is told from a text that has
come to what the draft does not know. No I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from device_runtime.drafting.estimators import Acceptance

HALF = 0.5  # of what was foretold: the other draft that is looked for
SUREST = 0.95  # as likely to be accepted as a token is taken to be, at the most
CERTAIN = math.log(100.0)  # so much likelier the other draft must have made it


class Refuted:
    """Looks at what becomes of drafted tokens before ``acceptance`` is told of it."""

    def __init__(self, acceptance: Acceptance) -> None:
        self._acceptance = acceptance
        self._sum = 0.0
        self._accepted = self._rejected = 0  # tokens since it was 0

    def judged(
        self, position: int, chances: Sequence[float], accepted: int, *, rejected: bool
    ) -> None:
        """A block has been: see ``Acceptance.judged``, which hears of a change that is certain."""
        for place in range(accepted + rejected):
            foretold = min(self._acceptance.probability(chances[place]), SUREST)
            stands, other = place < accepted, HALF * foretold
            self._sum += math.log(HALF if stands else (1.0 - other) / (1.0 - foretold))
            self._accepted += stands
            self._rejected += not stands
            if self._sum <= 0.0:
                self._clear()
        self._acceptance.judged(position, chances, accepted, rejected=rejected)
        if self._sum >= CERTAIN:
            self._acceptance.restart(self._accepted, self._rejected)
            self._clear()

    def _clear(self) -> None:
        self._sum = 0.0
        self._accepted = self._rejected = 0
