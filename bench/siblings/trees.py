"""Trees of proposals without replacement, as a device may grow them, and what a target accepts.

A tree grows by what is likeliest to be accepted next for what it costs: another sibling, or a first
child, which takes a draft forward. That is decided before the draw, by chances that were learned
before. Prefixes of a tree, in the order drawn, are the smaller trees that the same rule grows; a
chain is one to which no sibling is added.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bs_runtime.verify import nested
from draftlink.coding.ids import IdModel
from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.distribution.siblings import ROOT, Siblings, numbers
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.schemes.topk import TopK

Row = NDArray[np.float64]
EDGES = (0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.8, 0.95)  # of what is left of q̂, between classes
RANKS = 4  # of a proposal among its siblings: those from the last on are one class
SHAPE_BITS = 3.0  # for whom a proposal follows: about what it takes to say so


class Chances:
    """How likely a proposal is accepted that is judged, by its rank and its share of q̂.

    Learned as a device would: each judged one counts, here by how likely it is to be judged. They
    begin at what the embedded pair's have been on average.
    """

    def __init__(self) -> None:
        classes = len(EDGES) + 1
        first = np.linspace(0.5, 0.98, classes)
        self._seen = np.full((RANKS, classes), 2.0)
        self._right = self._seen * np.stack([first, *np.full((RANKS - 1, classes), 0.25)])
        self._behind = [[1.6, 2.0] for _ in range(classes + 1)]  # right, seen; the root's last

    def first(self, share: float | None) -> float:
        """Of a first child of which no more is known than its parent's share; None: the root's."""
        right, seen = self._behind[-1 if share is None else bisect_right(EDGES, share)]
        return right / seen

    def of(self, rank: int, share: float) -> float:
        """Of a proposal that has been drawn."""
        at = min(rank, RANKS - 1), bisect_right(EDGES, share)
        return float(self._right[at] / self._seen[at])

    def next(self, rank: int, rows: Sequence[SparseRow]) -> float:
        """Of one that is still to be drawn from ``rows``."""
        rates = (self._right / self._seen)[min(rank, RANKS - 1)]
        reach, found = 1.0, 0.0
        for row in rows:
            shares = reach * row.probabilities()
            found += float(shares @ rates[np.searchsorted(EDGES, shares, "right")])
            reach *= row.rest / row.total
        return found + reach * float(rates[0])

    def judged(
        self, rank: int, share: float, parent: float | None, weight: float, right: float
    ) -> None:
        """One was, with probability ``weight``, and accepted in ``right`` of these cases."""
        at = min(rank, RANKS - 1), bisect_right(EDGES, share)
        self._seen[at] += weight
        self._right[at] += weight * right
        if rank == 0:
            behind = self._behind[-1 if parent is None else bisect_right(EDGES, parent)]
            behind[0] += weight * right
            behind[1] += weight


@dataclass
class Tree:
    """Proposals in the order drawn; ``bits`` of each, with those of rows that came with it."""

    parents: list[int] = field(default_factory=list)
    drafted: list[Drafted] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)

    def share(self, node: int) -> float | None:
        """A proposal's share of what it was drawn from; None for the root."""
        if node == ROOT:
            return None
        one = self.drafted[node]
        return one.reach * one.count / one.total

    def path(self, node: int) -> list[int]:
        """Tokens from the root to a proposal."""
        found: list[int] = []
        while node != ROOT:
            found.append(self.drafted[node].token)
            node = self.parents[node]
        return found[::-1]

    def forwards(self) -> list[int]:
        """Draft forwards for the first n proposals, n from 1 on: one for each that has a child."""
        return [len(set(self.parents[: n + 1])) for n in range(len(self.parents))]


def grow(
    q: Callable[[list[int]], Row], scheme: TopK, chances: Chances, most: int, key: bytes,
    position: int, *, siblings: bool, forward: float = 0.0,
) -> Tree:  # fmt: skip
    """A tree of ``most`` proposals behind ``position``; ``q(path)``: the draft's law, (V,).

    ``forward``: what a draft forward costs, in rows of the target.
    """
    tree, order = Tree(), 0
    devices: dict[int, Siblings] = {}
    left = {ROOT: 1.0}  # how likely a proposal is accepted, and none of its children so far is
    ranks = {ROOT: 0}
    open_ = [(-chances.first(None), order, ROOT)]
    while open_ and len(tree.parents) < most:
        *_, parent = heapq.heappop(open_)
        if parent not in devices:
            devices[parent] = Siblings(scheme.rows(q(tree.path(parent))))
        device, rank = devices[parent], ranks[parent]
        known = len(device.known)
        tree.parents.append(parent)
        depth, number = numbers(tree.parents)[-1]

        def below(total: int, tier: int, at: int = position + depth, mine: int = number) -> int:
            return noise.below(key, at, Purpose.DRAFT, total, tier, mine)

        one = device.draw(below)
        node, share = len(tree.drafted), one.reach * one.count / one.total
        tree.drafted.append(one)
        tree.bits.append(_bits(device.known, known, one, scheme) + SHAPE_BITS * siblings)
        chance = chances.of(rank, share)
        left[node], ranks[node] = left[parent] * chance, 0
        left[parent] *= 1.0 - chance
        ranks[parent] += 1
        if siblings and device.more:
            value = left[parent] * chances.next(rank + 1, device.left)
            heapq.heappush(open_, (-value, order := order + 1, parent))
        value = left[node] * chances.first(share) / (1.0 + forward)
        heapq.heappush(open_, (-value, order := order + 1, node))
    return tree


def _bits(rows: Sequence[SparseRow], known: int, one: Drafted, scheme: TopK) -> float:
    """What a proposal adds to a payload, by the real coder: index, and ``rows`` not yet sent."""
    share = one.reach * one.count / one.total
    return _rows_bits(rows, scheme) - _rows_bits(rows[:known], scheme) - math.log2(share)


def _rows_bits(rows: Sequence[SparseRow], scheme: TopK) -> float:
    """Of rows by themselves. The last of them is one that something was drawn from."""
    if not rows:
        return 0.0
    *above, last = rows
    one = Drafted.of(last, int(last.counts.argmax()), above)
    share = one.reach * one.count / one.total
    size = int(max(int(row.ids.max(initial=0)) for row in rows)) + 1
    if len(rows) > scheme.tiers:  # the prior's, which is not sent
        size = sum(len(row.ids) for row in rows)
        one = Drafted(one.token, one.count, one.total, None, tuple(above))
    return scheme.encode([one], IdModel(size))[1] + math.log2(share)


def accepted(tree: Tree, laws: Sequence[Row], chances: Chances) -> list[float]:
    """How likely each proposal comes to be accepted; ``chances`` learns of it.

    ``laws``: the target's, (V,), at the root and behind each proposal.
    """
    found = [0.0] * len(tree.parents)
    for parent in dict.fromkeys(tree.parents):
        law = laws[parent + 1]
        here = 1.0 if parent == ROOT else found[parent]
        children = [node for node, above in enumerate(tree.parents) if above == parent]
        for rank, node in enumerate(children):
            one = tree.drafted[node]
            share = one.reach * one.count / one.total
            right = min(1.0, nested.wanted(law, one) / share)
            chances.judged(rank, share, tree.share(parent), here, right)
            found[node] = here * right
            here *= 1.0 - right
            if here <= 0.0:
                break
            if node != children[-1]:
                rest = nested.residual(law, one.path(len(law)))
                law = rest / rest.sum()
    return found
