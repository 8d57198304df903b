"""Drafting: forward, truncate, round, draw; then the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from draftlink import noise, sampling
from draftlink.noise import Purpose
from draftlink.sampling import Sampling
from draftlink.schemes import greedy, topk
from draftlink.schemes.topk import TopK


class Model(Protocol):
    """What drafting needs of a draft model."""

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""

    def forward(self, ids: Sequence[int]) -> NDArray[np.floating[Any]]:
        """Feed ids; the logits of the last."""

    def rollback(self, length: int) -> None:
        """Cut the cache back."""


@dataclass(frozen=True)
class Block:
    """Drafted tokens, and the payload that carries them."""

    tokens: list[int]
    payload: bytes
    bits: int


class Drafter:
    """Drafts for one generation. ``vocab_size``: ids from there on are never drafted."""

    def __init__(
        self, model: Model, params: Sampling, scheme: TopK, vocab_size: int, key: bytes
    ) -> None:
        self._model = model
        self._sampling = params
        self._scheme = scheme
        self._vocab_size = vocab_size
        self._key = key

    def draft(self, history: Sequence[int], count: int) -> Block:
        """``count`` tokens after ``history``, of which the cache holds a true prefix.

        What the cache lacks is fed first: the prompt, a correction, or the last drafted token
        after a block that was accepted whole.
        """
        tokens: list[int] = []
        drafted: list[topk.Drafted] = []
        unfed = list(history[self._model.length :])
        for _ in range(count):
            logits = self._model.forward(unfed)[: self._vocab_size]
            past = [*history, *tokens]
            if self._sampling.greedy:
                token = sampling.greedy_token(logits, self._sampling, past)
            else:
                q = sampling.distribution(logits, self._sampling, past)
                row = topk.propose(q, self._scheme)
                number = noise.below(self._key, len(past), Purpose.DRAFT, row.total)
                drafted.append(topk.Drafted(row, row.draw(number)))
                token = drafted[-1].token
            tokens.append(token)
            unfed = [token]
        if self._sampling.greedy:
            return Block(tokens, *greedy.encode(tokens, self._vocab_size))
        return Block(tokens, *topk.encode(drafted, self._scheme, self._vocab_size))

    def settle(self, length: int) -> None:
        """Only the first ``length`` tokens that were fed stand."""
        self._model.rollback(min(self._model.length, length))
