"""Several tokens proposed for one position: drawn without replacement, by rows both ends know.

The first is drawn as a single draft is. It then leaves the row that listed it, whose total is less
by its count; the row's rest, and all rows above, stay. From what is left the next is drawn. Nothing
is a fraction that both ends would have to round alike: what is left are rows of counts again. Where
a row becomes empty, nothing can be drawn behind the rest above it, which is 0 from then on.

Whether there is to be one more is decided before it is drawn, by whatever is known then. Once drawn
it is proposed: to leave it out for what it is would change the law of those that are left. How they
are judged is in ``bs_runtime.verify.siblings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from draftlink.distribution.sparse import Drafted, SparseRow

ROOT = -1  # the parent of a proposal for the first position


def without(rows: Sequence[SparseRow], depth: int, token: int) -> tuple[SparseRow, ...]:
    """What is left of ``rows``, outermost first, when ``token`` of that at ``depth`` was drawn.

    None where all that they list has been drawn. Raises ValueError for a token that is not listed
    there.
    """
    row = rows[depth]
    kept = row.ids != token
    if kept.all():
        raise ValueError(f"token {token} is not in the row that it is said to be drawn from")
    counts = row.counts[kept]
    left = list(rows)
    left[depth] = SparseRow(row.ids[kept], counts, int(counts.sum()) + row.rest, row.rest)
    while left and not left[-1].total:
        left.pop()
        if left:
            above = left[-1]
            left[-1] = SparseRow(above.ids, above.counts, above.total - above.rest, 0)
    return tuple(left)


class Siblings:
    """Proposals for one position, as the device draws them.

    ``rows`` are those of a scheme, outermost first, the prior's last. They are asked for as draws
    come to them, and ``known`` are those that were: a base station has to be sent them.
    """

    def __init__(self, rows: Iterable[SparseRow]) -> None:
        self.known: list[SparseRow] = []
        self.left: tuple[SparseRow, ...] = ()  # of those, what has not been drawn
        self._rows: Iterator[SparseRow] = iter(rows)

    @property
    def more(self) -> bool:
        """Whether there is anything left to draw."""
        return bool(self.left) or not self.known

    def draw(self, below: Callable[[int, int], int]) -> Drafted:
        """The next; ``below(total, tier)`` draws from [0, total) with this proposal's own numbers.

        Its rows are what was left. Raises ValueError where nothing is.
        """
        if not self.more:
            raise ValueError("all that the rows list has been proposed")
        depth = 0
        while True:
            if depth == len(self.known):
                row = next(self._rows)
                self.known.append(row)
                self.left = (*self.left, row)
            row = self.left[depth]
            index = row.draw(below(row.total, depth))
            if index < len(row.ids):
                drafted = Drafted.of(row, index, self.left[:depth])
                self.left = without(self.left, depth, drafted.token)
                return drafted
            depth += 1


def rebuilt(rows: Sequence[SparseRow], drawn: Iterable[tuple[int, int]]) -> list[Drafted]:
    """The proposals, as a base station has them: rows as they were sent, and what was drawn.

    ``drawn``: of each the depth of its row, and its token. Raises ValueError for what cannot be
    drawn there.
    """
    left, found = tuple(rows), []
    for depth, token in drawn:
        if not 0 <= depth < len(left):
            raise ValueError(f"nothing is left to draw {depth} rows down")
        row = left[depth]
        left_then, left = left, without(left, depth, token)
        index = int(row.ids.searchsorted(token))
        found.append(Drafted.of(row, index, left_then[:depth]))
    return found


def numbers(parents: Sequence[int]) -> list[tuple[int, int]]:
    """Of each proposal of a tree how far it is from the root, and its number at that position.

    ``parents``: of each, in the order in which they were drawn, that which it follows, or ``ROOT``.
    The number counts all proposals for a position, whatever they follow: it is the ``candidate``
    of their draws. By its rank among its siblings a cousin's draw would be made with numbers that
    have been seen already when it was decided whether to draw it.
    """
    depths: list[int] = []
    counts: dict[int, int] = {}
    found = []
    for parent in parents:
        depth = 0 if parent == ROOT else depths[parent] + 1
        number = counts.get(depth, 0)
        counts[depth] = number + 1
        depths.append(depth)
        found.append((depth, number))
    return found
