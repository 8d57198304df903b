"""Drafting beside the base station's steps: whether they slow one another, and when one begins.

A step that wrote tokens ended half a round trip before they came, and began ``step_s`` earlier. So
once they are there it is known which of the draft's forwards went on beside it. And a base station
that goes on writing begins its next step then, and another after each step.
"""

from __future__ import annotations

from collections import deque

from device_runtime.drafting.levels import Level, Work

Span = tuple[float, float]  # when something began, and when it ended

MOST = 64  # forwards that are not sorted yet
MIXED = 0.5  # of what a forward takes beside a step: as much of it may be, for the rest to tell
STEPS = 8  # that are looked back on
MARGIN = 0.02  # of a step: so long before it begins a proposal should be there
SLOWS = 1.2  # times as long as alone steps take beside forwards, from which on these slow them
FEW = 2  # steps of each kind that tell it
CLEAR = 0.1  # of a forward beside a step, or of a step beside forwards: as much counts as none


class Beside:
    """Sorts a device's forwards. Times are seconds of one clock."""

    def __init__(self, draft: Work) -> None:
        self._draft = draft
        # Those that are not sorted yet, and whether they were of one token.
        self._forwards: deque[tuple[Span, bool]] = deque(maxlen=MOST)
        self._steps: deque[Span] = deque(maxlen=STEPS)  # the last ones
        self._told_s: float | None = None  # when a step was heard of last
        # What steps of one row take, by whether forwards went on beside them.
        self._taken = {False: Level(), True: Level()}

    @property
    def slows(self) -> bool:
        """Whether the draft's forwards slow the base station's steps, as on one machine they do."""
        alone, beside = self._taken[False], self._taken[True]
        known = min(len(alone), len(beside)) >= FEW
        return known and beside.typical >= SLOWS * alone.typical

    def drafted(self, begun_s: float, ended_s: float, *, one: bool = True) -> None:
        """A forward has ended. ``one``: of a token, which tells what such a one takes."""
        self._forwards.append(((begun_s, ended_s), one))

    def stepped(
        self, now: float, step_s: float, rtt_s: float, asked_s: float | None, *, rows: int = 1
    ) -> bool:
        """What a step wrote has come; a forward is under way since ``asked_s``, if one is.

        Whether the step had hardly any of the device's work beside it.
        """
        self._told_s = now
        ended_s = now - rtt_s / 2.0
        step = ended_s - step_s, ended_s
        self._steps.append(step)
        disturbed_s = 0.0 if asked_s is None else _common(step, (asked_s, ended_s))
        disturbed_s += sum(_common(step, forward) for forward, _ in self._forwards)
        while self._forwards and self._forwards[0][0][1] <= ended_s:
            forward, one = self._forwards.popleft()
            if one:
                self._sort(forward)
        alone = disturbed_s <= CLEAR * step_s
        if rows == 1:
            self._taken[not alone].add(step_s)
        return alone

    def _sort(self, forward: Span) -> None:
        """Whether a forward was beside steps is known: another step has ended behind it."""
        if forward[0] < self._steps[0][0]:
            return  # what was beside it before the first of them nobody has told
        took_s = forward[1] - forward[0]
        beside_s = sum(_common(step, forward) for step in self._steps)
        if beside_s <= CLEAR * took_s:
            self._draft.sorted(took_s, beside=False)
        elif beside_s >= (1.0 - CLEAR) * took_s:
            self._draft.sorted(took_s, beside=True)
        elif beside_s <= MIXED * self._draft.beside_s:  # what was left of it was done alone
            left = 1.0 - beside_s / self._draft.beside_s
            self._draft.sorted((took_s - beside_s) / left, beside=False)

    def misses(self, now: float, ready_s: float, step_s: float, rtt_s: float) -> bool:
        """Whether a step begins before what is sent at ``ready_s`` is there, but not before what is
        sent now; of a base station that goes on writing."""
        if self._told_s is None:
            return False
        into_s = (now + rtt_s + MARGIN * step_s - self._told_s) % step_s
        return into_s + ready_s - now > step_s


def _common(one: Span, other: Span) -> float:
    """What two have in common, in seconds."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
