"""What a token and each of its connections may cost. No I/O: time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

BURST_S = 4.0  # seconds of a rate that may come at once
PATIENCE_S = 5.0  # who would be held back for longer is told to come back instead
PENDING_CONNECTIONS = 256  # that no session owns; where there are more, the oldest go
WAITING_MESSAGES = 256  # of a connection, not yet looked at: far more than fit any window


class Refusal(Exception):
    """A request that is not served; ``busy`` ones may come again after ``retry_after_s``."""

    def __init__(
        self,
        code: Literal["request", "busy", "internal"],
        reason: str,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s


class Closing(Exception):
    """The base station ends a connection that may be made again; ``code`` is WebSocket's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """The limits of one token. A line of the tokens file can change each of them by its name."""

    # of a token, over all its connections
    sessions: float = 16
    connections_per_s: float = 5  # each costs a greeting, a slot, and a place among the parked
    tokens_per_s: float = 4_000  # that the target is fed: prompts, drafted, streamed
    bytes_per_s: float = 16 << 20  # up; `dense` rows of a large vocabulary are 300 kB each
    # of each connection
    frames_per_s: float = 500
    prompt_tokens: float = 32_768  # history included
    max_tokens: float = 32_768  # of a generation
    hello_s: float = 10  # to the first message
    idle_s: float = 300  # without a word from either end

    def with_(self, settings: list[str]) -> Limits:
        """These limits changed by ``name=value`` texts. Raises ValueError."""
        known = [field.name for field in fields(self)]
        changes: dict[str, float] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if name not in known or not value > 0:
                raise ValueError(
                    f"{setting!r} is no limit such as sessions=4; there are {', '.join(known)}"
                )
            changes[name] = value
        return replace(self, **changes)


# Where no tokens are asked for, all devices share the one budget: only the sessions are counted.
OPEN = Limits(
    sessions=math.inf, connections_per_s=math.inf, tokens_per_s=math.inf, bytes_per_s=math.inf
)


class Bucket:
    """A token bucket: ``rate`` a second, and ``BURST_S`` seconds' worth at once."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._capacity = rate * BURST_S
        self._level = self._capacity
        self._at = now

    def take(self, count: float, now: float) -> float:
        """Take ``count``; the seconds to wait before it is used.

        What is more than the bucket ever holds is lent: whoever comes next waits for it. Raises
        Refusal, and takes nothing, where the wait would exceed ``PATIENCE_S``.
        """
        if math.isinf(self._rate):
            return 0.0
        self._fill(now)
        wait = max(0.0, (min(count, self._capacity) - self._level) / self._rate)
        if wait > PATIENCE_S:
            raise Refusal(
                "busy",
                f"this token's rate is used up; come back in {math.ceil(wait)} s",
                math.ceil(wait),
            )
        self._level -= count
        return wait

    def give(self, count: float) -> None:
        """Give back what was taken, and not used."""
        self._level += count

    def spend(self, count: float, now: float) -> bool:
        """Take ``count`` if it is there."""
        if math.isinf(self._rate):
            return True
        self._fill(now)
        if count > self._level:
            return False
        self._level -= count
        return True

    def _fill(self, now: float) -> None:
        self._level = min(self._level + (now - self._at) * self._rate, self._capacity)
        self._at = now


class Tenant:
    """Who is behind a token: a name, limits, and what all its connections have in common."""

    def __init__(self, name: str, limits: Limits, *, operator: bool = False) -> None:
        self.name = name
        self.limits = limits
        self.operator = operator
        self.sessions = 0
        # Full at any time that comes first.
        self.tokens = Bucket(limits.tokens_per_s, -math.inf)
        self._connections = Bucket(limits.connections_per_s, -math.inf)
        self.bytes = Bucket(limits.bytes_per_s, -math.inf)

    def admit(self, now: float) -> None:
        """Count one more session. Raises Refusal."""
        if not self._connections.spend(1, now):
            raise Refusal("busy", "this token connects too often", math.ceil(BURST_S))
        if self.sessions >= self.limits.sessions:
            raise Refusal("busy", f"this token has {self.sessions} sessions open already", 30)
        self.sessions += 1

    def leave(self) -> None:
        """One session has ended."""
        self.sessions -= 1
