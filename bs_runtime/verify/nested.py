"""Rows in tiers where the target's rows are in this machine's memory: one at a time, by numpy.

It is what ``residual`` does to all of them at once, in as few passes over the vocabulary as there
can be: many rests are passed down whole, and where not, few ids are above the cap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from draftlink.distribution.sparse import Drafted, SparseRow

Row = NDArray[np.float64]


def wanted(p: Row, drafted: Drafted) -> float:
    """What the target, whose law is p (V,), wants of a token that was drawn behind rests."""
    left, reach = p.copy(), 1.0
    for row in drafted.above:
        shares = reach * row.probabilities()
        left[row.ids] = 0.0
        reach *= row.rest / row.total
        _pass_down(left, shares.min(initial=1.0), reach)
    return float(left[drafted.token])


def residual(p: Row, path: Sequence[SparseRow]) -> Row:
    """What is drawn from after a token of the last row of a path is rejected, not normalised."""
    left, law, reach = p.copy(), p, 1.0
    for depth, row in enumerate(path):
        lacking = max(0.0, reach - float(left.sum())) if depth else 0.0
        shares = reach * row.probabilities()
        over = (left[row.ids] - shares).clip(min=0.0)
        left[row.ids] = 0.0
        reach *= row.rest / row.total
        rest = left.copy()
        _pass_down(left, shares.min(initial=1.0), reach)
        rest -= left
        rest[row.ids] = over
        if lacking > 0.0:
            rest += law * (lacking / max(float(law.sum()), np.finfo(np.float64).tiny))
        law = rest
    return law if law.sum() > 0.0 else p


def _pass_down(below: Row, least: float, rest: float) -> None:
    """Cut ``below`` (V,), wanted of the ids that no row lists, to what is passed to a rest.

    All of it where it is no more than the rest; else what exceeds ``least``, the row's smallest
    share, as far as that goes; and then of all the same part.
    """
    high = float(below.sum())
    if high <= rest:
        return
    at = np.flatnonzero(below > least)
    over = below[at] - least
    low = high - float(over.sum())
    if low > rest:
        below[at] = least
        below *= rest / low
    else:
        below[at] = least + over * ((rest - low) / (high - low))
