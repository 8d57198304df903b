"""Log-probabilities as verdicts, tokens and what both ends write carry them: of each token a few.

They are the target's own, before suppressed ids, bias, penalties, temperature and cuts, as OpenAI's
are. On the wire −log p is a whole number of ``UNIT``s, so that no bytes say NaN, infinity, or more
than certainty; what is rounded away is at most half a unit, 3.1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from draftlink.protocol import varints
from draftlink.protocol.standing import Standing

MOST = 20  # of the likeliest ids, as OpenAI's
UNIT = 2.0**-14
LEAST = (1 << 32) - 1  # in units: all that is less likely, −∞ included, is told as this


class Logprobs(NamedTuple):
    """Of a token log p, the natural logarithm; and (id, log p) of the likeliest, the first first.

    Of equals the lower id is the first.
    """

    own: float
    top: tuple[tuple[int, float], ...]


def of(logits: NDArray[np.floating[Any]], token: int, count: int) -> Logprobs:
    """Those of a token behind which the target's row of logits is (V,)."""
    scores = logits.astype(np.float64)
    scores -= scores.max()
    scores -= np.log(np.exp(scores).sum())
    ids = np.argsort(-scores, kind="stable")[:count]
    return Logprobs(
        float(scores[token]), tuple(zip(ids.tolist(), scores[ids].tolist(), strict=True))
    )


def encode(told: Sequence[Logprobs]) -> list[bytes]:
    """For each token its part of a block, in which they follow one another."""
    return [_encode(each) for each in told]


def decode(block: bytes, tokens: int, count: int, vocab_size: int) -> list[Logprobs]:
    """What a block says of so many ``tokens``, with ``count`` ids each. Raises ValueError."""
    own, ids, units = _fields(block, tokens, count, vocab_size)
    tops = zip(ids.tolist(), (0.0 - units * UNIT).tolist(), strict=True)
    return [
        Logprobs(value, tuple(zip(*top, strict=True)))
        for value, top in zip((0.0 - own * UNIT).tolist(), tops, strict=True)
    ]


def fault(session: Standing, block: bytes, tokens: int) -> str | None:
    """What is wrong with the block of a frame that brings so many tokens, or None."""
    start, welcome = session.progress.start, session.welcome
    assert start is not None and welcome is not None
    if start.tells is None or not tokens:
        return "log-probabilities that nobody asked for" if block else None
    try:
        _fields(block, tokens, start.tells, welcome.vocab_size)
    except ValueError as error:
        return f"log-probabilities of {tokens} tokens that cannot be ({error})"
    return None


def _encode(told: Logprobs) -> bytes:
    units = [_units(value) for _, value in told.top]
    fields = [_units(told.own)]
    before = 0
    for (token, _), value in zip(told.top, units, strict=True):
        fields += token, value - before
        before = value
    return varints.varints(*fields)


def _units(value: float) -> int:
    return min(LEAST, max(0, round(-value / UNIT))) if value > -np.inf else LEAST


def _fields(
    block: bytes, tokens: int, count: int, vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The tokens' own −log p (tokens,), likeliest ids (tokens, n) and their −log p, in units."""
    each = 1 + 2 * min(count, vocab_size)
    values = varints.read(block)
    if len(values) != tokens * each:
        raise ValueError(f"{len(values)} numbers, where {tokens * each} are due")
    values = values.reshape(tokens, each)
    ids, units = values[:, 1::2], values[:, 2::2].cumsum(1)
    if (ids >= vocab_size).any() or (units > LEAST).any():
        raise ValueError("ids out of range, or numbers that are too large")
    ordered = np.sort(ids, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ValueError("an id twice")
    return values[:, 0], ids, units
