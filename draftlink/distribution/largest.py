"""The largest of a vocabulary of weights, without sorting or partitioning the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 256  # weights in a column; its maximum is taken by vector instructions
FEWEST_ROWS = 8  # below, a partition is as fast


def at_least(weights: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Ids, ascending, of all weights above 0 that reach some threshold which k of them reach.

    So the k largest are among them, with all their equals, and few others; where fewer than k are
    above 0, all of those. ``weights`` (V,) are not below 0, k at least 1.

    With the weights in columns, 4 k of them or more, the k-th largest column maximum is such a
    threshold: k columns hold an entry that reaches it, and no other column does but by equals.
    """
    size = len(weights)
    if k >= size:
        return np.flatnonzero(weights > 0.0)
    rows = min(MOST_ROWS, size // (4 * k))
    if rows < FEWEST_ROWS:
        threshold = np.partition(weights, size - k)[size - k]
        return np.flatnonzero(weights >= threshold if threshold > 0.0 else weights > 0.0)
    columns = size // rows
    grid = weights[: rows * columns].reshape(rows, columns)
    peaks = grid.max(axis=0)
    threshold = np.sort(peaks)[columns - k]  # a partition is slow where many are equal
    if not threshold > 0.0:
        return np.flatnonzero(weights > 0.0)
    high = np.flatnonzero(peaks >= threshold)
    row, column = np.nonzero(grid[:, high] >= threshold)
    rest = np.flatnonzero(weights[rows * columns :] >= threshold)
    return np.concatenate((row * columns + high[column], rest + rows * columns))


def ranked(weights: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Ids (≤ k,) of the k largest weights above 0, largest first; of equals the lower id first."""
    ids = at_least(weights, k)
    return ids[np.argsort(-weights[ids], kind="stable")[:k]]
