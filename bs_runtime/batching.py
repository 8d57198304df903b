"""Who takes part in the next step: earliest deadline first, under a cap on tokens. No I/O.

Nothing is held back for company: whoever waits when a step can begin takes part in it, be it one
request or a hundred. While a step runs, the next one gathers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

STEP_S = 0.05  # what a full step should take: what others may add to a request's delay
LEAST_CAP, MOST_CAP = 64, 8192  # tokens; with fewer, verdicts would hardly share a forward
LEAST_PART = 16  # tokens of a request that is fed in parts; so a short draft is not torn up


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    due_s: float
    item: T
    tokens: int


class Batcher(Generic[T]):
    """Requests that wait for the model.

    A request is due ``token_s`` after its arrival for each token that it has to feed (of a long
    one, for what a step can take), so short ones, which are the verdicts, go before long ones,
    which are the prompts; and as deadlines do not move, a long one's turn comes however many short
    ones there are. One that is fed in part is due again that much later: prompts take turns.

    ``cap``, the most tokens of a step, doubles while full steps take less than half of ``STEP_S``
    and halves when they take longer than it, so that it fits any model and machine.
    """

    def __init__(self, *, token_s: float = 4e-3) -> None:
        self.cap = LEAST_CAP
        self._token_s = token_s
        self._waiting: list[_Waiting[T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, tokens: int, now: float, *, fed: int = 0) -> None:
        """A request with ``tokens`` to feed, after it had ``fed`` of them in a step.

        Tokens may be 0, if only the judging is left.
        """
        share = fed or min(tokens, self.cap)
        self._waiting.append(_Waiting(now + share * self._token_s, item, tokens))

    def take(self) -> list[tuple[T, int]]:
        """The next step's requests, each with how many of its tokens take part."""
        left = self.cap
        taken: list[tuple[T, int]] = []
        behind: list[_Waiting[T]] = []
        for one in sorted(self._waiting, key=lambda w: w.due_s):  # stable: first come, first served
            count = min(one.tokens, left)
            if count < min(one.tokens, LEAST_PART):
                behind.append(one)
                continue
            taken.append((one.item, count))
            left -= count
        self._waiting = behind
        return taken

    def ran(self, tokens: int, seconds: float) -> None:
        """A step of ``tokens`` took ``seconds``."""
        if tokens >= self.cap:
            if seconds > STEP_S:
                self.cap = max(self.cap // 2, LEAST_CAP)
            elif seconds < STEP_S / 2:
                self.cap = min(self.cap * 2, MOST_CAP)
