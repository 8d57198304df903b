"""Which of a few settings takes the least time, found out while they work. No I/O, no clock.

What else a machine has to do decides how many threads a forward should have, and that changes
while a base station runs. So the setting in use is watched against its own history, and now and
then another is tried beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

GAIN = 0.95  # of the time: what another setting must at most take to be changed to
CLEAR = 1.3  # times as long: who needs that has lost, and nothing more need be tried
CHANGED = 1.3  # times as long, or as short, as usual: reason for a trial at once
CROWDED = 0.1  # of the time waited for a core: others want it, too
LATEST = 30.0  # times as long as usual: what is later slept, or was stopped, as a laptop is
LEAST_S = 0.5  # of work between two trials
PUT_OFF_S = 60.0  # of work, while a core is waited for: what is best where nothing disturbs
BURSTS = 4  # times as many steps as tell a change of pace tell that no core is waited for any more

SLOW = 1 / 64  # weight of the newest step in what is usual


@dataclass(frozen=True)
class _Thrift:
    """What trials of a setting that lose may take: a share of the time."""

    share: float
    most_s: float  # of work between two, unless it would then take a twentieth of it

    def pause_s(self, lost_s: float, changes_s: float) -> float:
        """Work between a trial that took so much more time, and the next.

        ``changes_s``: what its changes of the setting took.
        """
        longest_s = max(self.most_s, 20 * lost_s)
        return max(LEAST_S, min(lost_s / self.share, longest_s) + changes_s / self.share)


USUAL = _Thrift(0.003, 60.0)
RETURN = _Thrift(0.04, 6.0)  # to the one that is best where nothing disturbs: it may be so again
HASTE = _Thrift(0.25, 2.0)  # where a change was noticed


@dataclass
class _Sum:
    seconds: float = 0.0
    units: float = 0.0
    steps: int = 0

    @property
    def mean(self) -> float:
        return self.seconds / self.units


@dataclass
class _Trial:
    """Steps of a setting and of another, in turns; sums by the kind of step."""

    rival: int
    steps: int = 0
    sums: dict[bool, dict[Hashable, _Sum]] = field(
        default_factory=lambda: {rival: defaultdict(_Sum) for rival in (True, False)}
    )

    @property
    def rivals_turn(self) -> bool:
        """Whether the next step is the other's: first, fourth, fifth, and so on.

        So either has as many early steps as late ones, and only every second one follows a change.
        """
        return (self.steps + 1) // 2 % 2 == 0

    def add(self, kind: Hashable, seconds: float, units: float) -> None:
        """The step whose turn it was took ``seconds``."""
        found = self.sums[self.rivals_turn][kind]
        found.seconds += seconds
        found.units += units
        found.steps += 1
        self.steps += 1

    def compared(self) -> tuple[int, float]:
        """Steps of either kind that can be compared, and how many times as long the other takes."""
        pairs, theirs, ours = 0, 0.0, 0.0
        for kind, found in self.sums[True].items():
            if (beside := self.sums[False].get(kind)) is not None:
                both = min(found.steps, beside.steps)
                pairs += both
                theirs += both * found.mean
                ours += both * beside.mean
        return pairs, theirs / ours if ours else 1.0

    def seconds(self, *, rivals: bool) -> float:
        """What steps of either took."""
        return sum(found.seconds for found in self.sums[rivals].values())


def counts(most: int) -> list[int]:
    """Numbers of threads to try: 1, 2, 4, ... and ``most``, ascending."""
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return [*powers, most]


class Trials:
    """The choice among ``settings``, numbered in an order in which neighbours are alike.

    ``at`` is the setting for the next step. ``ran`` is told what each took, per unit of work, and
    its kind: steps of one kind cost alike. A trial compares ``best`` with another by steps of both
    in turns, ``least`` to ``most`` of each. All others are tried at once when the last ``recent``
    steps took longer or shorter than is usual, or wait for a core no more; else one now and then,
    so seldom that what trials lose, ``change_s`` for each change of the setting included, is a
    small share of the time.
    """

    def __init__(
        self,
        settings: int,
        best: int,
        *,
        least: int = 3,
        most: int = 12,
        recent: int = 8,
        change_s: float = 0.0,
    ) -> None:
        """``best``: the setting to begin with, which is the best where nothing disturbs."""
        self.best = self._home = best
        self._settings = settings
        self._least, self._most, self._recent = least, most, recent
        self.change_s = change_s
        self._usual: dict[Hashable, tuple[float, int]] = {}  # seconds a unit of ``best``, and steps
        self._pace = 1.0  # what its last steps took, in terms of it
        self._waiting = 0.0  # the share of them that was waited
        self._waited = 0.0  # the largest since the last trial
        self._trial: _Trial | None = None
        self._work_s = 0.0  # that was seen, but for trials
        # When each that was tried is to be tried again, nothing being urgent.
        self._due_s: dict[int, float] = {}
        self._rests_s = LEAST_S  # until then no trial that is not urgent
        self._urgent: list[int] = []  # settings that are to be tried, and when
        self._soon_s = 0.0

    @property
    def at(self) -> int:
        """The setting for the next step."""
        trial = self._trial
        return trial.rival if trial is not None and trial.rivals_turn else self.best

    def ran(
        self, kind: Hashable, seconds: float, units: float = 1.0, waited_s: float = 0.0
    ) -> None:
        """A step of ``at`` took ``seconds`` for ``units`` of work of a kind.

        ``waited_s``: of these, what it waited for a core that others had, where that is known.
        """
        if self._settings < 2 or units <= 0.0:
            return
        if (known := self._usual.get(kind)) is not None:
            seconds = min(seconds, LATEST * known[0] * units)
        if self._trial is None or not self._trial.rivals_turn:
            # What a trial itself waits says nothing of the others: it would ask for the next one.
            share = min(waited_s / seconds, 1.0) if seconds else 0.0
            # A core is waited for in bursts: a few steps without are no sign that it is free.
            self._waiting += (share - self._waiting) / (BURSTS * self._recent)
        if self._trial is None:
            self._watch(kind, seconds, units)
        else:
            self._trial.add(kind, seconds, units)
            self._judge(self._trial)

    def _watch(self, kind: Hashable, seconds: float, units: float) -> None:
        usual, steps = self._usual.get(kind, (seconds / units, 0))
        ratio = seconds / units / usual if usual else 1.0
        # One step that is very late says no more than one that is late.
        self._pace += (min(ratio, 2.0) - self._pace) / self._recent
        weight = max(SLOW, 1 / (steps + 1))
        self._usual[kind] = usual + weight * (seconds / units - usual), steps + 1
        self._work_s += seconds
        self._waited = max(self._waited, self._waiting)
        calmer = self._waited > CROWDED and self._waiting < self._waited / 4
        slower, faster = self._pace > CHANGED, self._pace < 1 / CHANGED
        others = self._others(upwards=not slower)
        if not self._urgent and (slower or faster):
            self._urgent = [one for one in others if one != self._home]
        # What is best where nothing disturbs is the answer to calm, and to nothing else.
        if calmer and self._home in others and self._home not in self._urgent:
            self._urgent.insert(0, self._home)
        if self._urgent and self._work_s >= self._soon_s:
            self._trial = _Trial(self._urgent.pop(0))
        elif self._work_s >= self._rests_s:
            rival = min(self._others(), key=self._due)
            if self._work_s >= self._due(rival):
                self._trial = _Trial(rival)

    def _due(self, setting: int) -> float:
        """When a setting is to be tried again, nothing being urgent.

        While a core is waited for, the setting that wants all of them to itself is the dearest to
        try and the least likely to win; when that ends, it is tried at once.
        """
        put_off = setting == self._home and self._waiting > CROWDED
        # The first time, too, there must have been as much work as is worth the changes.
        first_s = RETURN.pause_s(0.0, 2 * self._least * self.change_s)
        return self._due_s.get(setting, first_s) + (PUT_OFF_S if put_off else 0.0)

    def _others(self, *, upwards: bool = False) -> list[int]:
        """All but the best: on one side of it, near ones first, and then on the other."""
        below, above = range(self.best - 1, -1, -1), range(self.best + 1, self._settings)
        return [*above, *below] if upwards else [*below, *above]

    def _judge(self, trial: _Trial) -> None:
        pairs, ratio = trial.compared()
        hopeless = pairs >= 1 and ratio > CLEAR**4
        clear = pairs >= self._least and not 1 / CLEAR < ratio < CLEAR
        if not (hopeless or clear or pairs >= self._most or trial.steps >= 8 * self._most):
            return
        won = pairs >= self._least and ratio < GAIN
        loser, slower = (self.best, 1 / ratio) if won else (trial.rival, ratio)
        if won:
            upwards, self.best = trial.rival > self.best, trial.rival
            if ratio < 1 / CLEAR:  # where that came from there may be more
                others = self._others(upwards=upwards)
                self._urgent = [one for one in others if one not in (loser, self._home)]
        lost_s = max(0.0, trial.seconds(rivals=not won) * (1 - 1 / slower))
        changes_s = (trial.steps // 2 + 1) * self.change_s
        thrift = RETURN if loser == self._home else USUAL
        self._due_s[loser] = self._work_s + thrift.pause_s(lost_s, changes_s)
        self._soon_s = self._work_s
        if not won:
            self._soon_s += HASTE.pause_s(lost_s, changes_s)
        self._rests_s = self._work_s + LEAST_S
        self._pace = 1.0
        if self._home in (self.best, trial.rival):
            self._waited = self._waiting
        seen = {kind: (one.mean, one.steps) for kind, one in trial.sums[won].items()}
        self._usual = seen if won else self._usual | seen
        self._trial = None
