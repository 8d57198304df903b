"""Who takes part in the next step, and when it begins. No I/O, no clock.

Earliest deadline first, under a cap on tokens. While a step runs, the next one gathers; it is then
held a little for sessions that are about to come, as one step for all costs less than one for each.
Whoever is alone, or whose company is not expected so soon, is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

STEP_S = 0.025  # what a full step should take: what others may add to a request's delay
LEAST_CAP, MOST_CAP = 64, 8192  # tokens; with fewer, verdicts would hardly share a forward
LEAST_PART = 16  # tokens of a request that is fed in parts; so a short draft is not torn up
HOLD = 0.25  # of the last step's time: the longest that a step is held for company
LEARN = 0.25  # weight of a session's newest pause in the one that is expected


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    due_s: float
    item: T
    tokens: int


@dataclass
class _Session:
    """What is known of when a session comes back. Seconds."""

    pause_s: float | None = None  # from its answer to its next request, lately
    answered_s: float | None = None  # None while a request of it is under way


class Batcher(Generic[T]):
    """Requests that wait for the model.

    A request is due ``token_s`` after its arrival for each token that it has to feed (of a long
    one, for what a step can take), so short ones, which are the verdicts, go before long ones,
    which are the prompts; and as deadlines do not move, a long one's turn comes however many short
    ones there are. One that is fed in part is due again that much later: prompts take turns.

    ``cap``, the most tokens of a step, doubles while full steps take less than half of ``STEP_S``
    and halves when they take longer than it, so that it fits any model and machine.

    A step is held (``due``) while a session that has been ``answered`` is expected back, by its
    earlier pauses, within ``HOLD`` of the time that the last step took.
    """

    def __init__(self, tokens: Callable[[T], int] | None = None, *, token_s: float = 4e-3) -> None:
        """``tokens``: what a request has to feed in the end, asked when a step is made of it."""
        self.cap = LEAST_CAP
        self._tokens = tokens
        self._token_s = token_s
        self._waiting: list[_Waiting[T]] = []
        self._sessions: dict[Hashable, _Session] = {}
        self._step_s = 0.0
        self._ready_s: float | None = None  # since when the next step could have begun

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self, item: T, tokens: int, now: float, *, fed: int = 0, session: Hashable = None
    ) -> None:
        """A request with ``tokens`` to feed, after it had ``fed`` of them in a step.

        Tokens may be 0, if only the judging is left. ``session``: whose it is, if it comes again.
        """
        share = fed or min(tokens, self.cap)
        self._waiting.append(_Waiting(now + share * self._token_s, item, tokens))
        known = self._sessions.get(session)
        if known is not None and known.answered_s is not None:
            pause = now - known.answered_s
            before = pause if known.pause_s is None else known.pause_s
            known.pause_s = before + LEARN * (pause - before)
            known.answered_s = None

    def answered(self, session: Hashable, now: float) -> None:
        """A session has its answer and goes on: another request of it is to come."""
        self._sessions.setdefault(session, _Session()).answered_s = now

    def before(self, mine: Callable[[T], bool]) -> int:
        """Requests that are due before the first that is ``mine``; 0 if none is."""
        ordered = sorted(self._waiting, key=lambda w: w.due_s)
        return next((place for place, one in enumerate(ordered) if mine(one.item)), 0)

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Requests that nobody waits for any more."""
        self._waiting = [one for one in self._waiting if not unwanted(one.item)]

    def sits_out(self, session: Hashable) -> None:
        """It does not come back as usual: it waits for something else first."""
        if (known := self._sessions.get(session)) is not None:
            known.answered_s = None

    def forget(self, session: Hashable) -> None:
        """Nothing more is to come of a session."""
        self._sessions.pop(session, None)

    def due(self, now: float) -> float:
        """When the next step is to begin: now, or later, unless other requests come before.

        Ask again when one has come.
        """
        if self._ready_s is None:
            self._ready_s = now
        hold = HOLD * self._step_s
        until = self._ready_s + hold
        if now < until and sum(w.tokens for w in self._waiting) < self.cap:
            for session in self._sessions.values():
                if session.answered_s is not None and session.pause_s is not None:
                    back = session.answered_s + session.pause_s
                    if now - hold <= back <= until:  # who is later than that is not waited for
                        return until
        return now

    def take(self, admit: Callable[[T], bool] = lambda _: True) -> list[tuple[T, int]]:
        """The next step's requests, each with how many of its tokens take part.

        ``admit`` is asked, in the order of the deadlines; who is not admitted goes on waiting.
        """
        left = self.cap
        taken: list[tuple[T, int]] = []
        behind: list[_Waiting[T]] = []
        for one in sorted(self._waiting, key=lambda w: w.due_s):  # stable: first come, first served
            tokens = one.tokens if self._tokens is None else self._tokens(one.item)
            count = min(tokens, left)
            if count < min(tokens, LEAST_PART) or not admit(one.item):
                behind.append(one)
                continue
            taken.append((one.item, count))
            left -= count
        self._waiting = behind
        self._ready_s = None
        return taken

    def ran(self, tokens: int, seconds: float) -> None:
        """A step of ``tokens`` took ``seconds``."""
        self._step_s = seconds
        if tokens >= self.cap:
            if seconds > STEP_S:
                self.cap = max(self.cap // 2, LEAST_CAP)
            elif seconds < STEP_S / 2:
                self.cap = min(self.cap * 2, MOST_CAP)
