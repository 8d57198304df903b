"""Models that replay rows: what target and draft say at each position, whatever stands before it.

Where a scheme sends rows the text depends on who draws a token, so no two modes write the same one.
Here that does not matter: a position's two rows are the same behind any text, and with them what is
accepted there, and how sure the draft is of it. They are the embedded pair's own, cut down to a
small vocabulary in which Σ min(p, q) is the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.virtual import record
from bench.virtual.record import VOCAB
from bs_runtime.model.kv import Feed

LISTED = 60  # ids that are kept; behind them three stand for all others
LEAST = -30.0  # the logarithm of what is never drawn


@dataclass(frozen=True)
class Rows:
    """A place for each position: logarithms of the target's p and of the draft's q, (n, ``VOCAB``).

    A text's first id says where in them it begins: at so many ``stride``.
    """

    p: NDArray[np.float32]
    q: NDArray[np.float32]
    stride: int = 97

    @classmethod
    def of(cls, pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Rows:
        """Of distributions p and q (V,) of each place."""
        small = [_cut(p, q) for p, q in pairs]
        p, q = (np.maximum(np.log(np.maximum(np.stack(each), 1e-30)), LEAST).astype(np.float32)
                for each in zip(*small, strict=True))  # fmt: skip
        return cls(p, q)

    @property
    def alpha(self) -> float:
        """The mean of Σ min(p, q)."""
        return float(np.minimum(np.exp(self.p), np.exp(self.q)).sum(axis=1).mean())

    def worse(self, alpha: float) -> Rows:
        """The same target, and a draft that at some places says what belongs to others."""
        places = list(range(len(self.p)))
        random.Random(0).shuffle(places)
        q = self.q.copy()
        for at, place in enumerate(places):
            # A place's ids are its own; those of another one are shifted, and mean nothing here.
            q[place] = np.roll(self.q[places[at - 1]], 1 + at % (VOCAB - 1))
            if at % 16 == 0 and replace(self, q=q).alpha <= alpha:
                break
        return replace(self, q=q)

    def then(self, other: Rows, place: int, length: int) -> Rows:
        """This one's draft, and from a text's ``place`` on another's; texts of ``length``.

        The texts begin at every ``length``.
        """
        late = (np.arange(len(self.p)) % length >= place)[:, None]
        return replace(self, q=np.where(late, other.q, self.q), stride=length)

    def at(self, first: int, position: int) -> int:
        """The place of a position in the text that begins with an id."""
        return (first * self.stride + position) % len(self.p)


def _cut(p: NDArray[np.float64], q: NDArray[np.float64]) -> tuple[Any, Any]:
    """Both over ``VOCAB`` ids: those that either is likeliest to draw, and three for the rest.

    The three are what both draw of the rest, what only the target does, and only the draft.
    """
    kept = np.argsort(-np.maximum(p, q), kind="stable")[:LISTED]
    both = np.minimum(p, q).sum() - np.minimum(p[kept], q[kept]).sum()
    mine, theirs = 1.0 - p[kept].sum() - both, 1.0 - q[kept].sum() - both
    spare = [0.0] * (VOCAB - LISTED - 3)
    return (
        np.array([*p[kept], both, mine, 0.0, *spare]),
        np.array([*q[kept], both, 0.0, theirs, *spare]),
    )


class Draft:
    """A draft model that replays rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._first = 0
        self.length = 0
        self.bytes = 0

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ids; the last one's logits (V,)."""
        if not self.length:
            self._first = ids[0]
        self.length += len(ids)
        row: NDArray[np.float32] = self._rows.q[self._rows.at(self._first, self.length)]
        return row

    def rollback(self, length: int) -> None:
        """Cut the cache back."""
        self.length = length


class Target(record.Target):
    """A target that replays rows."""

    def __init__(self, rows: Rows) -> None:
        super().__init__([])
        self._of = rows
        self.longest = 0  # tokens that a slot held

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """Feed many slots at once: see ``Engine.forward``."""
        return torch.from_numpy(self._of.p[list(self._places(feeds))])

    def _places(self, feeds: Sequence[Feed]) -> Iterator[int]:
        for feed in feeds:
            slot: Any = feed.slot
            slot.ids += feed.ids
            self.longest = max(self.longest, slot.length)
            for position in range(slot.length - feed.rows + 1, slot.length + 1):
                yield self._of.at(slot.ids[0], position)
