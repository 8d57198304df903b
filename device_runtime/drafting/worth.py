"""What pays while both ends write: the length of a turn, of a group, of the window, and whether.

No I/O and no clock; all times are in seconds. Where both ends share a machine they take turns, and
a turn is as long as brings the most tokens a second (``theory.best_draft_length``): for that a step
is told apart from what each proposed token adds to it.
"""

from __future__ import annotations

import math

from device_runtime.drafting.controller import LONGEST
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.levels import Level
from draftlink.planning import theory

BEGUN = 1.25  # times the price: a path goes on until it is known to be wrong
MOST = 64  # tokens of a path that the text has not reached at the device
EARLY = 4  # tokens that are proposed before anything is known of times, or in turns of rows
WAITS = 2.5  # steps in which a turn is to be over: a base station waits for four at the most
CHEAP = 4.0  # round trips that a forward takes at least, for turns to cost little more than it
SEEN = 3  # forwards, before which it is not judged whether drafting pays: the first may be slow


class Worth:
    """Of one generation. ``gamma``: the length of a turn, if the caller has fixed it."""

    def __init__(
        self,
        estimates: Estimates,
        gamma: int | None,
        *,
        shared: bool,
        step_s: float,
        row_s: float,
        price: float,
    ) -> None:
        """``shared``: both ends are on one machine. ``step_s`` and ``row_s``: what the base station
        says that a step takes, and each further row. ``price``: see ``paths``."""
        self._estimates, self._gamma, self._shared = estimates, gamma, shared
        self._step_s, self._row_s, self._price = step_s, row_s, price
        self._between = Level()  # of a turn, what is neither drafting nor the step
        self.slowed = False  # forwards slow the steps of a base station whose address is here
        self.tries = False  # turns are taken to see whether both ends slow one another
        self.rare = False  # hardly anything that is proposed comes to be accepted

    @property
    def turns(self) -> bool:
        """Whether both ends take turns."""
        slowed = self.slowed or self._estimates.draft.slowdown > 1.0
        return self._shared or slowed or self.tries

    def told(self, *, slows: bool, follows: bool) -> None:
        """A step's times are known: whether it is seen at an address here that forwards slow them.

        Turns are tried where it takes them to compare, and they cost little: where a round trip is
        as short as on one machine. Who ``follows`` does not, as it drafts for little anyway.
        """
        here, self.slowed = self._estimates, slows
        cheap = not self._shared and CHEAP * here.rtt.typical <= here.draft.typical
        self.tries = cheap and not follows and here.draft.lacks

    def turned(self, between_s: float) -> None:
        """A turn is over: what it took beside the draft's forwards and the step."""
        self._between.add(between_s)

    @property
    def trip_s(self) -> float:
        """A round trip; in turns all that one takes beside drafting and the step, once it is known:
        to hand over and to wake up count, too."""
        here = self._estimates
        return self._between.typical if len(self._between) >= SEEN else here.rtt.mean

    def costs_s(self) -> tuple[float, float]:
        """A forward of the draft's, and a step of the base station's; 0 for what is not known."""
        here, turns = self._estimates, self.turns
        draft_s = here.draft.mean_s(beside=not turns, slowdown=here.draft.slowdown)
        return draft_s, here.verify_s or self._step_s

    def _turn_s(self) -> tuple[float, float]:
        """What a step takes without proposed tokens, and what each of them adds to it, which is no
        more than such a step."""
        rows = self._estimates.rows
        step_s = rows.mean_s or self.costs_s()[1]
        row_s = min(rows.each_s(self._row_s), step_s / (1.0 + rows.tokens))
        return step_s - rows.tokens * row_s, row_s

    @property
    def group(self) -> int:
        """Tokens that are proposed at once."""
        return self._group(self._estimates.acceptance.alpha)

    def _group(self, alpha: float) -> int:
        """The same at an acceptance rate."""
        draft_s, step_s = self.costs_s()
        if self._gamma is not None:
            return self._gamma
        if not draft_s or not step_s or (self.turns and self.unsure):
            return EARLY
        lone_s, row_s = self._turn_s()
        pays = theory.best_draft_length(
            alpha,
            fixed_s=self.trip_s + lone_s,
            draft_s=draft_s + row_s,
            longest=self._in_time(draft_s, lone_s),
        )
        pays = min(pays, self._deep)
        if self.turns:  # before any turn it is not known what a row takes
            return pays if self._estimates.rows.tokens else min(pays, EARLY)
        return max(1, min(pays, round(step_s / (2.0 * draft_s))))

    def _in_time(self, draft_s: float, lone_s: float) -> int:
        """Tokens that are drafted before the base station gives up waiting for them."""
        if not self.turns:
            return LONGEST
        return max(1, min(LONGEST, int((WAITS * lone_s - self.trip_s) / draft_s)))

    @property
    def most(self) -> int:
        """Tokens of a path that may be ahead of the text as the device knows it.

        As many as cover what is under way, and what a base station may be waiting for, which are
        as many as stand on average: it would wait in vain for a device behind a full window.
        """
        return self._ahead(min(round(1.0 / (1.0 - self._estimates.acceptance.alpha)), LONGEST))

    def _ahead(self, waits: int) -> int:
        """The same where a base station may be waiting for so many."""
        draft_s, step_s = self.costs_s()
        if self.turns or not draft_s or self.rare:
            return self.group
        under_way = math.ceil((self._estimates.rtt.mean + step_s) / draft_s)
        return min(MOST, max(self.group, waits) + under_way, max(self.group, self._deep))

    @property
    def _deep(self) -> int:
        """Tokens of a path of which the last still saves its price, if it comes in time."""
        if self._price <= 0.0:
            return MOST
        deep = math.log(self._price) / math.log(self._estimates.acceptance.alpha)
        return max(1, min(MOST, int(deep)))

    @property
    def unsure(self) -> bool:
        """Whether hardly anything is known of what things cost."""
        return len(self._estimates.draft) < SEEN or not self.costs_s()[1]

    def pays(self, alpha: float, lasts: float = 1.0) -> bool:
        """Whether a path that is begun now saves its price, at an acceptance rate, where a forward
        takes ``lasts`` times as long as it does.

        The base station writes on while what the device knows is on its way here, and what is
        drafted on its way there. Token j of a path is in time for a step if j times what a step
        takes longer than a draft makes up for the round trip and a step: if all before it are
        right, that is, α^j. From there on each that is right, 1/(1 − α) on average, saves as much
        of a step. In turns nothing is overtaken, if the base station waits: it does where a turn
        brings more in its time than its own steps would.
        """
        draft_s, step_s = self.costs_s()
        draft_s *= lasts
        if self.unsure or self.tries or self._price <= 0.0:
            return True
        if self.turns and self._gamma is not None:
            return True
        if self.turns:
            lone_s, row_s = self._turn_s()
            tokens = self._group(alpha)
            turn_s = self.trip_s + lone_s + tokens * (draft_s + row_s)
            return theory.expected_tokens(alpha, tokens) * lone_s >= turn_s
        late_s, saves_s, most = self._estimates.rtt.mean + step_s, step_s - draft_s, self._ahead(0)
        if saves_s <= 0.0 or most < late_s / step_s:  # by so much the text is ahead
            return False
        stands = math.pow(alpha, late_s / saves_s) / (1.0 - alpha)
        return stands * saves_s / step_s >= BEGUN * self._price * most
