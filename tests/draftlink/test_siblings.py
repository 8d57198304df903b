"""Proposals without replacement: what one end draws the other rebuilds, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.distribution.siblings import Siblings, rebuilt, without
from draftlink.distribution.sparse import SparseRow
from draftlink.schemes.topk import TopK

KEY = noise.key_from_seed(1, "device")
SIZE = 12
SCHEME = TopK(1, 8, tiers=3)


def drawn(device: Siblings, number: int):
    return device.draw(lambda total, tier: noise.below(KEY, 5, Purpose.DRAFT, total, tier, number))


def rows(seed: int):
    return SCHEME.rows(np.random.default_rng(seed).dirichlet(np.full(SIZE, 0.5)))


@pytest.mark.parametrize("seed", range(20))
def test_the_base_station_has_what_was_drawn_from(seed):
    """All of the support, each id once; the rows are those that draws have come to."""
    device, found = Siblings(rows(seed)), []
    while device.more:
        found.append(drawn(device, len(found)))
    assert sorted(one.token for one in found) == list(range(SIZE))
    whole = list(rows(seed))
    assert len(device.known) == len(whole) and device.left == ()
    again = rebuilt(whole, [(len(one.above), one.token) for one in found])
    for ours, theirs in zip(found, again, strict=True):
        assert (ours.token, ours.count, ours.total) == (theirs.token, theirs.count, theirs.total)
        for a, b in zip(ours.path(SIZE), theirs.path(SIZE), strict=True):
            assert a.ids.tolist() == b.ids.tolist() and a.counts.tolist() == b.counts.tolist()
            assert (a.total, a.rest) == (b.total, b.rest) and a.counts.sum() + a.rest == a.total
    with pytest.raises(ValueError, match="has been proposed"):
        drawn(device, len(found))


def test_the_first_is_what_is_drafted_alone():
    """So a device that adds siblings, or none, drafts the same chain."""
    for seed in range(20):
        q = np.random.default_rng(seed).dirichlet(np.full(SIZE, 0.5))
        assert drawn(Siblings(SCHEME.rows(q)), 0).token == SCHEME.propose(q, KEY, 5).token


def test_a_proposals_numbers_are_its_own():
    found = {
        noise.below(KEY, 5, Purpose.DRAFT, 1 << 31, tier, number)
        for tier in range(4)
        for number in range(64)
    }
    assert len(found) == 256
    assert noise.below(KEY, 5, Purpose.DRAFT, 100, 2, 0) == noise.below(
        KEY, 5, Purpose.DRAFT, 100, 2
    )


def test_where_a_row_becomes_empty_the_rest_above_it_is_0():
    outer = SparseRow(np.array([3]), np.array([5]), 8, 3)
    inner = SparseRow(np.array([4, 6]), np.array([9, 7]), 16)
    (first, second) = without((outer, inner), 1, 4)
    assert (first.total, first.rest) == (8, 3) and second.ids.tolist() == [6]
    assert second.total == 7
    (last,) = without((first, second), 1, 6)
    assert (last.total, last.rest) == (5, 0)
    assert without((last,), 0, 3) == ()
    (first, second) = without((outer, inner), 0, 3)
    assert (first.total, first.rest) == (3, 3) and len(first.ids) == 0
    assert without((first, second), 1, 4)[0].total == 3


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 4)],
        [(1, 3)],
        [(2, 4)],
        [(-1, 4)],
        [(0, 3), (0, 3)],
        [(1, 4), (1, 4)],
        [(1, 4), (1, 6), (1, 4)],
        [(1, 4), (1, 6), (0, 3), (0, 3)],
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_an_error(entries):
    """A peer's: never a proposal with a q̂ of 0, and no id twice."""
    outer = SparseRow(np.array([3]), np.array([5]), 8, 3)
    inner = SparseRow(np.array([4, 6]), np.array([9, 7]), 16)
    assert len(rebuilt((outer, inner), [(1, 4), (1, 6), (0, 3)])) == 3
    with pytest.raises(ValueError):
        rebuilt((outer, inner), entries)
