"""Which candidates are proposed beside the tokens of a path, where both ends write: no I/O.

The noise that both ends share ranks the draft's tokens: the second to arrive is the target's own
where the first is not, half of the time. How likely that is shows in how much later it arrives:
shortly behind the first it is as good as that, far behind it is hardly ever right. So candidates
are counted by class of log(t2 / t1), from a curve to begin with, and by what the text then says. A
candidate is proposed where its token is worth what its row costs of a step that checks the path,
and with the tokens before it worth its bits.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from device_runtime.drafting.controller import Controller
from device_runtime.drafting.drafter import Proposal
from draftlink.distribution.sparse import Drafted
from draftlink.planning import theory
from draftlink.protocol.control import Welcome

# Candidates beside a token, of ``hot.MAX_BESIDE``: see docs/benchmarks.md for what one brings.
MOST = 1
EDGES = (0.1, 0.3, 0.6, 1.0, 1.5, 2.2, 3.0, 4.0)  # of log(t2 / t1), between classes
FIRST = 8.0  # a class begins as if so many had been judged
OFFSET, SLOPE = -0.35, 0.75  # of log(t2 / t1), in the log odds that the first is right at first
SHARE = (0.55, 0.2, 0.1)  # of those where it is not, in which the next ones are
LEAST = 0.01  # tokens of text that a candidate must save to be worth its bits


class Leaves:
    """A generation's. ``controller``: knows what has been measured."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        centres = (0.05, *map(_middle, EDGES, EDGES[1:]), 5.0)
        wrong = [1.0 / (1.0 + math.exp(OFFSET + SLOPE * centre)) for centre in centres]
        self._right = [[FIRST * share * each for each in wrong] for share in SHARE]
        self._seen = [[FIRST] * len(wrong) for _ in SHARE]

    def chance(self, rank: int, later: float) -> float:
        """How likely the text has candidate ``rank``, from 0, that arrives so much ``later``."""
        kind = bisect_right(EDGES, math.log(max(later, 1.0)))
        return self._right[rank][kind] / self._seen[rank][kind]

    def chances(self, proposal: Proposal) -> list[float]:
        """How likely a drafted token is right, where what is before it is, and those beside it."""
        first = self._controller.estimates.acceptance.probability(proposal.chance)
        each = [self.chance(rank, later) for rank, later in enumerate(proposal.later)]
        return [first, *(min(chance, 1.0 - first) for chance in each)]

    def met(self, proposal: Proposal, token: int) -> None:
        """The text has ``token`` where something was proposed behind what it has, too."""
        for rank, later in enumerate(proposal.later[: len(SHARE)]):
            kind = bisect_right(EDGES, math.log(max(later, 1.0)))
            self._seen[rank][kind] += 1.0
            self._right[rank][kind] += proposal.drafted.beside[rank] == token

    def proposed(
        self, proposals: Sequence[Proposal], ahead: int, told: Welcome, most: int
    ) -> list[Drafted]:
        """See ``chosen``; ``told``: what the base station says that steps and rows take."""
        here = self._controller.estimates
        step_s = here.verify_s or told.step_us * 1e-6
        row = told.row_us * 1e-6 / step_s if step_s else 0.0
        return self.chosen(proposals, ahead, here.acceptance.alpha, row, most)

    def chosen(
        self, proposals: Sequence[Proposal], ahead: int, alpha: float, row: float, most: int
    ) -> list[Drafted]:
        """The tokens that are proposed next, each with the candidates that pay.

        ``ahead``: tokens of the path before them that the text has not reached. ``alpha``: how
        likely a token is right. ``row``: what a row costs of a step. ``most``: ids in a message.
        """
        room = most - len(proposals)
        dear = row * theory.expected_tokens(min(alpha, 0.99), ahead + len(proposals))
        found = []
        for place, (drafted, _, later) in enumerate(proposals, ahead):
            reached = alpha**place
            pays = 0
            for rank in range(min(len(later), MOST, room)):
                chance = self.chance(rank, later[rank])
                if chance < dear or reached * chance < LEAST:
                    break
                pays += 1
            room -= pays
            found.append(Drafted(drafted.token, beside=drafted.beside[:pays]))
        return found


def _middle(a: float, b: float) -> float:
    return (a + b) / 2.0
