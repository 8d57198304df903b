"""What the link and the two models cost, and how much is accepted: running estimates, no clock.

Samples come in as values. A rare outlier (a retransmission, an outage, a machine that slept) moves
no estimate far; a lasting change moves all of them within some tens of samples.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from device_runtime.drafting.levels import MEMORY, PUNCTUAL, Level, Work
from device_runtime.drafting.rows import Rows

EDGES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)  # of the draft's probability
MIDDLES = tuple((low + high) / 2.0 for low, high in pairwise((0.0, *EDGES, 1.0)))
UNSURE = 1.5  # times as often as all tokens are those rejected that the draft gave next to nothing
HOPE = 0.98  # the acceptance rate that is hoped for, at the most
TEXT = 30.0  # judged tokens as which all that were before a text weigh, at the most
PRIOR_JUDGED = 4.0  # as if so many tokens of each chance had been judged before the first
PRIOR_ACCEPTED, PRIOR_REJECTED = 3.0, 1.0  # as if so many tokens had been judged before the first


class Acceptance:
    """How likely a drafted token is to be accepted, if the tokens before it are."""

    def __init__(self) -> None:
        self._accepted = 0.0
        self._rejected = 0.0
        self._squares = 0.0  # of the shares that ``_accepted`` is the sum of
        # By the draft's own probability for a token.
        self._accepted_of = [0] * len(MIDDLES)
        self._judged_of = [0] * len(MIDDLES)
        self.reached: list[int] = []  # by position behind the last correction: judged
        self.stood: list[int] = []  # and accepted

    def judged(
        self, position: int, chances: Sequence[float], accepted: int, *, rejected: bool
    ) -> None:
        """Of a block from ``position`` on, behind the last correction, ``accepted`` are.

        ``chances``: the draft's own probabilities of its tokens. ``rejected``: one more was judged,
        and was not accepted. Those behind it were not judged.
        """
        for index in range(accepted + rejected):
            place = position + index
            self.reached += [0] * (place + 1 - len(self.reached))
            self.stood += [0] * (place + 1 - len(self.stood))
            passes = place < position + accepted
            self.reached[place] += 1
            self.stood[place] += passes
            self.foretold(chances[index], passes)

    def foretold(self, chance: float, accepted: bool) -> None:
        """A token that the target wrote alone is, or is not, what the draft proposes."""
        index = bisect_right(EDGES, chance)
        self._accepted_of[index] += accepted
        self._judged_of[index] += 1
        self.told(float(accepted))

    def told(self, share: float) -> None:
        """The target drew a token y by itself; ``share``: min(1, q(y)/p(y)), q the draft's row.

        Over the target's draws that is Σ min(p, q) on average: what speculative sampling accepts of
        the draft's own (arXiv 2211.17192, corollary 3.6), though nothing was drafted.
        """
        self._accepted = MEMORY * self._accepted + share
        self._rejected = MEMORY * self._rejected + 1.0 - share
        self._squares = MEMORY * self._squares + share * share

    def begin(self) -> None:
        """A text begins, an easier or a harder one than those before. ``alpha`` stays as it is.

        Where texts differ by σ and their tokens by s, those before are worth (s/σ)² = (.4/.07)².
        """
        prior = PRIOR_ACCEPTED + PRIOR_REJECTED
        kept = min(1.0, (TEXT + prior) / (self.weight + prior))
        self._accepted = kept * (self._accepted + PRIOR_ACCEPTED) - PRIOR_ACCEPTED
        self._rejected = kept * (self._rejected + PRIOR_REJECTED) - PRIOR_REJECTED
        self._squares = kept * (self._squares + PRIOR_ACCEPTED) - PRIOR_ACCEPTED

    def restart(self, accepted: int, rejected: int) -> None:
        """The draft has become another one: of the last tokens it has so many right, others wrong.

        They were picked for what became of them, and may have been bad luck all the same: all that
        was noted before weighs as much as they do, and no more.
        """
        last = accepted + rejected
        kept = last / max(self.weight, last)
        self._accepted = kept * self._accepted + accepted
        self._rejected = kept * self._rejected + rejected
        self._squares = kept * self._squares + accepted
        self._accepted_of = [0] * len(MIDDLES)
        self._judged_of = [0] * len(MIDDLES)

    def probability(self, chance: float) -> float:
        """How likely a token is to be accepted that the draft gave the probability ``chance``.

        Before such tokens have been judged it is told by all others: of those that a draft is sure
        of hardly any are rejected, and up to half as many again as of all of those that it is not.
        """
        index = bisect_right(EDGES, chance)
        rejected = min(UNSURE * (1.0 - MIDDLES[index]) * (1.0 - self.alpha), 1.0)
        seen = self._judged_of[index] + PRIOR_JUDGED
        return (self._accepted_of[index] + PRIOR_JUDGED * (1.0 - rejected)) / seen

    @property
    def weight(self) -> float:
        """Judged tokens that the estimate rests on."""
        return self._accepted + self._rejected

    @property
    def alpha(self) -> float:
        """The acceptance rate per judged token; never 0 or 1."""
        return (self._accepted + PRIOR_ACCEPTED) / (self.weight + PRIOR_ACCEPTED + PRIOR_REJECTED)

    def hoped(self, errors: float = 1.0) -> float:
        """``alpha`` if it is better than it looks by so many standard deviations."""
        return min(self.alpha + errors * self.error, HOPE)

    @property
    def error(self) -> float:
        """The standard deviation of ``alpha``.

        Of tokens that were judged that of the Beta law that it is the mean of. Shares tell more.
        """
        total = self.weight + PRIOR_ACCEPTED + PRIOR_REJECTED
        variance = (self._squares + PRIOR_ACCEPTED) / total - self.alpha**2
        return math.sqrt(max(variance, 0.0) / (total + 1.0))


@dataclass
class Estimates:
    """All that the choice of a mode rests on. A device keeps one for each of its connections."""

    # One of a few that stalled would end drafting for many texts: who rests measures no round trip.
    rtt: Level = field(default_factory=lambda: Level(punctual=PUNCTUAL))
    draft: Work = field(default_factory=Work)  # one draft forward of one token
    verify: Work = field(default_factory=Work)  # one verification, from its first step on
    rows: Rows = field(default_factory=Rows)  # and what of it each token takes
    queue: Level = field(default_factory=Level)  # what a draft waited before it
    target: Level = field(default_factory=Level)  # between two tokens of a stream
    acceptance: Acceptance = field(default_factory=Acceptance)
    told_step_s: float = 0.0  # what the base station says that a step takes it; 0: it does not

    def undisturbed(self) -> None:
        """Both ends may have slowed one another, and from here on they take turns."""
        if len(self.verify):
            alone_s = self.verify.alone_s
            self.verify.became(alone_s or self.verify.mean / self.draft.slowdown)
        self.rows.forget()

    @property
    def stream_s(self) -> float:
        """Between two tokens of a stream, which makes up for stalls; 0 while nothing tells.

        No less than verifications show, whatever was told: that was measured at a quiet time.
        """
        return self.target.typical or max(self.told_step_s, self.rows.lone_s) or self.verify.mean

    @property
    def verify_s(self) -> float:
        """A verification; before the first one, what the target takes for a token."""
        return self.verify.mean if len(self.verify) else self.stream_s

    def costs_s(self, *, beside: bool) -> tuple[float, float]:
        """A draft forward and a verification, if the two go on at once (``beside``) or in turns.

        A factor by which drafting beside the base station's work is slower is the other end's too.
        """
        slowdown = self.draft.slowdown
        draft_s = self.draft.mean_s(beside=beside, slowdown=slowdown)
        verify_s = self.verify.mean_s(beside=beside, slowdown=slowdown)
        return draft_s, verify_s or self.verify_s

    def round_s(self) -> tuple[float, float]:
        """A round of stop-and-wait: what it costs whatever its length, and each drafted token."""
        draft_s, verify_s = self.costs_s(beside=False)
        rows_s = min(self.rows.tokens * self.rows.token_s, verify_s)
        return self.rtt.mean + verify_s - rows_s, draft_s + self.rows.token_s

    @property
    def stall_s(self) -> float:
        """By how much a message is late on average, one way: lost packets come again, and later."""
        return self.rtt.excess / 2.0
