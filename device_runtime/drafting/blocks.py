"""Drafted tokens as the window sees them: in flight in blocks, and drafted behind these.

Of a token there is its probability in the draft, and whether it is an EOS; never its id. Times are
this end's, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Proposed(NamedTuple):
    """A drafted token as the window sees it: its probability in the draft, and if it is an EOS."""

    chance: float
    ends: bool


class Judged(NamedTuple):
    """What a verdict says, without any id. ``own``: a token of the target's own follows."""

    accepted: int
    own: bool
    closes: bool
    ended: bool
    verify_s: float
    queue_s: float


@dataclass
class Forward:
    """Drafting under way since ``asked_s``, behind ``fed`` tokens that are fed first.

    ``beside``: blocks were in flight when it began. ``stale``: its epoch has been closed since.
    """

    asked_s: float
    beside: bool
    fed: int
    stale: bool = False


@dataclass
class Block:
    """Drafted tokens in flight. ``whole`` is the probability that all of them are accepted."""

    proposed: list[Proposed]
    waits: bool
    whole: float
    sent_s: float
    due_s: float  # when its verdict should be here


class Flight:
    """What has been drafted and not judged: ``sent`` blocks, and behind them the next ``block``."""

    def __init__(self) -> None:
        self.sent: deque[Block] = deque()
        self.block: list[Proposed] = []
        self._length = 0
        self.over = False  # the last token is an EOS: nothing is drafted behind it

    def __len__(self) -> int:
        return self._length

    @property
    def waits(self) -> bool:
        """Whether nothing may be drafted until the last block's verdict."""
        return bool(self.sent) and self.sent[-1].waits

    @property
    def chances(self) -> list[float]:
        """Of each token that was sent its probability in the draft."""
        return [proposed.chance for block in self.sent for proposed in block.proposed]

    @property
    def ends(self) -> list[bool]:
        """Of each token, sent or not, whether it is an EOS."""
        sent = [proposed.ends for block in self.sent for proposed in block.proposed]
        return sent + [proposed.ends for proposed in self.block]

    def append(self, proposed: Sequence[Proposed]) -> None:
        """These follow what has been drafted."""
        self.block += proposed
        self._length += len(proposed)
        self.over = proposed[-1].ends

    def take(self, *, waits: bool, whole: float, sent_s: float, due_s: float) -> Block:
        """The block is sent, see ``Block``; another one begins."""
        block = Block(self.block, waits, whole, sent_s, due_s)
        self.sent.append(block)
        self.block = []
        return block

    def accept(self, tokens: int) -> None:
        """The first ``tokens``, which are whole blocks, have become part of the history."""
        self._length -= tokens
        self.over = self.over and self._length > 0
        while tokens:
            tokens -= len(self.sent.popleft().proposed)

    def clear(self) -> None:
        """The epoch has been closed: whatever was drafted is void."""
        self.sent.clear()
        self.block, self._length, self.over = [], 0, False
