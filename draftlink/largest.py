"""The largest of a vocabulary of weights, without sorting or partitioning the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 64  # weights in a column; its maximum is taken by vector instructions


def at_least(weights: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Ids, ascending, of all weights above 0 that reach some threshold which k of them reach.

    So the k largest are among them, with all their equals, and few others; where fewer than k are
    above 0, all of those. ``weights`` (V,) are not below 0.

    Of V weights in columns of 64, the k-th largest column maximum is such a threshold: k columns
    hold an entry that reaches it.
    """
    size = len(weights)
    columns = size // ROWS
    if k >= size:
        return np.flatnonzero(weights > 0.0)
    if k <= columns // 4:
        peaks = weights[: columns * ROWS].reshape(ROWS, columns).max(axis=0)
        threshold = np.sort(peaks)[columns - k]  # not partition: that is slow where many are equal
    else:
        threshold = np.partition(weights, size - k)[size - k]
    return np.flatnonzero(weights >= threshold if threshold > 0.0 else weights > 0.0)


def ranked(weights: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Ids (≤ k,) of the k largest weights above 0, largest first; of equals the lower id first."""
    ids = at_least(weights, k)
    return ids[np.argsort(-weights[ids], kind="stable")[:k]]
