"""One generation at the base station: feed, judge, roll back.

The slot is in one of two states: all of the history cached and the last row kept, or its last token
not yet fed. ``_feed`` handles both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from draftlink import frames, noise, sampling
from draftlink.noise import Purpose
from draftlink.schemes import greedy, topk

Logits = NDArray[np.floating[Any]]


class KVSlot(Protocol):
    """What a generation needs of a slot."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    def forward(self, ids: Sequence[int], *, last: bool = False) -> Any:
        """Feed ids; logits (len(ids), V), or (1, V) with ``last``."""

    def rollback(self, length: int) -> None:
        """Cut the cache back."""


@dataclass(frozen=True)
class Judgement:
    """What the target makes of a draft."""

    accepted: int
    next: int | None
    ended: bool


class Generation:
    """A generation on a slot. ``history`` is the prompt and everything written so far.

    Every draw is a function of (key, position, purpose), so that the same draft at the same
    position is always judged the same way.
    """

    def __init__(
        self, slot: KVSlot, start: frames.Start, history: list[int], vocab_size: int, context: int
    ) -> None:
        self.slot = slot
        self.start = start
        self.history = history
        self.vocab_size = vocab_size
        self.left = min(start.max_tokens, context - len(history))
        self.ended = False
        self._key = (
            noise.fresh_key() if start.seed is None else noise.key_from_seed(start.seed, "bs")
        )
        self._row: Logits | None = None  # the target's row after the whole history, once known

    def prefill(self) -> None:
        """Feed the prompt, and keep the row behind it."""
        self._feed(())

    def decode(self, draft: frames.Draft) -> Sequence[topk.Drafted | int]:
        """The draft's tokens. Raises ValueError for bytes that are no draft of this scheme."""
        if self.start.sampling.greedy:
            return greedy.decode(draft.payload, draft.length, self.vocab_size)
        return topk.decode(draft.payload, draft.length, self.start.scheme, self.vocab_size)

    def judge(self, drafted: Sequence[topk.Drafted | int]) -> Judgement:
        """Accept or reject each drafted token in turn, then write one token of the target's own.

        Nothing is drawn behind an accepted EOS or the token limit.
        """
        drafted = list(drafted[: self.left])
        tokens = [d if isinstance(d, int) else d.token for d in drafted]
        rows = self._feed(tokens)
        begin = len(self.history)
        following: int | None = None
        accepted = 0
        for token, row in zip(drafted, rows, strict=False):
            following = self._corrected(token, row)
            if following is not None:
                break
            self._write(tokens[accepted])
            accepted += 1
            if self.ended:
                break
        self._row = rows[accepted]
        if following is None and not self.ended:
            following = self._own(rows[accepted], Purpose.BONUS)
        self.slot.rollback(begin + accepted)
        if following is not None:
            self._write(following)
        return Judgement(accepted, following, self.ended)

    def write_one(self) -> int:
        """One token of the target's own, while streaming."""
        token = self._own(self._feed(())[0], Purpose.STREAM)
        self._write(token)
        return token

    def rollback(self, keep: int) -> None:
        """Forget everything behind the first ``keep`` tokens of the history."""
        del self.history[keep:]
        self.slot.rollback(min(self.slot.length, keep))
        self._row = None

    def _write(self, token: int) -> None:
        self.history.append(token)
        self.left -= 1
        self.ended = self.left <= 0 or token in self.start.eos_ids

    def _feed(self, tokens: Sequence[int]) -> list[Logits]:
        """Rows behind the history and behind each of ``tokens``: len(tokens) + 1 of them."""
        unfed = self.history[self.slot.length :]
        if not unfed and self._row is None:  # rolled back: the row has to be made again
            self.slot.rollback(len(self.history) - 1)
            unfed = self.history[-1:]
        rows = [] if unfed else [self._row]
        if unfed or tokens:
            # A prompt is fed for its last row alone; the head is not run over the rest of it.
            logits = self.slot.forward([*unfed, *tokens], last=not tokens)
            logits = logits if isinstance(logits, np.ndarray) else logits.numpy()
            rows += list(logits[-len(tokens) - 1 :] if unfed else logits)
        self._row = rows[-1]
        return rows  # type: ignore[return-value]

    def _corrected(self, drafted: topk.Drafted | int, row: Logits) -> int | None:
        """None where the drafted token stands, else the token in its place."""
        if isinstance(drafted, int):
            own = sampling.greedy_token(row, self.start.sampling, self.history)
            return None if own == drafted else own
        position = len(self.history)
        p = sampling.distribution(row, self.start.sampling, self.history)
        if topk.accepted(p, drafted, noise.uniform(self._key, position, Purpose.ACCEPT)):
            return None
        return topk.correction(p, drafted, noise.uniform(self._key, position, Purpose.RESIDUAL))

    def _own(self, row: Logits, purpose: Purpose) -> int:
        if self.start.sampling.greedy:
            return sampling.greedy_token(row, self.start.sampling, self.history)
        p = sampling.distribution(row, self.start.sampling, self.history)
        return sampling.draw(p, noise.uniform(self._key, len(self.history), purpose))
