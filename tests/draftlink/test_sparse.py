"""Rows with a rest: as near to a distribution as a full sort and exact arithmetic bring them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from draftlink.distribution import sparse
from draftlink.distribution.sparse import SparseRow


def by_the_book(q: np.ndarray, k: int, total: int) -> tuple[list[int], list[int], int]:
    """Ids, counts and rest, by a full sort and in fractions."""
    shares = [Fraction(float(x)) for x in q]
    held = sum(shares)
    shares = [x * total / held for x in shares]
    ids = sorted(sorted(range(len(q)), key=lambda i: (-shares[i], i))[:k])
    ids = [i for i in ids if shares[i] * (k + 1) >= 1]
    values = [*(shares[i] for i in ids), total - sum(shares[i] for i in ids)]
    counts = [int(x) for x in values]
    order = sorted(range(len(values)), key=lambda i: counts[i] - values[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    rest = counts.pop()
    kept = [j for j, count in enumerate(counts) if count]
    return [ids[j] for j in kept], [counts[j] for j in kept], rest


def plain(row: SparseRow) -> tuple[list[int], list[int], int]:
    return row.ids.tolist(), row.counts.tolist(), row.rest


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "total"), [(1, 4), (8, 64), (64, 1024), (300, 64)])
@pytest.mark.parametrize("spread", [0.1, 3.0, 9.0])
def test_a_row_with_a_rest_is_that_of_exact_arithmetic(spread, k, total, dtype):
    for seed in range(20):
        q = np.exp(np.random.default_rng(seed).normal(0, spread, 500)).astype(dtype)
        wanted = by_the_book(q, k, total)
        assert plain(sparse.nested(q, k, total)) == wanted
        # The sum of q may be known: then it is not looked at again, in whatever unit q is.
        for unit in (1.0, float(q.sum())):
            scaled = q / dtype(unit)
            assert plain(sparse.nested(scaled, k, total, float(scaled.sum()))) == wanted


@pytest.mark.parametrize("total", [64, 1 << 22])
def test_no_rest_where_nothing_is_left(total):
    """A sum that float32 rounded up must not become a count of ids that cannot be drawn."""
    for seed in range(50):
        q = np.zeros(5000, dtype=np.float32)
        ids = np.random.default_rng(seed).choice(5000, 7, replace=False)
        q[ids] = np.random.default_rng(seed).random(7)
        for weight in (None, float(q.sum()), float(q.sum()) * (1 + 1e-6)):
            row = sparse.nested(q, 8, total, weight)
            assert row.rest == 0 and set(row.ids) <= set(ids) and row.counts.sum() == total


def test_a_small_rest_keeps_its_share():
    """Where the counts are fine enough to show it, it is not the rounding of a sum in float32."""
    q = np.full(100_000, 1e-9, dtype=np.float32)
    q[5] = 1.0
    row = sparse.nested(q, 8, 1 << 22, float(q.sum()))
    assert row.rest == round((1 << 22) * 1e-4 / (1 + 1e-4))
