"""What a base station has done: counters, and their values of the last minutes. No I/O.

/metrics and the live page read from here; connections report through their accounts. Nothing in it
is anybody's text.
"""

from __future__ import annotations

import bisect
import copy
import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from draftlink.link.ledger import websocket_bytes
from draftlink.protocol import frames
from draftlink.protocol.states import SENDER

POSITIONS = 16  # of a draft that are counted one by one
KEPT_S, DEVICE_KEPT_S = 120, 12
BOUNDS_S = (*(m * 10.0**e for e in range(-4, 1) for m in (1, 2, 5)), 10.0)


class Totals(Protocol):
    """What the scheduler has done, as it counts it."""

    steps: int
    rounds: int
    tokens: int
    busy_s: float


@dataclass
class Histogram:
    """Times in seconds; ``counts[i]`` of them are at most ``BOUNDS_S[i]``, the last ones above."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum: float = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect.bisect_left(BOUNDS_S, value)] += 1
        self.sum += value

    def quantile(self, share: float, since: Histogram) -> float | None:
        """The value below which ``share`` of those ``since`` lie, between its bucket's bounds."""
        counts = [a - b for a, b in zip(self.counts, since.counts, strict=True)]
        left = share * sum(counts)
        if not left:
            return None
        for i, count in enumerate(counts):
            if count and left <= count:
                low = BOUNDS_S[i - 1] if i else 0.0
                high = BOUNDS_S[min(i, len(BOUNDS_S) - 1)]
                return low + (high - low) * left / count
            left -= count
        return BOUNDS_S[-1]


@dataclass
class Counts:
    """Counters; all only rise."""

    connections: int = 0
    generations: int = 0
    finished: Counter[str] = field(default_factory=Counter)  # by how the generation ended
    refused: Counter[str] = field(default_factory=Counter)  # by code
    prompt_tokens: int = 0
    tokens: int = 0  # written: accepted, corrections, bonus, streamed
    rounds: int = 0  # verdicts on drafted tokens
    drafted: int = 0
    accepted: int = 0
    forwards: int = 0  # verdicts, and steps that wrote
    asked: int = 0  # times that a device had too little to correct by (``split``)
    looked_up: int = 0  # tokens that this end looked up, and gave a step; not among the drafted
    found: int = 0  # and of them, those that were written
    # Where both ends write:
    checked: int = 0  # proposals that a step was given
    right: int = 0  # proposals behind the right prefix that the text has, too, in time or not,
    wrong: int = 0  # and those that it has not
    drafted_at: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    accepted_at: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    draft_bytes: int = 0  # of Draft and Propose messages, WebSocket headers included
    bytes_up: int = 0
    bytes_down: int = 0
    queue: Histogram = field(default_factory=Histogram)
    verify: Histogram = field(default_factory=Histogram)
    # Of the scheduler, taken over whenever a second begins:
    steps: int = 0
    step_rounds: int = 0
    step_tokens: int = 0
    busy_s: float = 0.0


class Meter:
    """Counts, with copies from the beginnings of the last ``kept_s`` seconds and of this one."""

    def __init__(self, now: float, kept_s: int = KEPT_S) -> None:
        self.counts = Counts()
        self._second = int(now)
        self._kept_s = kept_s
        self._samples: deque[Counts] = deque([Counts()], maxlen=kept_s + 1)

    def roll(self, now: float) -> None:
        """Keep what a second that has begun since began with."""
        behind = int(now) - self._second
        if behind > 0:
            self._samples.extend([copy.deepcopy(self.counts)] * min(behind, self._kept_s))
            self._second = int(now)

    def since(self, now: float, seconds: int) -> tuple[Counts, float]:
        """The counts of so many seconds ago or the oldest known, and how long ago that was.

        At least a second: a rate over less would say little.
        """
        self.roll(now)
        known = min(seconds + 1, len(self._samples))
        return self._samples[-known], max(1.0, known - 1 + now % 1)

    def per_second(self, name: str) -> list[int]:
        """What a counter grew by in each whole second that is known, oldest first."""
        values = [getattr(sample, name) for sample in self._samples]
        return [b - a for a, b in itertools.pairwise(values)]


class Device:
    """One connection: its counts, and what it is doing."""

    def __init__(self, number: int, tenant: str, now: float) -> None:
        self.number = number
        self.tenant = tenant
        self.since_s = now
        self.meter = Meter(now, DEVICE_KEPT_S)
        self.scheme = ""
        self.mode = ""
        self.running = False  # a generation
        self.pending = 0  # drafted tokens without a verdict
        self.looked_up = 0  # tokens in the round of the next Written that were not drafted

    def follow(self, frame: frames.Frame) -> None:
        """A frame crossed."""
        if isinstance(frame, frames.Start | frames.Resume):
            start = frame if isinstance(frame, frames.Start) else frame.start
            self.scheme = "greedy" if start.sampling.greedy else start.scheme.name
            self.mode, self.running, self.pending = start.mode, True, 0
        elif isinstance(frame, frames.Draft):
            self.pending += frame.length
        elif isinstance(frame, frames.Verdict):
            self.pending = 0 if frame.closes else self.pending - frame.accepted
            self.running = not frame.ended
        elif isinstance(frame, frames.Tokens):
            self.mode, self.running = "stream", not frame.ended
        elif isinstance(frame, frames.Written):
            self.running = not frame.ended
        elif isinstance(frame, frames.Done | frames.Refused):
            self.running, self.pending = False, 0


class Stats:
    """Everything that a base station counts. ``totals`` are the scheduler's."""

    def __init__(self, now: float) -> None:
        self.started_s = now
        self.meter = Meter(now)
        self.devices: dict[int, Device] = {}
        self.totals: Totals | None = None

    def enter(self, tenant: str, now: float) -> Device:
        """A device has connected."""
        self.roll(now)
        self.meter.counts.connections += 1
        device = Device(self.meter.counts.connections, tenant, now)
        self.devices[device.number] = device
        return device

    def leave(self, device: Device) -> None:
        """A device has gone."""
        self.devices.pop(device.number, None)

    def refuse(self, code: str) -> None:
        """A connection was refused before it had begun."""
        self.meter.counts.refused[code] += 1

    def count(self, device: Device, frame: frames.Frame, size: int, now: float) -> None:
        """A frame of ``size`` bytes crossed."""
        self.roll(now)
        device.meter.roll(now)
        for meter in (self.meter, device.meter):
            _count(meter.counts, frame, size, device.pending, device.looked_up)
        device.follow(frame)

    def met(self, device: Device, right: int, wrong: int) -> None:
        """The text has reached so many proposals of a device that are right, and wrong ones."""
        for meter in (self.meter, device.meter):
            meter.counts.right += right
            meter.counts.wrong += wrong

    def looked_up(self, device: Device, given: int, right: int) -> None:
        """The next round that a device hears of was given so many looked-up tokens."""
        device.looked_up = given
        for meter in (self.meter, device.meter):
            meter.counts.looked_up += given
            meter.counts.found += right

    def roll(self, now: float) -> None:
        """Let the seconds pass."""
        if self.totals is not None:
            counts, totals = self.meter.counts, self.totals
            counts.steps, counts.step_rounds = totals.steps, totals.rounds
            counts.step_tokens, counts.busy_s = totals.tokens, totals.busy_s
        self.meter.roll(now)


def _count(counts: Counts, frame: frames.Frame, size: int, pending: int, looked_up: int) -> None:
    """Add one frame; ``pending``: drafted tokens that wait for a verdict."""
    up = SENDER[type(frame)] == "device"
    message = websocket_bytes(size, masked=up)
    if up:
        counts.bytes_up += message
    else:
        counts.bytes_down += message
    if isinstance(frame, frames.Start):
        counts.generations += 1
        counts.prompt_tokens += len(frame.ids)
    elif isinstance(frame, frames.Draft | frames.Propose):
        counts.drafted += frame.length
        counts.draft_bytes += message
        counts.asked += isinstance(frame, frames.Draft) and frame.had > 0
    elif isinstance(frame, frames.Verdict):
        counts.tokens += frame.accepted + (frame.next is not None)
        counts.forwards += pending > 0 or frame.next is not None  # else it answers who asked
        _judged(counts, pending, frame.accepted)
        counts.queue.add(frame.queue_us * 1e-6)
        counts.verify.add(frame.verify_us * 1e-6)
        counts.finished["end"] += frame.ended
    elif isinstance(frame, frames.Tokens):
        counts.tokens += len(frame.ids)
        counts.forwards += 1
        counts.finished["end"] += frame.ended
    elif isinstance(frame, frames.Written):
        if not frame.fed:  # told once more
            return
        counts.tokens += len(frame.ids)
        counts.forwards += 1
        counts.checked += frame.fed - 1 - looked_up
        _judged(counts, frame.fed - 1 - looked_up, frame.accepted)
        counts.queue.add(frame.queue_us * 1e-6)
        counts.verify.add(frame.step_us * 1e-6)
        counts.finished["end"] += frame.ended
    elif isinstance(frame, frames.Done):
        counts.finished["device"] += 1
    elif isinstance(frame, frames.Refused):
        counts.refused[frame.code] += 1


def _judged(counts: Counts, drafted: int, accepted: int) -> None:
    """Of so many drafted tokens of a round, the first ``accepted`` stand."""
    counts.accepted += accepted
    counts.rounds += bool(drafted)
    for at in range(min(drafted, POSITIONS)):
        counts.drafted_at[at] += 1
        counts.accepted_at[at] += at < accepted
