"""Drafting beside the base station's steps: whether they slow one another, and when one begins.

A step that wrote tokens ended half a round trip before they came, and began ``step_s`` earlier. So
once they are there it is known which of the draft's forwards went on beside it. And a base station
that goes on writing begins its next step then, and another after each step.
"""

from __future__ import annotations

from device_runtime.drafting.estimators import Work

MOST = 64  # forwards that are not sorted yet
MARGIN = 0.02  # of a step: so long before it begins a proposal should be there
CLEAR = 0.1  # of a forward beside a step, or of a step beside forwards: as much counts as none


class Beside:
    """Sorts a device's forwards. Times are seconds of one clock."""

    def __init__(self, draft: Work) -> None:
        self._draft = draft
        self._forwards: list[tuple[float, float]] = []  # begun, ended
        self._beside: list[float] = []  # of each, seconds beside a step
        self._told_s: float | None = None  # when a step was heard of last

    def drafted(self, begun_s: float, ended_s: float) -> None:
        """A forward has ended."""
        self._forwards.append((begun_s, ended_s))
        self._beside.append(0.0)
        del self._forwards[:-MOST], self._beside[:-MOST]

    def stepped(self, now: float, step_s: float, rtt_s: float, asked_s: float | None) -> bool:
        """What a step wrote has come; a forward is under way since ``asked_s``, if one is.

        Whether the step had hardly any of the device's work beside it.
        """
        self._told_s = now
        ended_s = now - rtt_s / 2.0
        begun_s = ended_s - step_s
        open_: list[tuple[tuple[float, float], float]] = []
        disturbed_s = 0.0 if asked_s is None else max(0.0, ended_s - max(asked_s, begun_s))
        for forward, beside_s in zip(self._forwards, self._beside, strict=True):
            shared_s = max(0.0, min(forward[1], ended_s) - max(forward[0], begun_s))
            beside_s += shared_s
            disturbed_s += shared_s
            if forward[1] > ended_s:
                open_.append((forward, beside_s))
                continue
            took_s = forward[1] - forward[0]
            if beside_s <= CLEAR * took_s:
                self._draft.sorted(took_s, beside=False)
            elif beside_s >= (1.0 - CLEAR) * took_s:
                self._draft.sorted(took_s, beside=True)
        self._forwards = [forward for forward, _ in open_]
        self._beside = [beside_s for _, beside_s in open_]
        return disturbed_s <= CLEAR * step_s

    def misses(self, now: float, ready_s: float, step_s: float, rtt_s: float) -> bool:
        """Whether a step begins before what is sent at ``ready_s`` is there, but not before what is
        sent now; of a base station that goes on writing."""
        if self._told_s is None:
            return False
        into_s = (now + rtt_s + MARGIN * step_s - self._told_s) % step_s
        return into_s + ready_s - now > step_s
