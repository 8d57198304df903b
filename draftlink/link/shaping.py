"""A modelled link: when bytes that go in at one end come out at the other. No clock, no sockets.

Time is ``now``, in seconds since the link came up. Each direction serialises at its rate, then
delays; bytes of one connection stay in order and are never lost, as TCP would have it: a lost
segment comes later, and those behind it wait. Rates count the bytes of the TCP stream; the
handshake and the headers of TCP/IP cost nothing here.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

SEGMENT_BYTES = 1460  # what an Ethernet frame holds of a TCP stream, and what one loss takes
RTO_FLOOR_S = 0.2  # Linux's least variance term in the retransmission timeout of RFC 6298


@dataclass(frozen=True)
class LinkProfile:
    """One kind of link."""

    rate_up: float  # bit/s, device to base station
    rate_down: float  # bit/s
    rtt_s: float  # of an empty message; half of it each way
    jitter_s: float = 0.0  # mean of a segment's extra delay, uniform from 0 to twice this
    loss: float = 0.0  # share of segments that are lost, each way

    def __post_init__(self) -> None:
        for name in ("rate_up", "rate_down"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 bit/s, not {getattr(self, name)}")
        for name in ("rtt_s", "jitter_s"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 seconds, not {getattr(self, name)}")
        # From one half on, doubling timeouts make the mean stall infinite.
        if not 0.0 <= self.loss < 0.5:
            raise ValueError(f"loss must be at least 0 and below 0.5, not {self.loss}")

    @property
    def stall_s(self) -> float:
        """What a lost segment costs unless told otherwise: a retransmission timeout."""
        return self.rtt_s + RTO_FLOOR_S

    def __str__(self) -> str:
        """Rate, round trip and lost segments, as the help of ``draftlink link`` has them."""
        up, down = (f"{rate / 1e6:g}" for rate in (self.rate_up, self.rate_down))
        rate = up if up == down else f"{up} up and {down} down"
        loss = f" {100.0 * self.loss:g}%" if self.loss else ""
        return f"{rate} Mbit/s {1e3 * self.rtt_s:g} ms{loss}"

    @property
    def mean_rtt_s(self) -> float:
        """The mean round trip of messages of one segment, alone on the link: jitter and stalls."""
        stalls_s = self.loss * self.stall_s / (1.0 - 2.0 * self.loss)  # as ``Shaper`` draws them
        return self.rtt_s + 2.0 * (self.jitter_s + stalls_s)


# As the literature on edge inference has them; one rate for both directions, no jitter stated.
PROFILES = {
    "wifi": LinkProfile(50e6, 50e6, 0.005),
    "lte": LinkProfile(5e6, 5e6, 0.060, loss=0.02),
    "5g": LinkProfile(50e6, 50e6, 0.015, loss=0.005),
    "satellite": LinkProfile(5e6, 5e6, 0.300),
    "uav_los": LinkProfile(20e6, 20e6, 0.010, loss=0.01),
    "uav_nlos": LinkProfile(5e6, 5e6, 0.050, loss=0.03),
    "paper": LinkProfile(50e6, 50e6, 0.0),  # TK-SLT's modelled uplink
}


def profile(name: str) -> LinkProfile:
    """The profile of that name. Raises ValueError, listing all, where there is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"there is no profile {name!r}; there are {', '.join(PROFILES)}") from None


@dataclass(frozen=True)
class Rate:
    """A rate over time: ``bits_per_s[i]`` from ``starts[i]`` s on, the last one for ever."""

    starts: tuple[float, ...]
    bits_per_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.starts or len(self.starts) != len(self.bits_per_s) or self.starts[0] != 0.0:
            raise ValueError("a rate over time starts at 0 seconds")
        if any(not a < b < math.inf for a, b in pairwise(self.starts)):
            raise ValueError("the times of a rate must rise")
        if any(not 0.0 <= rate < math.inf for rate in self.bits_per_s):
            raise ValueError("a rate must be at least 0 bit/s")
        if self.bits_per_s[-1] == 0.0:
            raise ValueError("the last rate must be above 0 bit/s, or nothing would ever arrive")

    def at(self, time_s: float) -> float:
        """The rate at ``time_s``, in bit/s."""
        return self.bits_per_s[bisect_right(self.starts, time_s) - 1]

    def finish(self, start_s: float, bits: float) -> float:
        """When ``bits`` that start at ``start_s`` have been sent."""
        index = max(0, bisect_right(self.starts, start_s) - 1)
        time_s = start_s
        for rate, end in zip(self.bits_per_s[index:-1], self.starts[index + 1 :], strict=True):
            room = rate * (end - time_s)
            if bits <= room and rate > 0.0:
                return time_s + bits / rate
            bits -= room
            time_s = end
        return time_s + bits / self.bits_per_s[-1]

    def without(self, outages: Iterable[tuple[float, float]]) -> Rate:
        """The same with rate 0 in each of the intervals [start, end), in seconds."""
        intervals = list(outages)
        for start, end in intervals:
            if not 0.0 <= start < end < math.inf:
                raise ValueError(f"an outage ends after it starts, not from {start} to {end} s")
        times = sorted({*self.starts, *(time for interval in intervals for time in interval)})
        down = [any(start <= time < end for start, end in intervals) for time in times]
        rates = [0.0 if out else self.at(time) for time, out in zip(times, down, strict=True)]
        return Rate(tuple(times), tuple(rates))


def read_trace(text: str) -> tuple[Rate, Rate]:
    """The rates up and down of a CSV file's text, rates in bit/s over seconds.

    Columns ``time_s,rate`` (both directions) or ``time_s,rate_up,rate_down``, named in the first
    line. Raises ValueError, with the line, for anything else.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [name.strip() for name in lines[0].split(",")] if lines else []
    if names not in (["time_s", "rate"], ["time_s", "rate_up", "rate_down"]):
        raise ValueError("a trace's first line is time_s,rate or time_s,rate_up,rate_down")
    rows = []
    for line in lines[1:]:
        try:
            row = [float(field) for field in line.split(",")]
        except ValueError:
            row = []
        if len(row) != len(names):
            raise ValueError(f"a trace's line has {len(names)} numbers, not {line!r}")
        rows.append(row)
    times = tuple(row[0] for row in rows)
    return Rate(times, tuple(row[1] for row in rows)), Rate(times, tuple(row[-1] for row in rows))


class Shaper:
    """One direction of a link, shared by all connections over it."""

    def __init__(
        self,
        rate: Rate,
        delay_s: float,
        *,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        stall_s: float = 0.0,
        seed: str = "",
    ) -> None:
        self._rate = rate
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._loss, self._stall_s = loss, stall_s
        self._random = random.Random(seed)  # seeded by a string: the same on every machine
        self._free_s = 0.0  # when the last byte of what was given so far will have been sent

    def transmit(self, size: int, now: float) -> tuple[float, float]:
        """When ``size`` bytes given at ``now`` have left, and when they arrive."""
        self._free_s = departs = self._rate.finish(max(now, self._free_s), 8.0 * size)
        # Both drawn whether needed or not: one number of the sequence per segment and purpose.
        lost, extra = self._random.random(), self._random.random()
        arrives = departs + self._delay_s + 2.0 * self._jitter_s * extra
        # Lost n times in a row with probability lossⁿ. Each timeout is twice the one before
        # (RFC 6298, 5.5), so that the mean is loss · stall / (1 − 2 loss).
        stall_s, threshold = self._stall_s, self._loss
        while lost < threshold:
            arrives += stall_s
            stall_s, threshold = 2.0 * stall_s, threshold * self._loss
        return departs, arrives


class Flow:
    """One connection's bytes in one direction: written at one end, read in order at the other."""

    def __init__(self, shaper: Shaper) -> None:
        self._shaper = shaper
        self._queued: deque[tuple[float, int]] = deque()  # (departs, bytes) of what has not left
        self._segments: deque[tuple[float, bytes]] = deque()  # (arrives, bytes), in order
        self._last_s = 0.0
        self._ended = False

    def write(self, data: bytes, now: float) -> float:
        """Give bytes at ``now``; when the last of them arrives."""
        if self._ended:
            raise ValueError("nothing can be written after the end")
        for at in range(0, len(data), SEGMENT_BYTES):
            self._put(data[at : at + SEGMENT_BYTES], now)
        return self._last_s

    def write_eof(self, now: float) -> float:
        """The writer has no more; when the reader learns of it."""
        if not self._ended:
            self._put(b"", now)
            self._ended = True
        return self._last_s

    def _put(self, piece: bytes, now: float) -> None:
        departs, arrives = self._shaper.transmit(len(piece), now)
        self._last_s = max(self._last_s, arrives)  # TCP delivers in order
        self._queued.append((departs, len(piece)))
        self._segments.append((self._last_s, piece))

    @property
    def next_s(self) -> float | None:
        """When there is next something to read, or None."""
        return self._segments[0][0] if self._segments else None

    def read(self, now: float) -> tuple[bytes, bool]:
        """What has arrived by ``now``, and whether nothing comes after it."""
        pieces = []
        while self._segments and self._segments[0][0] <= now:
            pieces.append(self._segments.popleft()[1])
        return b"".join(pieces), self._ended and not self._segments

    def unread(self, now: float) -> int:
        """Bytes that have arrived by ``now`` and have not been read."""
        total = 0
        for arrives, piece in self._segments:
            if arrives > now:
                break
            total += len(piece)
        return total

    def room_s(self, limit: int, now: float) -> float:
        """From when at most ``limit`` bytes wait to be sent; ``now`` where that is so already."""
        while self._queued and self._queued[0][0] <= now:
            self._queued.popleft()
        waiting = 0
        for departs, size in reversed(self._queued):
            waiting += size
            if waiting > limit:
                return departs
        return now


@dataclass(frozen=True)
class Link:
    """Both directions, each with its own state and random numbers."""

    up: Shaper
    down: Shaper


def make_link(
    profile: LinkProfile,
    *,
    outages: Iterable[tuple[float, float]] = (),
    trace: tuple[Rate, Rate] | None = None,
    stall_s: float | None = None,
    seed: int = 0,
) -> Link:
    """A link of that profile.

    ``outages``: (start, end) in seconds, both directions. ``trace``: rates up and down over time
    instead of the profile's. ``stall_s``: what a lost segment costs instead of the profile's
    timeout. The same seed gives the same link.
    """
    intervals = list(outages)
    stall_s = profile.stall_s if stall_s is None else stall_s
    if not 0.0 <= stall_s < math.inf:
        raise ValueError(f"stall_s must be at least 0 seconds, not {stall_s}")
    up, down = trace or (Rate((0.0,), (profile.rate_up,)), Rate((0.0,), (profile.rate_down,)))

    def direction(rate: Rate, name: str) -> Shaper:
        return Shaper(
            rate.without(intervals),
            profile.rtt_s / 2.0,
            jitter_s=profile.jitter_s,
            loss=profile.loss,
            stall_s=stall_s,
            seed=f"{seed}/{name}",
        )

    return Link(direction(up, "up"), direction(down, "down"))


def adjusted(profile: LinkProfile, **changes: float | None) -> LinkProfile:
    """The profile with those fields changed that are not None."""
    return replace(profile, **{name: v for name, v in changes.items() if v is not None})
