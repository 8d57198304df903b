"""From logits to the distribution that is sampled: the definition, for one row, in numpy.

``bs_runtime/verify/distribution.py`` has the same in torch, for all rows of a step at once.

Ids that the request suppresses go first (``without``), then the bias. The order of the rest is
vLLM's: penalties for repetition, frequency and presence; temperature; top-k, top-p, min-p. A
temperature of 0 is greedy decoding, a branch of its own: only the arg max counts.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from draftlink.distribution import largest

Floats = NDArray[np.floating]

NUCLEUS = 1024  # entries that mostly hold the mass of a top-p; where they do not, all are sorted
SLACK = 1e-5  # of a sum that was rounded
# What a cut is moved by. Two ends that add the same masses in another order differ by some 1e-13,
# so a cut must not fall on a mass that is as round as the request's own number; this one is far
# from all of those, and too small to be noticed.
MARGIN = 2.0**-30
LARGEST = 1e30  # sum of exponentials that is still far from float32's limit
COLDEST = 1e-6  # of temperatures above 0: scores divided by less could overflow to inf − inf
# Beyond float32 a penalty or a low temperature could overflow, and leave inf − inf.
LARGEST_LOGIT = float(np.finfo(np.float32).max)
MOST_PENALTY = 2.0  # OpenAI's bounds, as is the next
MOST_BIAS = 100.0
MOST_BIASED = 1024  # ids
BROKEN = "the logits hold no largest number: the model is broken"


class Sampling(msgspec.Struct, frozen=True):
    """The request's sampling parameters; they travel once, at the start of a generation."""

    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    repetition_penalty: float = 1.0  # as in CTRL (arXiv 1909.05858); over prompt and output
    # OpenAI's, over the output alone: taken off a token's score for each time that it was written,
    # and once if it was; and what is added to some ids' scores in any case, ids ascending. What is
    # not stated is not sent either: an older base station knows nothing of these.
    frequency_penalty: float | UnsetType = UNSET
    presence_penalty: float | UnsetType = UNSET
    logit_bias: tuple[tuple[int, float], ...] | UnsetType = UNSET

    def check(self) -> None:
        """Raise ValueError, with a line that names the parameter, when one is out of range."""
        numbers = {name: getattr(self, name) for name in self.__struct_fields__[:5]}
        more = {"frequency_penalty": self.frequency, "presence_penalty": self.presence}
        for name, value in (numbers | more).items():
            if not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, not {value!r}")
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

        for name, value in more.items():
            if not -MOST_PENALTY <= value <= MOST_PENALTY:
                raise ValueError(
                    f"{name} must be between {-MOST_PENALTY:g} and {MOST_PENALTY:g}, not {value}"
                )
        _check_bias(self.pairs)

    @property
    def frequency(self) -> float:
        """The frequency penalty; 0 is off."""
        return 0.0 if self.frequency_penalty is UNSET else self.frequency_penalty

    @property
    def presence(self) -> float:
        """The presence penalty; 0 is off."""
        return 0.0 if self.presence_penalty is UNSET else self.presence_penalty

    @property
    def pairs(self) -> tuple[tuple[int, float], ...]:
        """The bias as it is stated."""
        return () if self.logit_bias is UNSET else self.logit_bias

    @property
    def bias(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids, ascending, and what is added to their scores."""
        return (
            np.array([token for token, _ in self.pairs], dtype=np.int64),
            np.array([value for _, value in self.pairs], dtype=np.float64),
        )

    @property
    def counts(self) -> bool:
        """Whether it matters what was written."""
        return self.frequency != 0.0 or self.presence != 0.0

    @property
    def states_more(self) -> bool:
        """Whether it has what only some base stations know."""
        more = (self.frequency_penalty, self.presence_penalty, self.logit_bias)
        return any(value is not UNSET for value in more)

    @property
    def plain(self) -> bool:
        """Whether scores are the logits themselves."""
        return self.repetition_penalty == 1.0 and not self.counts and not self.pairs

    @property
    def greedy(self) -> bool:
        """Whether only the arg max counts."""
        return self.temperature == 0.0

    @property
    def cuts(self) -> bool:
        """Whether tokens are excluded."""
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0


def without(logits: Floats, suppressed: NDArray[np.int64]) -> Floats:
    """Logits (V,) of which the ``suppressed`` ids, ascending, have −∞; those from V on are none."""
    if not len(suppressed):
        return logits
    logits = logits.copy()
    logits[suppressed[: np.searchsorted(suppressed, len(logits))]] = -np.inf
    return logits


def _check_bias(pairs: tuple[tuple[int, float], ...]) -> None:
    """Raise ValueError for a logit_bias that cannot be."""
    try:
        ids, values = [operator.index(i) for i, _ in pairs], [float(value) for _, value in pairs]
    except (TypeError, ValueError):
        raise ValueError("logit_bias must be pairs of an id and a number") from None
    if len(ids) > MOST_BIASED:
        raise ValueError(f"logit_bias has {len(ids)} ids; give at most {MOST_BIASED}")
    if any(i < 0 for i in ids[:1]) or any(a >= b for a, b in pairwise(ids)):
        raise ValueError("logit_bias must have ids that ascend, each once")
    if not all(-MOST_BIAS <= value <= MOST_BIAS for value in values):
        raise ValueError(f"logit_bias must be between {-MOST_BIAS:g} and {MOST_BIAS:g}")


def penalised(
    logits: Floats, sampling: Sampling, history: Sequence[int], begins: int = 0
) -> Floats:
    """Scores: logits (V,) after bias and penalties; the output is ``history`` from ``begins`` on.

    Ids from V on are none.
    """
    if sampling.plain:
        return logits
    scores = logits.astype(np.float64)
    ids, values = sampling.bias
    known = ids < len(scores)
    scores[ids[known]] += values[known]
    if sampling.repetition_penalty != 1.0 and history:
        ids = np.unique(np.asarray(history, dtype=np.int64))
        ids = ids[ids < len(scores)]
        seen, penalty = scores[ids], sampling.repetition_penalty
        scores[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
    if sampling.counts and len(history) > begins:
        written = np.asarray(history[begins:], dtype=np.int64)
        ids, times = np.unique(written, return_counts=True)
        known = ids < len(scores)
        scores[ids[known]] -= sampling.frequency * times[known] + sampling.presence
    return scores


def overflowing() -> np.errstate:
    """Scores may overflow: the exponential of -inf is 0, and inf is seen in their sum."""
    return np.errstate(over="ignore", invalid="ignore")


def distribution(
    logits: Floats, sampling: Sampling, history: Sequence[int], begins: int = 0
) -> NDArray[np.float64]:
    """The distribution (V,), float64, that one token is drawn from at temperature > 0.

    The output is ``history`` from ``begins`` on.

    Raises ValueError for logits without a largest number.
    """
    p = np.empty(len(logits))
    with overflowing():
        p /= weights_in(p, logits, sampling, history, begins)
    return p


def weights_in(
    p: NDArray[Any], logits: Floats, sampling: Sampling, history: Sequence[int], begins: int = 0
) -> float:
    """``distribution`` times some weight, in p (V,) and in its precision; the weight, their sum.

    To be called under ``overflowing``, which a loop enters once. Few passes and few calls: behind
    a forward the logits are out of the caches, and so is numpy's code.
    """
    scores = penalised(logits, sampling, history, begins)
    np.multiply(scores, 1.0 / sampling.temperature, out=p, dtype=p.dtype, casting="same_kind")
    np.exp(p, out=p)
    total = np.add.reduce(p)
    if not 1.0 <= total <= LARGEST:
        np.subtract(scores, scores.max(), out=p, dtype=p.dtype, casting="same_kind")
        p *= 1.0 / sampling.temperature
        np.exp(p, out=p)
        total = np.add.reduce(p)
    if not total >= 1.0:
        raise ValueError(BROKEN)
    if not sampling.cuts:
        return float(total)
    p /= total
    cut(p, scores, sampling)
    return 1.0


def cut(p: NDArray[Any], scores: Floats, sampling: Sampling) -> None:
    """Exclude from the distribution p (V,) what ``sampling`` does not allow; what stays sums to 1.

    ``scores`` (V,) are those that p comes from. They have the same bits at both ends, and p has
    not: so they alone decide which of two tokens is the likelier, and p only, with a ``MARGIN``,
    how many there are.
    """
    if 0 < sampling.top_k < len(p):
        ids = _likeliest(p, sampling.top_k)
        edge = len(ids) - sampling.top_k
        if edge > 0:  # ties at the edge stay, as in transformers
            ids = ids[scores[ids] >= np.partition(scores[ids], edge)[edge]]
        _keep(p, ids)
    if sampling.top_p < 1.0:
        _keep(p, _nucleus(p, scores, sampling.top_p))
    if sampling.min_p > 0.0:  # who has just the least that is asked for stays
        p[p < sampling.min_p * (1.0 - MARGIN) * p.max()] = 0.0
        p /= p.sum()


def _likeliest(p: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Ids, ascending, among which are the ``k`` of the largest scores, with all their equals.

    An exponential is rounded: of two scores that differ in the last bits either can have more of p.
    """
    ids = largest.at_least(p, k)
    return np.flatnonzero(p >= p[ids].min() * (1.0 - MARGIN))


def _nucleus(p: NDArray[Any], scores: Floats, mass: float) -> NDArray[np.int64]:
    """Ids of the fewest entries of p (V,), largest first, that hold ``mass``; of equals the lower.

    Who has just ``mass`` before it is left out.
    """
    ids = _likeliest(p, NUCLEUS)
    if not p[ids].sum(dtype=np.float64) > mass + SLACK:
        ids = np.flatnonzero(p > 0.0)
    ids = ids[np.argsort(-scores[ids], kind="stable")]
    held: NDArray[np.float64] = np.cumsum(p[ids], dtype=np.float64) - p[ids]
    held[0] = -1.0  # the first stays, however little is asked for
    nucleus: NDArray[np.int64] = ids[held < mass - MARGIN]
    return nucleus


def _keep(p: NDArray[Any], ids: NDArray[np.int64]) -> None:
    """Only ``ids`` stay in the distribution p (V,)."""
    kept = p[ids]
    p.fill(0.0)
    p[ids] = kept / kept.sum()


def draw(weights: NDArray[np.float64], uniform: float) -> int:
    """The token whose share of the cumulated weights (V,) holds ``uniform`` in [0, 1).

    Weights need not be normalised. A token of weight 0 is never drawn.
    """
    edges = np.cumsum(weights)
    # uniform * total can round up to total; the token that ends there is then the right one.
    index = int(np.searchsorted(edges, uniform * edges[-1], side="right"))
    return min(index, int(np.searchsorted(edges, edges[-1], side="left")))
