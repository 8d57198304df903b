"""What a device drafts on several paths at once, where both ends write: a tree, without I/O.

Each forward gives a row behind each of a few tokens. Of a row the first to arrive is drafted, and
those behind it stand beside it, as they may be right in its place. The *trunk* goes from the text
through what was drafted: it is what is proposed. Beside its next token a forward has room for
others that may come to be the text's: the most probable first, as long as a row brings more for
its price than the forward does so far, and more than the price of a drafted token (best-first
trees: EAGLE-2, arXiv 2406.16858; here with what a row costs). Where the text leaves the trunk by a
token that stood beside it, what was drafted behind that is the trunk from then on.

A token is *fed* once its row was asked for. What lies in the cache behind its chain is a block
(``model.block``) of the fed ones, and the next forward is told which of it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from device_runtime.drafting.drafter import Pass, Proposal
from device_runtime.model.block import ROOT

# Of a forward of one row, with its draws: what each further row takes. SmolLM2-135M in int8, two
# threads: 6.5, 6.9, 7.7, 8.4 ms for one to four, and with their draws 1.45 of one for four.
ROW = 0.15
MOST = 128  # tokens of the block: what a forward is told of each of them


def lasts(rows: int) -> float:
    """How long a forward of so many rows takes, of one of a single row."""
    return 1.0 + ROW * (rows - 1)


Chances = Callable[[Proposal], Sequence[float]]


@dataclass(eq=False)
class Node:
    """A token that may stand behind ``parent``; ``chance``: if that is right, how likely this is.

    ``proposal``: where it was drafted, and does not stand beside what was. ``cut``: what had been
    drafted behind it is forgotten.
    """

    token: int
    parent: Node | None
    chance: float = 1.0
    proposal: Proposal | None = None
    children: list[Node] = field(default_factory=list)
    fed: bool = False
    cut: bool = False


def worth(first: float, others: Sequence[float], most: int, least: float) -> int:
    """How many of ``others`` a forward takes beside a token that is right with probability
    ``first``, at most ``most``. They are ordered, the most probable first.

    As many as make tokens for the price of a forward the most: one more as long as it brings more
    for ``ROW`` than all before it do for theirs. ``least``: what each must bring at the least.
    """
    brings, takes = first, 1.0
    for count, chance in enumerate(others[:most]):
        if chance < least or chance * takes <= ROW * brings:
            return count
        brings, takes = brings + chance, takes + ROW
    return min(len(others), most)


class Tree:
    """A generation's. ``ends``: ids that nothing follows. ``least``: tokens of text that a drafted
    token must save."""

    def __init__(self, ends: Collection[int], least: float) -> None:
        self._ends, self._least = ends, least
        self._root = Node(ROOT, None)  # the last token of the text
        self._rows: list[Node] = []  # of the block

    @property
    def trunk(self) -> list[Node]:
        """What is drafted behind the text."""
        found, at = [], self._root
        while at.children:
            at = at.children[0]
            found.append(at)
        return found

    @property
    def root(self) -> Node:
        """The last token of the text."""
        return self._root

    def beside(self) -> Iterator[list[Node]]:
        """What was drafted on beside the trunk: chains, of which each follows a token of the trunk
        or of a chain before it, and goes on with what was drafted first behind each."""
        trunk = {self._root, *self.trunk}
        open_ = [child for node in trunk for child in node.children if child not in trunk]
        while open_:
            chain, others = [open_.pop(0)], list[Node]()
            while children := chain[-1].children:
                chain.append(children[0])
                others += children[1:]
            open_ += others
            if chain[0].children:
                yield chain

    def fed(self, length: int, cached: int) -> int:
        """Tokens of text and trunk that are in the cache; ``cached`` are in its chain.

        ``length``: of the text.
        """
        if self._root.fed:
            return length + sum(node.fed for node in self.trunk)
        return cached + len(self._standing()[0])

    def written(self, ids: Sequence[int]) -> bool:
        """The text goes on with ``ids``. Whether all of them were in the tree."""
        known = True
        for token in ids:
            stands = [child for child in self._root.children if child.token == token]
            known = known and bool(stands)
            self._root = stands[0] if stands else Node(token, self._root)
        return known

    def next(self, most: int, room: int, entries: int) -> Pass:
        """The next forward: behind the trunk, and beside that at most ``most`` - 1 tokens.

        ``room``: how many tokens may stand behind the text, and ``entries`` how many may lie in the
        cache behind it.
        """
        chain, rest = self._standing()
        if len(rest) + most > min(entries, MOST):
            self._prune()
            kept = set(self.trunk)
            rest = [at for at in rest if self._rows[at] in kept]
            most = 1
        root, trunk = self._root, self.trunk
        self._rows = [self._rows[at] for at in rest]
        root.parent = None  # what is before it is in the chain, or is fed now
        nodes = [trunk[-1] if trunk else root]
        if trunk:
            reaches = dict(self._reached(root, room))
            tip = nodes[0]
            others = [node for node in reaches if not node.fed and node is not tip]
            others = [node for node in others if node.token not in self._ends]
            others.sort(key=lambda node: -reaches[node])
            first = reaches.get(tip, 0.0)
            count = worth(first, [reaches[node] for node in others], most - 1, self._least)
            nodes += others[:count]
            self._rows += nodes
        number = {node: at for at, node in enumerate(self._rows)}
        parents = [number.get(node.parent, ROOT) if node.parent else ROOT for node in nodes]
        for node in nodes:
            node.fed = True
        return Pass(
            tuple(chain), tuple(rest), tuple(parents) if trunk else (),
            tuple(tuple(self.behind(node)) for node in nodes), tuple(nodes),
        )  # fmt: skip

    def grown(self, made: Pass, drawn: Sequence[Proposal], chances: Chances) -> None:
        """What a forward drew behind each of its tokens; ``chances``: of each that stands there."""
        for node, proposal in zip(made.nodes, drawn, strict=True):
            assert isinstance(node, Node)
            ids = proposal.drafted.token, *proposal.drafted.beside
            node.children = [
                Node(token, node, chance, None if place else proposal)
                for place, (token, chance) in enumerate(zip(ids, chances(proposal), strict=True))
            ]

    def _standing(self) -> tuple[list[int], list[int]]:
        """Of the block what the text has come through, and what may still stand behind it."""
        text, at = {self._root}, self._root.parent
        while at is not None:
            text.add(at)
            at = at.parent
        alive = {node for node, _ in self._reached(self._root)}
        chain = [at for at, node in enumerate(self._rows) if node in text]
        return chain, [at for at, node in enumerate(self._rows) if node in alive]

    def _prune(self) -> None:
        """Only the trunk is drafted on from: the cache has no room for more."""
        for node in (self._root, *self.trunk):
            for child in node.children[1:]:
                child.children.clear()
                child.fed = child.cut = True

    def _reached(self, root: Node, room: float = math.inf) -> Iterator[tuple[Node, float]]:
        """What may stand behind ``root``, less than ``room`` tokens, and how likely each does."""
        open_ = [(root, 1.0, 0)]
        while open_:
            node, reach, depth = open_.pop()
            if depth:
                yield node, reach
            if depth + 1 < room:
                open_ += [(child, reach * child.chance, depth + 1) for child in node.children]

    def behind(self, node: Node) -> list[int]:
        """The tokens from the text to ``node``."""
        found = []
        at: Node | None = node
        while at is not None and at is not self._root:
            found.append(at.token)
            at = at.parent
        return found[::-1]
