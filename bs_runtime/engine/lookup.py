"""Look-up: what stood behind the same last tokens before, in the prompt or the text itself.

Free of bits, and of a draft model: where a text repeats what it has (code that is edited, a page
that is summed up), it says what may come next. That is a proposal like any other: the target checks
it, and what is written does not depend on it. Prompt look-up as of Saxena (2023) and of arXiv
2304.04487; the place is found here by a table of runs (``runs``).

A step is given so many of the tokens found as pay for their rows (``Prices.worth``). How likely one
is right is measured: by how many tokens before it are the same as where it was found, those before
it in the proposal included. All that is found is held against the text, whether a step was given it
or not, so a look-up that does not pay is seldom tried and comes back once it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bs_runtime.engine.prices import Prices
from bs_runtime.engine.runs import TAIL, Runs
from draftlink.protocol.history import common

LONGEST = 16  # tokens that are looked up for a step
FIRST = 4  # and for the first: what rows cost may not be known yet
MEMORY = 0.98  # what a token that was met weighs after the next one of its kind
BOUNDS = (4, 8, TAIL)  # of the tokens that are the same: from each on it is another kind
PRIOR_RIGHT, PRIOR_MET = (0.1, 0.3, 0.5, 0.7), 2.0  # as if so many had been met before the first


class Proposer(Protocol):
    """Who says what may come next, at the base station, in one generation."""

    rate: float  # tokens a second that a step begun now promises, with what was proposed last

    def proposed(
        self, history: Sequence[int], held: Sequence[int] = (), alpha: float = 1.0
    ) -> Sequence[int]:
        """Ids that may stand behind ``held``, which may stand behind the history.

        ``alpha``: how likely each of those held is right, if those before it are.
        """


class Nothing:
    """No proposals."""

    rate = 0.0

    def __init__(self, prices: Prices) -> None:
        """``prices``: of no account here."""

    def proposed(
        self, history: Sequence[int], held: Sequence[int] = (), alpha: float = 1.0
    ) -> Sequence[int]:
        """None."""
        return ()


Proposers = Callable[[Prices], Proposer]  # makes a generation's


@dataclass(frozen=True)
class _Foretold:
    """Behind the first ``base`` ids: ``held``, and behind them what was found for ``same`` ids."""

    base: int
    held: int
    ids: Sequence[int]  # those that were held, too
    same: int


class LookUp:
    """A generation's. ``prices``: everybody's."""

    def __init__(self, prices: Prices) -> None:
        self.rate = 0.0
        self._prices = prices
        self._runs = Runs()
        self._right = [PRIOR_MET * right for right in PRIOR_RIGHT]
        self._met = [PRIOR_MET] * len(PRIOR_RIGHT)
        self._foretold: _Foretold | None = None
        self._most = FIRST
        # Asked when it is decided whether to wait, and again when the step begins.
        self._asked: tuple[int, tuple[int, ...], float] | None = None
        self._answer: Sequence[int] = ()

    def proposed(
        self, history: Sequence[int], held: Sequence[int] = (), alpha: float = 1.0
    ) -> Sequence[int]:
        """See ``Proposer``: at most ``LONGEST``, and no more than their rows are worth."""
        asked = len(history), tuple(held), alpha
        if asked != self._asked or not self._runs.has(history):  # it may find more now
            self._asked, self._answer = asked, self._proposed(history, held, alpha)
        return self._answer

    def _proposed(self, history: Sequence[int], held: Sequence[int], alpha: float) -> Sequence[int]:
        self._meet(history)
        self._runs.add(history)
        found = self._runs.find(history, held, LONGEST)
        if found is None:
            self._foretold, self.rate = None, 0.0
            return ()
        self._foretold = _Foretold(len(history), len(held), [*held, *found.ids], found.same)
        behind = [self.chance(found.same + place) for place in range(self._most)]
        count, self.rate = self._prices.worth([alpha] * len(held) + behind, len(held))
        return found.ids[: count - len(held)]

    def chance(self, same: int) -> float:
        """How likely an id is right behind so many that are the same."""
        kind = _kind(same)
        return self._right[kind] / self._met[kind]

    def _meet(self, history: Sequence[int]) -> None:
        """Hold what was found last against the text."""
        told = self._foretold
        if told is None or len(history) <= told.base:
            return
        self._foretold = None
        text = history[told.base : told.base + len(told.ids)]
        agreed = common(told.ids[: len(text)], text)
        for place in range(told.held, min(agreed + 1, len(text))):
            kind = _kind(told.same + place - told.held)
            self._right[kind] = MEMORY * self._right[kind] + (place < agreed)
            self._met[kind] = MEMORY * self._met[kind] + 1.0
        if agreed - told.held >= self._most:
            self._most = min(2 * self._most, LONGEST)


def _kind(same: int) -> int:
    return sum(same >= bound for bound in BOUNDS)
