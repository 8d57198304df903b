"""Whether a step that would write a token is begun, or waits for proposals: no I/O, no clock.

Where both ends write, the base station can begin a step at any time: it writes the target's own
token, and those proposed before it that are right. Waiting for more of them pays where they come
soon and are likely to be right. What is compared is tokens a second: E[tokens of the step] over the
wait and the step, with E = (1 - alpha^(n+1)) / (1 - alpha) for n tokens of a path. Where the device
drafts on, what comes beside a step is not lost: it is checked in the next one, if what is written
by then is the path's own. So there the time and tokens of the steps behind count, too, until one of
them refutes the path. Everything in it is measured here: what a device announces is a hint, and
what it claims about time is not asked. From the tokens is taken what the step's rows cost (see
``prices``): where others are at work, rows that are seldom right are not worth it.
"""

from __future__ import annotations

import math
from collections import deque

from bs_runtime.engine.coming import LEARN, Flow, Usual
from bs_runtime.engine.prices import Prices

LONGEST = 16  # proposed tokens of a step
LIMIT = 4.0  # steps: nobody's next token waits longer for proposals, whatever a device says or does
LEAST_GAIN = 1.02  # by how much more tokens a second waiting must promise
AHEAD_GAIN = 0.98  # and where the device drafts on: it takes fewer steps, and is about as fast
REACH, FAR = 0.05, 64  # so likely, and so far, steps are foretold that all is right before
MEMORY = 0.98  # what a judged token weighs after the next one
PRIOR_ACCEPTED, PRIOR_JUDGED = 3.0, 4.0  # as if so many tokens had been judged before the first
LEAST_S = 1e-6
HOPE = 0.8  # how often what is due is taken to come in time, as long as waiting in vain
VAIN = 0.01  # has taken no larger share of the time
BESIDE = 1.5  # rounds of a step, from which on others are taken to be at work all the time
BRIEF = 0.15  # of a step: as long a turn is tried before any has been seen
CROWDED = 2.0  # times as long a step takes beside a device that drafts on the same cores
HASTE = 0.5  # of a turn beside a step: as soon it is looked for where none was waited for so far
TELLS = 64  # of what was written that are remembered
TURNS = 0.8  # of what steps bring alone, which a turn must bring at least to be waited for
LATE = 2.0  # times the usual pause: a proposal that is later is not waited for any more


class Patience:
    """One conversation's. Times are seconds of any one clock. ``prices``: everybody's.

    ``turns``: the device has said that it drafts while no step is under way, and rests beside one.
    """

    def __init__(self, prices: Prices, *, turns: bool = False) -> None:
        self._prices = prices
        self._turns = turns
        self._accepted, self._judged = PRIOR_ACCEPTED, PRIOR_JUDGED
        self._one = Usual()  # a step, but for what its rows beyond the first add
        # Of those: where the device rested, as it had said, and where it may have been at work.
        self._alone, self._beside = Usual(), Usual()
        self._rests = False  # it does, beside the step that begins next, or is under way
        self._pause = Usual()  # between two proposals of a path, for each token of the second
        self._tokens = Usual()  # of the second, and of the first
        self._opening = Usual()
        # From a path's death being told to the next one's first proposal: in all, and while the
        # base station waited. Where both share cores, the others tell what writing meanwhile costs.
        self._turn, self._awaited = Usual(), Usual()
        self._came_s: float | None = None  # when the last proposal came; None: of a path that died
        self._tells: deque[tuple[float, int]] = deque(maxlen=TELLS)  # when, and the text's length
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
        self,
        now: float,
        tokens: int,
        known: int,
        *,
        goes_on: bool,
        begins: bool = False,
        waits: bool = False,
    ) -> None:
        """So many tokens have come that may be right, of a device that knew so much of the text.

        ``begins``: a path. ``waits``: no step was under way, for their sake.
        """
        opens = begins or not self._goes_on
        (self._opening if opens else self._tokens).add(tokens)
        if opens:
            told_s = next((at_s for at_s, length in reversed(self._tells) if length <= known), now)
            if told_s < now:
                if self._turn.count and not waits:  # had it been waited for, it would have come
                    self._came(now - told_s <= self._turn.mean + self._slack_s)
                self._turn.add(now - told_s)
                if waits:
                    self._awaited.add(now - told_s)
        elif self._came_s is not None:
            self._pause.add((now - self._came_s) / tokens)
        if known >= self._told:
            self._told_s = None
        self._came_s, self._goes_on = now, goes_on

    def stepped(self, seconds: float, rows: int) -> None:
        """A step took so long, with so many rows of its own."""
        seconds = max(seconds, LEAST_S)
        self._spent_s += seconds
        one_s = max(seconds - (rows - 1) * self._prices.row_s, LEAST_S)
        for usual in (self._one, self._alone if self._rests else self._beside):
            usual.add(one_s)

    def judged(self, right: int, wrong: int) -> None:
        """The text has reached so many proposed tokens that are right, or wrong.

        Whether a step was given them or not.
        """
        count = right + wrong
        self._accepted = MEMORY**count * self._accepted + right
        self._judged = MEMORY**count * self._judged + count

    def waited(self, seconds: float, *, came: bool) -> None:
        """A wait is over, and what was waited for came, or it did not."""
        self._came(came)
        self._spent_s += seconds
        if not came:
            self._vain_s += seconds

    def _came(self, came: bool) -> None:
        self._hit += LEARN / 2.0 * (came - self._hit)

    def worth(self, held: int) -> int:
        """How many of so many proposed tokens a step is given: as many as their rows are worth."""
        if not self._one.count or not held:
            return held
        return max(range(held + 1), key=lambda count: (self._rate(count, 0.0), -count))

    def told(self, now: float, length: int) -> None:
        """The device was sent the text up to ``length``."""
        self._tells.append((now, length))
        if self._told_s is None:
            self._told_s, self._told = now, length

    def left(self, position: int) -> None:
        """The text has another token at a position than the newest path: the device leaves that
        when it is told so. What it then drafts may be right, whatever is written meanwhile."""
        self._came_s = None
        for told_s, length in self._tells:
            if length > position:
                self._told_s, self._told = told_s, length
                break

    def wait_s(
        self, now: float, since: float, held: int, left: int, least: float = 0.0, behind: int = 0
    ) -> float:
        """How long to wait for proposals before the next step; 0 to begin it.

        ``since``: when the step could have begun. ``held`` proposed tokens may come next, and
        ``left`` is what the text may still have. ``least``: tokens a second that a step promises
        which is begun now, with what was looked up. ``behind``: tokens of the text behind the end
        of a path that it has.
        """
        self._rests = held > 0 and not self._goes_on
        if self._rests:
            return 0.0  # it takes turns, until it hears what came of all of them
        if not self._one.count:
            return 0.0
        step_s, most = self._step_s, min(LONGEST, left - 1)
        if self._turns and self._one.count == 1 and not self._opening.count:
            # The next is the device's: a step beside it would slow both, and tell nothing.
            return max(since + LIMIT * step_s - now, 0.0)
        due_s = self._due_s(now)
        if due_s is None:
            return 0.0
        flow = self._flow(now, due_s, held - behind)
        now_rate = max(least, *(self._rate(count, 0.0, flow) for count in range(held + 1)))
        if self._turns and not flow and self._told_s is not None:
            # The device reckons likewise, and may rest: then a turn would be waited for in vain.
            turn = self._rate(min(held + self._first, most), due_s - self._told_s)
            if turn < TURNS * now_rate:
                return 0.0
        now_rate /= self._crowded
        gain = AHEAD_GAIN if flow else LEAST_GAIN
        best, best_s = now_rate + (gain - 1.0) * abs(now_rate), 0.0
        bold = self._vain_s < VAIN * self._spent_s
        comes = max(self._hit, HOPE) if bold else self._hit
        come, next_ = held - flow.used if flow else held, self._first
        while come < most:
            come = min(come + next_, most)
            wait_s = max(due_s - now, 0.0)
            if due_s - since > LIMIT * step_s:
                break
            rate = comes * self._rate(max(come, held), wait_s, flow)
            rate += (1 - comes) * self._rate(held, wait_s, flow)
            if rate > best:
                best, best_s = rate, wait_s + self._slack_s
            if not self._goes_on or not self._pause.count:
                break
            next_ = self._each
            due_s += next_ * self._pause.mean
        return best_s

    @property
    def _step_s(self) -> float:
        """A step of one row, behind a turn if the device takes turns."""
        return self._one.mean if self._goes_on or not self._alone.count else self._alone.mean

    @property
    def _crowded(self) -> float:
        """How many times as long a step takes beside a turn as behind it."""
        least = CROWDED if self._turns else 1.0
        if self._goes_on or not self._alone.count:
            return least
        return max(least, self._beside.mean / self._alone.mean)

    @property
    def _each(self) -> int:
        """Tokens of a proposal behind the first of a path."""
        return max(1, round(self._tokens.mean or self._opening.mean))

    @property
    def _first(self) -> int:
        """Tokens of the next proposal."""
        opens = self._came_s is None or not self._goes_on
        return max(1, round(self._opening.mean)) if opens else self._each

    def _flow(self, now: float, due_s: float, held: int) -> Flow | None:
        """What goes on coming while steps run; None where that is not known, or nothing does."""
        if not self._goes_on or not self._pause.count:
            return None
        used, alive = 0, 1.0
        if held < 0:
            held, used = 0, -held
        elif self._came_s is None:  # the path is not here yet: as much as was written meanwhile
            used = self._tells[-1][1] - self._told  # of it comes too late, and may be wrong
            alive = self.alpha**used
        every_s = max(self._each * self._pause.mean, LEAST_S)
        return Flow(held, due_s - now, self._first, self._each, every_s, used, alive)

    @property
    def _slack_s(self) -> float:
        """What is waited longer: what is due may be a little late."""
        return 0.1 * self._one.mean

    def _rate(self, count: int, wait_s: float, flow: Flow | None = None) -> float:
        """Tokens a second of a step with so many proposed tokens, after a wait, less what they
        cost; and of those behind it, with what has come by then, as long as all has been right."""
        alpha, prices = self.alpha, self._prices
        one_s = self._step_s
        step_s = one_s + count * prices.row_s
        if prices.company > BESIDE:  # whoever is not there when their step begins waits for its end
            wait_s = math.ceil(wait_s / step_s) * step_s
        tokens, seconds, reach, used = 0.0, wait_s, 1.0, 0
        at_s, alive = wait_s, 1.0
        if flow is not None:
            used, alive = flow.used, flow.alive
        while reach > REACH:
            step_s = one_s + count * prices.row_s
            right = alpha ** (count + 1)
            expected = (1.0 - right) / (1.0 - alpha) if alpha < 1.0 else count + 1.0
            tokens += reach * (1.0 + alive * (expected - 1.0) - prices.tokens(count + 1))
            seconds += reach * step_s
            at_s += step_s
            used += count + 1
            reach, alive = reach * alive * right, 1.0
            if flow is None or used > FAR:
                break
            count = min(max(flow.come(at_s) - used, 0), LONGEST)
        return tokens / seconds

    def _due_s(self, now: float) -> float | None:
        """When the next proposal is due; None if none is, or it is too late to be waited for."""
        pause_s = max(1.0, self._tokens.mean) * self._pause.mean
        came_s = self._came_s if self._goes_on and self._pause.count else None
        if came_s is not None and now - came_s <= LATE * pause_s:
            return _expected(came_s + pause_s, now)
        turn_s = late_s = self._turn.mean
        if self._awaited.count:
            turn_s, late_s = sorted((turn_s, self._awaited.mean))
        elif not self._goes_on and self._turn.count:
            turn_s = HASTE * turn_s  # it rests: beside a step it may have been slowed
        elif not self._turn.count and pause_s <= BRIEF * self._one.mean:
            turn_s = late_s = pause_s  # of the first no more is known: to try costs little
        if self._told_s is not None and turn_s and now - self._told_s <= LATE * late_s:
            return _expected(self._told_s + turn_s, now)
        return None


def _expected(due_s: float, now: float) -> float:
    """When what was due is expected: what is late by some time, not sooner than in as much."""
    return max(due_s, now + (now - due_s))
