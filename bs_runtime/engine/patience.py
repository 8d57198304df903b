"""Whether a step that would write a token is begun, or waits for proposals: no I/O, no clock.

Where both ends write, the base station can begin a step at any time: it writes the target's own
token, and those proposed before it that are right. Waiting for more of them pays where they come
soon and are likely to be right. What is compared is tokens a second: E[tokens of the step] over the
wait and the step, with E = (1 - alpha^(n+1)) / (1 - alpha) for n tokens of a path. Everything in it
is measured here: what a device announces is a hint, and what it claims about time is not asked.
From the tokens is taken what the step's rows cost (see ``prices``): where others are at work, rows
that are seldom right are not worth it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bs_runtime.engine.prices import Prices

LONGEST = 16  # proposed tokens of a step
LIMIT = 4.0  # steps: nobody's next token waits longer for proposals, whatever a device says or does
LEAST_GAIN = 1.02  # by how much more tokens a second waiting must promise
AHEAD_GAIN = 1.2  # and where the device drafts on: what it drafts meanwhile is not lost
MEMORY = 0.98  # what a judged token weighs after the next one
LEARN = 0.2  # weight of the newest arrival or step
PRIOR_ACCEPTED, PRIOR_JUDGED = 3.0, 4.0  # as if so many tokens had been judged before the first
LEAST_S = 1e-6
HOPE = 0.8  # how often what is due is taken to come, as long as waiting in vain
VAIN = 0.01  # has taken no larger share of the time
BESIDE = 1.5  # rounds of a step, from which on others are taken to be at work all the time
BRIEF = 0.15  # of a step: as long a turn is tried before any has been seen
FIRST_S = 0.05  # as long a step is taken to last before any has been seen
HASTE = 0.5  # of a turn beside a step: as soon it is looked for where none was waited for so far
LATE = 2.0  # times the usual pause: a proposal that is later is not waited for any more


@dataclass
class _Usual:
    """A running mean of something measured."""

    mean: float = 0.0
    count: int = 0

    def add(self, sample: float) -> None:
        self.count += 1
        self.mean += max(LEARN, 1.0 / self.count) * (sample - self.mean)


class Patience:
    """One conversation's. Times are seconds of any one clock. ``prices``: everybody's.

    ``turns``: the device has said that it drafts while no step is under way, and rests beside one.
    """

    def __init__(self, prices: Prices, *, turns: bool = False) -> None:
        self._prices = prices
        self._turns = turns
        self._accepted, self._judged = PRIOR_ACCEPTED, PRIOR_JUDGED
        self._one = _Usual()  # a step, but for what its rows beyond the first add
        self._pause = _Usual()  # between two proposals of a path, for each token of the second
        self._tokens = _Usual()  # of a proposal
        # From a path's death being told to the next one's first proposal: in all, and while the
        # base station waited. Where both share cores, the others tell what writing meanwhile costs.
        self._turn, self._awaited = _Usual(), _Usual()
        self._came_s: float | None = None  # when the last proposal came; None: of a path that died
        self._told_s: float | None = None  # when the device was told of something new
        self._told = 0  # the length of the text that it was told of then
        self._goes_on = False
        self._hit = HOPE  # how often what was waited for came
        self._spent_s = self._vain_s = 0.0  # in steps and waits, and in waits for nothing

    @property
    def alpha(self) -> float:
        """How likely a proposed token is right, if those before it are."""
        return self._accepted / self._judged

    def proposed(
        self, now: float, tokens: int, known: int, *, goes_on: bool, waits: bool = False
    ) -> None:
        """So many tokens have come that may be right, of a device that knew so much of the text.

        ``waits``: no step was under way, for their sake.
        """
        self._tokens.add(tokens)
        if self._told_s is not None and known >= self._told:
            self._turn.add(now - self._told_s)
            if waits:
                self._awaited.add(now - self._told_s)
            self._told_s = None
        elif self._came_s is not None and self._goes_on:
            self._pause.add((now - self._came_s) / tokens)
        self._came_s, self._goes_on = now, goes_on

    def stepped(self, seconds: float, rows: int) -> None:
        """A step took so long, with so many rows of its own."""
        seconds = max(seconds, LEAST_S)
        self._spent_s += seconds
        self._one.add(max(seconds - (rows - 1) * self._prices.row_s, LEAST_S))

    def judged(self, right: int, wrong: int) -> None:
        """The text has reached so many proposed tokens that are right, or wrong.

        Whether a step was given them or not.
        """
        count = right + wrong
        self._accepted = MEMORY**count * self._accepted + right
        self._judged = MEMORY**count * self._judged + count

    def waited(self, seconds: float, *, came: bool) -> None:
        """A wait is over, and what was waited for came, or it did not."""
        self._hit += LEARN / 2.0 * (came - self._hit)
        self._spent_s += seconds
        if not came:
            self._vain_s += seconds

    def worth(self, held: int) -> int:
        """How many of so many proposed tokens a step is given: as many as their rows are worth."""
        if not self._one.count:
            return held
        return max(range(held + 1), key=lambda count: (self._rate(count, 0.0), -count))

    def told(self, now: float, length: int, *, alive: bool) -> None:
        """The device was sent the text up to ``length``; a path that is not ``alive`` it leaves."""
        if not alive:
            self._came_s = None
        if self._told_s is None or not alive:
            self._told_s, self._told = now, length

    def wait_s(self, now: float, since: float, held: int, left: int, least: float = 0.0) -> float:
        """How long to wait for proposals before the next step; 0 to begin it.

        ``since``: when the step could have begun. ``held`` proposed tokens may come next, and
        ``left`` is what the text may still have. ``least``: tokens a second that a step promises
        which is begun now, with what was looked up.
        """
        if not self._one.count:
            # Who takes turns has the first: a step beside it would slow both, and tell nothing.
            first = self._turns and not held and not self._tokens.count
            return max(since + LIMIT * (self._prices.step_s or FIRST_S) - now, 0.0) * first
        step_s, most = self._one.mean, min(LONGEST, left - 1)
        now_rate = max(least, *(self._rate(count, 0.0) for count in range(held + 1)))
        gain = AHEAD_GAIN if self._goes_on else LEAST_GAIN
        best, best_s = now_rate + (gain - 1.0) * abs(now_rate), 0.0
        bold = self._vain_s < VAIN * self._spent_s
        comes = max(self._hit, HOPE) if bold else self._hit
        each = max(1, round(self._tokens.mean))
        due_s = self._due_s(now)
        count = held
        while due_s is not None and count < most:
            count = min(count + each, most)
            wait_s = max(due_s - now, 0.0)
            if due_s - since > LIMIT * step_s:
                break
            rate = comes * self._rate(count, wait_s) + (1 - comes) * self._rate(held, wait_s)
            if rate > best:
                best, best_s = rate, wait_s + self._slack_s
            if not self._goes_on or not self._pause.count:
                break
            due_s += each * self._pause.mean
        return best_s

    @property
    def _slack_s(self) -> float:
        """What is waited longer: what is due may be a little late."""
        return 0.1 * self._one.mean

    def _rate(self, count: int, wait_s: float) -> float:
        """Tokens a second with so many proposed tokens, after a wait, less what they cost."""
        alpha, prices = self.alpha, self._prices
        expected = (1.0 - alpha ** (count + 1)) / (1.0 - alpha) if alpha < 1.0 else count + 1.0
        step_s = self._one.mean + count * prices.row_s
        if prices.company > BESIDE:  # whoever is not there when their step begins waits for its end
            wait_s = math.ceil(wait_s / step_s) * step_s
        return (expected - prices.tokens(count + 1)) / (wait_s + step_s)

    def _due_s(self, now: float) -> float | None:
        """When the next proposal is due; None if none is, or it is too late to be waited for."""
        pause_s = max(1.0, self._tokens.mean) * self._pause.mean
        came_s = self._came_s if self._goes_on and self._pause.count else None
        if came_s is not None and now - came_s <= LATE * pause_s:
            return max(came_s + pause_s, now)
        turn_s = late_s = self._turn.mean
        if self._awaited.count:
            turn_s, late_s = sorted((turn_s, self._awaited.mean))
        elif not self._goes_on and self._turn.count:
            turn_s = HASTE * turn_s  # it rests: beside a step it may have been slowed
        elif not self._turn.count and pause_s <= BRIEF * self._one.mean:
            turn_s = late_s = pause_s  # of the first no more is known: to try costs little
        if self._told_s is not None and turn_s and now - self._told_s <= LATE * late_s:
            return max(self._told_s + turn_s, now)
        return None
