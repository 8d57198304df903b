"""From logits to the distribution that is sampled: one definition for both ends.

The order is transformers' own: penalties, temperature, top-k, top-p, min-p. A temperature of 0 is
greedy decoding, a branch of its own: only the arg max counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


COLDEST = 1e-6  # of temperatures above 0: scores divided by less could overflow to inf − inf


class Sampling(msgspec.Struct, frozen=True):
    """The request's sampling parameters; they travel once, at the start of a generation."""

    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    repetition_penalty: float = 1.0  # as in CTRL (arXiv 1909.05858); over prompt and output

    def check(self) -> None:
        """Raise ValueError, with a line that names the parameter, when one is out of range."""
        # Written so that NaN fails every test.
        if not (self.temperature == 0.0 or COLDEST <= self.temperature <= 100.0):
            raise ValueError(
                f"temperature must be 0 (greedy) or between {COLDEST} and 100,"
                f" not {self.temperature}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0.0 <= self.min_p < 1.0:
            raise ValueError(f"min_p must be at least 0 and below 1, not {self.min_p}")
        if not 0.01 <= self.repetition_penalty <= 100.0:
            raise ValueError(
                f"repetition_penalty must be between 0.01 and 100, not {self.repetition_penalty}"
            )

    @property
    def greedy(self) -> bool:
        """Whether only the arg max counts."""
        return self.temperature == 0.0


def penalised(logits: Floats, sampling: Sampling, history: Sequence[int]) -> Floats:
    """Logits (V,) after the repetition penalty over the token ids in ``history``."""
    if sampling.repetition_penalty == 1.0 or not history:
        return logits
    logits = logits.astype(np.float64)
    ids = np.unique(np.asarray(history, dtype=np.int64))
    seen = logits[ids]
    penalty = sampling.repetition_penalty
    logits[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def greedy_token(logits: Floats, sampling: Sampling, history: Sequence[int]) -> int:
    """The arg max after penalties; the lowest id where scores are equal."""
    return int(np.argmax(penalised(logits, sampling, history)))


def distribution(logits: Floats, sampling: Sampling, history: Sequence[int]) -> NDArray[np.float64]:
    """The distribution (V,), float64, that one token is drawn from at temperature > 0."""
    scores = penalised(logits, sampling, history).astype(np.float64)
    scores /= sampling.temperature
    scores -= scores.max()
    p: NDArray[np.float64] = np.exp(scores)
    p /= p.sum()
    size = len(p)
    if 0 < sampling.top_k < size:
        # Ties at the edge stay, as in transformers.
        p[p < np.partition(p, size - sampling.top_k)[size - sampling.top_k]] = 0.0
        p /= p.sum()
    if sampling.top_p < 1.0:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= sampling.top_p]] = 0.0
        p /= p.sum()
    if sampling.min_p > 0.0:
        p[p < sampling.min_p * p.max()] = 0.0
        p /= p.sum()
    return p


def draw(weights: NDArray[np.float64], uniform: float) -> int:
    """The token whose share of the cumulated weights (V,) holds ``uniform`` in [0, 1).

    Weights need not be normalised. A token of weight 0 is never drawn.
    """
    edges = np.cumsum(weights)
    # uniform * total can round up to total; the token that ends there is then the right one.
    index = int(np.searchsorted(edges, uniform * edges[-1], side="right"))
    return min(index, int(np.searchsorted(edges, edges[-1], side="left")))
