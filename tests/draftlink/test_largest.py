"""The k largest are found without looking at each weight in Python, and are the true ones."""

from __future__ import annotations

import numpy as np
import pytest

from draftlink.distribution import largest, sampling, sparse
from draftlink.distribution.sampling import Sampling


def rows(size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(size)
    sparse_row = np.zeros(size)
    sparse_row[rng.integers(0, size, 5)] = 0.2
    return [
        rng.random(size),
        np.exp(rng.normal(0, 5, size)),
        rng.integers(0, 4, size).astype(float),  # many equals, and zeros
        sparse_row,
        np.ones(size),
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 63, 64, 1000, 5000])
def test_the_largest_are_those_of_a_full_sort(size, dtype):
    for weights in rows(size):
        weights = weights.astype(dtype)
        order = np.argsort(-weights, kind="stable")
        order = order[weights[order] > 0]
        for k in (1, 3, 16, size // 8 + 1, size, size + 5):
            assert np.array_equal(largest.ranked(weights, k), order[:k])
            ids = largest.at_least(weights, k)
            assert np.array_equal(ids, np.sort(ids))
            outside = np.setdiff1d(order, ids)
            if len(outside):  # what is left out is below all that is in
                assert weights[outside].max() < weights[ids].min() and len(ids) >= k


def test_few_beside_the_largest_are_looked_at():
    weights = np.random.default_rng(0).random(151_936).astype(np.float32)
    assert 16 <= len(largest.at_least(weights, 16)) < 64


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999999])
@pytest.mark.parametrize("spread", [0.1, 4.0])
def test_a_nucleus_is_that_of_a_full_sort(spread, top_p):
    """Flat rows need more entries than are looked at first."""
    logits = np.random.default_rng(1).normal(0, spread, 20_000)
    p = sampling.distribution(logits, Sampling(), ())
    order = np.argsort(-p, kind="stable")
    kept = order[np.cumsum(p[order]) - p[order] < top_p - sampling.MARGIN]
    found = sampling.distribution(logits, Sampling(top_p=top_p), ())
    assert np.array_equal(np.flatnonzero(found), np.sort(kept))
    assert np.abs(found[kept] - p[kept] / p[kept].sum()).max() < 1e-15


@pytest.mark.parametrize("params", [Sampling(0.7), Sampling(top_k=9, min_p=0.01), Sampling(1.2)])
def test_a_buffer_is_filled_in_its_own_precision(params):
    logits = np.random.default_rng(2).normal(0, 3, 5000).astype(np.float32)
    out = np.full(5000, np.nan, dtype=np.float32)
    out /= sampling.weights_in(out, logits, params, ())
    wanted = sampling.distribution(logits, params, ())
    assert wanted.dtype == np.float64
    assert np.abs(out - wanted).max() < 1e-6
    a, b = sparse.lattice(out, 16, 256), sparse.lattice(wanted, 16, 256)
    assert np.array_equal(a.ids, b.ids) and np.abs(a.counts - b.counts).max() <= 1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_without_a_largest_are_an_error(broken):
    for where in (slice(None), 3):
        logits = np.zeros(100, dtype=np.float32)
        logits[where] = broken
        with pytest.raises(ValueError, match="the model is broken"):
            sampling.distribution(logits, Sampling(), ())
