"""Whom to feed alone, after a forward has failed. No I/O, no clock.

A forward fails for all that it feeds. Whose fault it was is found by feeding each alone, between
the others' steps, so that nobody is stopped; and whoever comes soon after is tried alone first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

GUARDED = 256  # steps after a failure in which newcomers are tried alone
SPARED = 24  # steps of the others between two of newcomers: what these can cost them


class Suspects(Generic[T]):
    """Requests that are fed alone, of two kinds.

    The *suspects* of a failed step: one each between two of the others' steps, those first of whom
    least is known. Whoever fails alone is to blame, and the rest of that step is cleared; whoever
    does not is done, and feeds its next request with the others. *Newcomers*: requests of sessions
    that no forward has fed, for ``GUARDED`` steps after a failure. So one that comes again and
    again to make a step fail costs the others few steps in ``SPARED``.

    ``session``: whose a request is.
    """

    def __init__(self, session: Callable[[T], Hashable]) -> None:
        self._session = session
        self._known: dict[Hashable, None] = {}  # sessions that forwards have fed, the newest last
        self._suspects: deque[T] = deque()
        self._newcomers: deque[T] = deque()
        self._incident: dict[T, int] = {}  # of each suspect: in which failed step it was
        self._incidents = 0
        self._steps = GUARDED  # since the last failure
        self._others = 0  # steps of the others since the last suspect's
        self._spared = SPARED  # and since the last newcomer's

    def __len__(self) -> int:
        return len(self._suspects) + len(self._newcomers)

    def guards(self, request: T) -> bool:
        """Whether a request that has come is to be tried alone first."""
        return self._steps < GUARDED and self._session(request) not in self._known

    def add(self, request: T) -> None:
        """A newcomer; or one that was fed alone, in part, and is to be fed on."""
        (self._suspects if request in self._incident else self._newcomers).append(request)

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Requests that nobody waits for any more."""
        for kind in (self._suspects, self._newcomers):
            for request in [one for one in kind if unwanted(one)]:
                kind.remove(request)
                self._incident.pop(request, None)

    def forget(self, session: Hashable) -> None:
        """Nothing more is to come of a session."""
        self._known.pop(session, None)

    def next(self, *, others: bool) -> T | None:
        """Who is to be fed alone in the next step; None if it is the others' turn.

        ``others``: whether any of those wait. Whoever is given is to be added again, or ``ran``.
        """
        kind = self._turn(others)
        return kind.popleft() if kind else None

    def is_next(self, *, others: bool) -> bool:
        """Whether ``next`` has one."""
        return bool(self._turn(others))

    def _turn(self, others: bool) -> deque[T] | None:
        if self._newcomers and (self._spared >= SPARED or not (others or self._suspects)):
            return self._newcomers
        return self._suspects if self._others or not others else None

    def ran(self, requests: Sequence[T], *, alone: T | None) -> None:
        """A step has fed ``requests``; ``alone`` is the one that was given for it, if one was."""
        self._steps += 1
        for request in requests:
            self._known.setdefault(self._session(request))
        if alone is None:
            self._others += 1
            self._spared += 1
        elif alone in self._incident:
            self._others = 0
        else:
            self._spared = 0

    def answered(self, request: T) -> None:
        """A request has come to its end."""
        self._incident.pop(request, None)

    def failed(self, requests: Sequence[T], *, alone: T | None) -> tuple[T | None, list[T]]:
        """A step failed that fed ``requests``: whom to refuse, if it is clear, and who is cleared.

        All others are fed alone from here on.
        """
        known = {session: number for number, session in enumerate(self._known)}
        self.ran((), alone=alone)
        self._steps = 0
        if alone is not None and alone in self._incident:
            incident = self._incident.pop(alone)
            cleared = [one for one in self._suspects if self._incident[one] == incident]
            for one in cleared:
                self._suspects.remove(one)
                del self._incident[one]
            return alone, cleared
        self._incidents += 1
        newest = sorted(requests, key=lambda one: -known.get(self._session(one), len(known)))
        self._suspects.extendleft(reversed(newest))
        self._incident |= dict.fromkeys(newest, self._incidents)
        return None, []
