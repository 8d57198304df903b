"""The window while both ends write: what the device drafts and proposes, without I/O or an id.

The device drafts behind the text that it knows, on one *path*. What the base station writes arrives
meanwhile; as long as the path agrees with it, the path goes on, and where it does not, or has been
overtaken, a new one begins behind the text.

Where both ends share a machine (the address says so, or both are seen to slow one another), or to
see whether they do, they take turns: the device drafts as many tokens as pay
(``theory.best_draft_length``), proposes them, and rests until it hears what came of them; the
prompt and a first step are the base station's. Elsewhere it drafts on under a window that covers
what is under way, and proposes in groups of about what it drafts in half a step of the target's.

All of it is weighed by one price: of the text that a drafted token saves the base station's steps
it must bring ``price`` tokens. So nothing is drafted that is hardly likely to stand, and no path is
begun that the text would overtake on the way: the device then follows it, in forwards of many
tokens, and looks now and then whether its proposals are better than it thought. Where hardly any
comes to be accepted all the same, it tries again more and more rarely. All times are in seconds.

Where nothing is heard for long the path goes on, and is shown as it grows, if the caller allows
that: what is drafted then is proposed like anything else once the link is back.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.actions import Action, Draft, Guess, Propose, Show, Wait
from device_runtime.drafting.beside import Beside
from device_runtime.drafting.blocks import Proposed
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Counts, Limits
from device_runtime.drafting.epochs import BACKLOG
from device_runtime.drafting.offline import Offline
from device_runtime.drafting.trials import REST, Trials
from device_runtime.drafting.worth import Worth
from draftlink.protocol.both import MAX_LIVE

PRICE = 0.02  # tokens of text that a drafted token must save, unless the caller says another
LONG = 192  # tokens of a path, after which a new one begins
LOOKS = (8, 64)  # tokens of text between two looks while it follows: where there is hope, or none
LOOKS_DEAR = 32  # the same with hope, where a look slows the base station's steps, or may
TRUST = 0.5  # standard errors by which turns go on where they do not pay by the estimate itself
BRIEF_S = 0.008  # in turns, forwards that together take no longer are one job for the worker


class Paths:
    """One generation's window. ``length`` tokens of history are there when it begins.

    Of the ``controller`` it takes estimates, and the length of a turn if the caller has fixed it.
    """

    def __init__(
        self,
        controller: Controller,
        limits: Limits,
        length: int,
        *,
        shared: bool,
        here: bool = False,
        step_s: float = 0.0,
        row_s: float = 0.0,
        price: float = PRICE,
        started_s: float = 0.0,
        offline_after_s: float | None = None,
    ) -> None:
        """``shared``: the base station is on this machine; ``here``: its address is, though what
        delays behind it may lead elsewhere. ``step_s`` and ``row_s``: what it says that a step
        takes, and each further row.

        ``price``: tokens of text that a drafted token must save; 0 weighs nothing. ``started_s``:
        when the generation began. ``offline_after_s``: of silence, after which what the draft goes
        on with is shown; None for never.
        """
        self._started_s = started_s
        self._offline = Offline(offline_after_s)
        self._trials = Trials()
        self._here = here
        self._estimates = controller.estimates
        self._beside = Beside(self._estimates.draft)
        self._counts = Counts(limits, length)
        self.worth = Worth(self._estimates, controller.gamma, shared=shared, step_s=step_s,
                            row_s=row_s, price=price)  # fmt: skip
        self._chances: list[float] = []  # of the path's tokens behind the text
        self._ends = False  # one of them is an EOS
        self._sent = 0  # of them, those that were proposed
        self._age = 0  # tokens of the path that the text has reached
        self._asked_s: float | None = None  # since when tokens are being drafted
        self._asked = self._fed = 0  # how many, and how many are fed before the first comes
        self._void = False  # it is drafted for a path that was left
        self.follows = False  # it proposes nothing
        self._guesses = False  # that was decided before enough was known of costs
        self._bounded = False  # the round trip, by the first token
        self._proposed_s = started_s  # when something was proposed last
        self._written_s: float | None = None  # when tokens of the text came last
        self._spent_s = 0.0  # in forwards since then
        self._decide()

    @property
    def mode(self) -> str:
        """Who writes: ``both``, or ``stream`` once the draft's context is full."""
        return "stream" if self._counts.room <= 0 < self._counts.left else "both"

    @property
    def turns(self) -> bool:
        """Whether both ends take turns."""
        return self.worth.turns

    @property
    def rests(self) -> bool:
        """Whether nothing is drafted, but to look, since it would not pay."""
        return self.follows or self._counts.length < self._trials.resumes

    def due(
        self, now: float, *, cached: int, connected: bool = True, unread: bool = False
    ) -> list[Action]:
        """What is to be done at ``now``; ``cached`` tokens are in the draft's cache."""
        ahead, actions = len(self._chances), list[Action]()
        rests = not ahead and (self._opens or self._counts.length < self._trials.resumes)
        if (not ahead or self._guesses) and self._asked_s is None and not rests:
            self._guesses = self.worth.unsure or self.worth.tries
            self._decide()
        room = min(1 if self.follows else self.worth.most, self._counts.room)
        # In turns it rests until it hears what came of what it has proposed: all of it.
        full = ahead >= room or self._ends or (self.turns and self._sent > 0)
        held = self.follows and ahead <= 1  # more was drafted while nothing was heard
        fresh = 0 if held else min(ahead, MAX_LIVE) - self._sent
        # Beyond the window, where nothing is heard for long, only groups are worth their frames.
        last = self._ends or ahead >= self._counts.room or (full and (self.turns or ahead == room))
        sends = fresh and (last or fresh >= self.worth.group or (not full and self._misses(now)))
        if connected and not unread and sends:
            self._sent, self._proposed_s = self._sent + fresh, now
            message = self._counts.limits.message
            for begin in range(0, fresh, message):
                tokens = min(message, fresh - begin)
                actions.append(Propose(tokens, goes_on=not (full and self.turns)))
        if self._asked_s is None and not full and not unread and not rests:
            actions.append(self._draft(now, cached, self._at_once(room - ahead)))
        if actions:
            return actions
        alone_s = None if unread else self._offline.begins_s(self._started_s)
        if alone_s is not None and now >= alone_s:
            if (shown := self._alone(now, cached)) is not None:
                return [shown]
            alone_s = None  # there is no more than that, for now
        return [Wait(alone_s)]

    @property
    def _opens(self) -> bool:
        """Whether turns are yet to begin: the base station reads the prompt, to which reading it
        here, too, would add, and makes a step alone, which tells what one takes."""
        return self.turns and self._counts.length <= self._counts.limits.begins + 1

    def _decide(self) -> None:
        """Whether it pays to propose anything."""
        told, trusts = self._estimates.acceptance, self.turns and not self.follows
        # Turns that were given up are hardly tried any more.
        self.follows = not self.worth.pays(told.hoped(TRUST) if trusts else told.alpha)

    def _misses(self, now: float) -> bool:
        """Whether the next token would be too late for a step that those there are in time for."""
        draft_s, step_s = self.worth.costs_s()
        if self.turns or not draft_s or not step_s:
            return False
        ready_s = draft_s + (now if self._asked_s is None else self._asked_s)
        return self._beside.misses(now, ready_s, step_s, self._estimates.rtt.typical)

    def _draft(self, now: float, cached: int, tokens: int = 1) -> Draft:
        self._asked_s, self._asked = now, tokens
        self._fed = self._counts.length + len(self._chances) - cached
        return Draft(tokens, self._counts.limits.begins, not self._chances)

    def _at_once(self, most: int) -> int:
        """Up to ``most`` tokens that are drafted without a look at what has come: in turns it is
        nothing, and to hand a small draft's forward over and back takes as long as it."""
        draft_s, _ = self.worth.costs_s()
        alone = not self.turns or self.follows or not draft_s
        return 1 if alone else max(1, min(most, int(BRIEF_S / draft_s)))

    def _alone(self, now: float, cached: int) -> Show | Draft | None:
        """While nothing is heard: what of the path is shown next, or is drafted for that."""
        ends = [False] * len(self._chances)
        ends[-1:] = [self._ends] * bool(ends)
        busy, room = self._asked_s is not None, self._counts.room
        shown = self._offline.next(ends, self._counts.limits.begins, room, busy=busy)
        return self._draft(now, cached) if isinstance(shown, Guess) else shown

    def heard(self, now: float) -> None:
        """Something has come of the base station."""
        self._offline.heard_s = now

    def lost(self) -> None:
        """The connection was, and there is another: what was proposed may not have arrived."""
        self._sent = self._age = 0

    def drafted(self, now: float, proposed: Sequence[Proposed], waited_s: float = 0.0) -> bool:
        """What ``Draft`` asked for is there. False if it is void: its path was left."""
        asked_s, self._asked_s = self._asked_s, None
        assert asked_s is not None
        each_s = (now - asked_s - waited_s) / self._asked
        self._spent_s += now - asked_s
        one = self._fed <= BACKLOG
        for place in range(self._asked, 0, -1):
            if one:
                self._estimates.draft.took(each_s, beside=None)
            self._beside.drafted(now - place * each_s, now - (place - 1) * each_s, one=one)
        void, self._void = self._void, False
        if void:
            return False
        self._chances += [one.chance for one in proposed]
        self._ends = any(one.ends for one in proposed)
        return True

    def written(
        self, now: float, agreed: int, accepted: int, tokens: int, *, step_s: float, rows: int
    ) -> bool:
        """So many tokens of the text have come, of which the path has the first ``agreed``, too.

        ``accepted`` of them were written because they had been proposed, by a step of so many
        ``rows``. Whether the path goes on; else the next one begins behind them, with what is
        drafted and not refuted.
        """
        self._trials.wrote(tokens, accepted)
        apart = not self.turns
        differs = agreed < tokens and agreed < len(self._chances)
        met = self._chances[: agreed + differs]
        for place, chance in enumerate(met):
            self._estimates.acceptance.foretold(chance, place < agreed)
        if step_s > 0.0:  # else it is told once more
            bounded = self._bound_rtt(now - step_s, answers=self.turns and accepted > 0)
            rtt_s = self._estimates.rtt.typical
            alone = self._beside.stepped(now, step_s, rtt_s, self._asked_s, rows=rows)
            slows = self._here and self._beside.slows
            self.worth.told(slows=slows, follows=self.follows)
            if alone or not self.turns:  # else both slowed one another, which turns are to avoid
                self._estimates.verify.took(step_s, beside=not alone)
                self._estimates.rows.add(max(rows - 1, 0), step_s)
            if self.turns and self._written_s is not None and rows > self._sent > 0:
                self.worth.turned(now - self._written_s - step_s - self._spent_s)
            if bounded:
                self._decide()
        self._written_s, self._spent_s = now, 0.0
        taken = apart and self.turns  # turns are, from here on
        if taken:
            self._estimates.undisturbed()
        self._age += tokens
        tried = bool(self._chances) or self._asked_s is not None
        if agreed == tokens:
            del self._chances[:tokens]
            if tokens <= self._sent and self._age < LONG and not taken:
                self._sent -= tokens
                return True
        else:
            self._void = self._asked_s is not None
            self._chances, self._ends = [], False
        self._sent = self._age = 0
        if self.follows and tried:
            hope = self._estimates.acceptance.hoped()
            hoping = LOOKS_DEAR if self.turns or self._here or self._beside.slows else LOOKS[0]
            behind = hoping if self.worth.pays(hope) else LOOKS[1]
            self._trials.resumes = self._counts.length + tokens + behind
        elif accepted or tried:
            self._trials.over(self._counts.length + tokens, accepted)
            self.worth.rare = self._trials.rest > REST[0]
        return False

    def _bound_rtt(self, now: float, *, answers: bool) -> bool:
        """Whether the round trip is found to be shorter: one and a step came before the first
        token, and before each answer to what was proposed while the base station waited.

        No link is slower than that. Of a greeting that stalled, or was a program's first work, a
        whole text would otherwise be taken for one that overtakes. ``now``: less the step.
        """
        most_s = now - (self._proposed_s if answers else self._started_s)
        looks, self._bounded = answers or not self._bounded, True
        return looks and self._estimates.rtt.at_most(most_s)

    def commit(self, tokens: int, *, confirmed: int = 0, refuted: bool = False) -> None:
        """The history has grown by so many tokens."""
        self._counts.length += tokens
        self._offline.accept(confirmed, refuted=refuted)
