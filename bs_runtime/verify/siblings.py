"""Judging proposals for one position that were drawn without replacement: one after the other.

Each is judged as a single draft is, by the law r that is still to be written: the target's for the
first. Where it is rejected, r becomes what is drawn from after that, normalised; and where the last
is, the correction comes from r (recursive rejection, arXiv 2402.14160, here over rows of counts in
tiers). That is exact for any number of proposals, provided each has an accept number of its own and
none was left out for what it is; the base station may judge fewer of them, if how many does not
depend on which they are. ``distribution.siblings`` has how they are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bs_runtime.verify import nested
from draftlink.distribution.siblings import ROOT
from draftlink.distribution.sparse import Drafted

Row = NDArray[np.float64]


def stands(wanted: float, drafted: Drafted, uniform: float) -> bool:
    """Whether a proposal of which r has ``wanted`` is accepted: with min(1, wanted / q̂)."""
    return uniform * drafted.reach * drafted.count < wanted * drafted.total


def judge(p: Row, drafted: Sequence[Drafted], uniforms: Sequence[float]) -> tuple[int | None, Row]:
    """Which of the proposals for a position is accepted, if one is; and else r, (V,), sums to 1.

    ``p`` (V,): the target's law. ``uniforms``: their accept numbers.
    """
    law = p
    for place, (one, uniform) in enumerate(zip(drafted, uniforms, strict=True)):
        if stands(nested.wanted(law, one), one, uniform):
            return place, law
        rest = nested.residual(law, one.path(len(p)))
        law = rest / rest.sum()
    return None, law


def walk(
    laws: Callable[[int], Row],
    parents: Sequence[int],
    drafted: Sequence[Drafted],
    uniforms: Sequence[float],
) -> tuple[list[int], Row]:
    """The path of a tree that is accepted, and the law (V,) of the token behind it.

    ``laws(node)``: the target's law behind a proposal, or ``ROOT``. ``parents`` as in
    ``distribution.siblings.numbers``; ``uniforms``: of each proposal its own accept number.
    """
    path: list[int] = []
    at = ROOT
    while True:
        children = [node for node, parent in enumerate(parents) if parent == at]
        found, law = judge(
            laws(at),
            [drafted[node] for node in children],
            [uniforms[node] for node in children],
        )
        if found is None:
            return path, law
        at = children[found]
        path.append(at)
