"""Drafting: forward, truncate, round, draw; then the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_runtime.temperature import DraftTemperature
from draftlink import frames, sampling, schemes
from draftlink.idcode import IdModel
from draftlink.schemes import split
from draftlink.sparse import Drafted


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

    drafted: list[Drafted]
    payload: bytes
    bits: int

    @property
    def tokens(self) -> list[int]:
        """The drafted ids."""
        return [d.token for d in self.drafted]


class Drafter:
    """Drafts for one generation. ``vocab_size``: ids from there on are never drafted.

    ``learned``: the draft's temperature follows what the verdicts tell, not the request's alone.
    """

    def __init__(
        self,
        model: Model,
        start: frames.Start,
        vocab_size: int,
        key: bytes,
        learned: DraftTemperature | None = None,
    ) -> None:
        self.scheme = schemes.in_effect(start.scheme, greedy=start.sampling.greedy)
        self._model = model
        self._sampling = start.sampling
        self._ids = IdModel(vocab_size)
        self._key = key
        # Written anew for each token. A draft's distribution may be rounded as it likes: the base
        # station judges what is sent.
        self._q = np.empty(vocab_size, dtype=np.float32)
        self._learned = None if start.sampling.greedy else learned

    def draft(self, history: Sequence[int], count: int) -> Block:
        """``count`` tokens after ``history``, of which the cache holds a true prefix.

        What the cache lacks is fed first: the prompt, a correction, or the last drafted token
        after a block that was accepted whole.
        """
        drafted: list[Drafted] = []
        past = list(history)
        unfed = past[self._model.length :]
        params, learned = self._sampling, self._learned
        if learned is not None:
            params = msgspec.structs.replace(params, temperature=learned.value * params.temperature)
            learned.begin()
        for _ in range(count):
            logits = self._model.forward(unfed)[: self._ids.vocab_size]
            if params.greedy:
                q = sampling.penalised(logits, params, past)
            else:
                q = sampling.distribution(logits, params, past, out=self._q[: len(logits)])
            if learned is not None:
                learned.drafted(sampling.penalised(logits, params, past))
            drafted.append(self.scheme.propose(q, self._key, len(past)))
            past.append(drafted[-1].token)
            unfed = past[-1:]
        if self.scheme.codes_ids:
            self._ids.rollback(min(self._ids.length, len(history)))
            self._ids.extend(history[self._ids.length :])
        return Block(drafted, *self.scheme.encode(drafted, self._ids))

    def correct(self, history: Sequence[int], rejected: Drafted, row: bytes) -> int:
        """The token after ``history``, in the place of a rejected one; ``row`` is the target's.

        Raises ValueError for a row that does not unpack.
        """
        logits = split.unpack_row(row, self._ids.vocab_size)
        p = sampling.distribution(logits, self._sampling, history)
        return split.correct(p, rejected, self._key, len(history))

    def settle(self, length: int) -> None:
        """Only the first ``length`` tokens that were fed stand."""
        self._model.rollback(min(self._model.length, length))
        self._ids.rollback(min(self._ids.length, length))
