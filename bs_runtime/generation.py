"""One generation at the base station: feed, judge, roll back.

The slot is in one of two states: all of the history cached and the last row kept, or its last token
not yet fed. ``_feed`` handles both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bs_runtime import verify
from draftlink import frames, noise, schemes
from draftlink.idcode import IdModel
from draftlink.noise import Purpose
from draftlink.schemes.split import pack_row
from draftlink.sparse import Drafted


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
    """What the target makes of a draft: the fields of a verdict."""

    accepted: int
    next: int | None
    ended: bool
    row: bytes = b""
    surprisals: bytes = b""


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
        self.left = min(start.max_tokens, context - len(history))
        self.ended = False
        self._scheme = schemes.in_effect(start.scheme, greedy=start.sampling.greedy)
        self._ids = IdModel(vocab_size)
        if start.seed is None:
            self._key = noise.fresh_key()
        else:
            role = "coupled" if self._scheme.shares_seed else "bs"
            self._key = noise.key_from_seed(start.seed, role)
        self._row: Tensor | None = None  # (1, V): the row after the whole history, once known

    def prefill(self) -> None:
        """Feed the prompt, and keep the row behind it."""
        self._feed(())

    def decode(self, draft: frames.Draft) -> list[Drafted]:
        """The draft's tokens. Raises ValueError for bytes that are no draft of this scheme.

        Nothing has changed then, but the model of ids, which holds a part of the history.
        """
        if draft.first is not None and self.left < 2:
            raise ValueError("the token that was owed fills the context, and a draft follows it")
        if self._scheme.codes_ids:
            self._ids.rollback(min(self._ids.length, len(self.history)))
            self._ids.extend(self.history[self._ids.length :])
            self._ids.extend([] if draft.first is None else [draft.first])
        return self._scheme.decode(draft.payload, draft.length, self._ids)

    def judge(self, drafted: Sequence[Drafted], first: int | None = None) -> Judgement:
        """Judge each drafted token, then write one token of the target's own.

        ``first`` is the token that the device owed. Nothing is drawn behind an accepted EOS or the
        token limit.
        """
        if first is not None:
            self._write(first)
        ends = [i for i, d in enumerate(drafted) if d.token in self.start.eos_ids]
        most = min([self.left, *(i + 1 for i in ends)])
        judged = list(drafted[:most])
        rows = self._feed([d.token for d in judged])
        begin = len(self.history)
        outcome = self._judged(judged, rows, Purpose.BONUS)
        for d in judged[: outcome.accepted]:
            self._write(d.token)
        self._row = rows[outcome.accepted : outcome.accepted + 1]
        self.slot.rollback(begin + outcome.accepted)
        following, row = outcome.following, b""
        if self.ended:
            following = None
        elif following is None:
            row = pack_row(self._row[0].numpy(force=True))
        else:
            self._write(following)
        emitted = outcome.accepted + (following is not None)
        surprisals = outcome.surprisals[:emitted] if self.start.surprisals else []
        return Judgement(
            outcome.accepted,
            following,
            self.ended,
            row,
            bytes(min(255, round(8 * bits)) for bits in surprisals),
        )

    def write_one(self) -> int:
        """One token of the target's own, while streaming."""
        token = self._judged((), self._feed(()), Purpose.STREAM).following
        assert token is not None
        self._write(token)
        return token

    def rollback(self, keep: int) -> None:
        """Forget everything behind the first ``keep`` tokens of the history."""
        del self.history[keep:]
        self.slot.rollback(min(self.slot.length, keep))
        self._row = None

    def _judged(self, drafted: Sequence[Drafted], rows: Tensor, purpose: Purpose) -> verify.Outcome:
        job = verify.Job(
            drafted, self.history, self.start.sampling, self._scheme, self._key, purpose
        )
        return verify.judge(rows, [job])[0]

    def _write(self, token: int) -> None:
        self.history.append(token)
        self.left -= 1
        self.ended = self.left <= 0 or token in self.start.eos_ids

    def _feed(self, tokens: Sequence[int]) -> Tensor:
        """Rows (len(tokens) + 1, V) behind the history and behind each of ``tokens``."""
        unfed = self.history[self.slot.length :]
        if not unfed and self._row is None:  # rolled back: the row has to be made again
            self.slot.rollback(len(self.history) - 1)
            unfed = self.history[-1:]
        rows = None if unfed else self._row
        if unfed or tokens:
            # A prompt is fed for its last row alone; the head is not run over the rest of it.
            fed = torch.as_tensor(self.slot.forward([*unfed, *tokens], last=not tokens))
            new = fed[-len(tokens) - 1 :]
            rows = new if rows is None else torch.cat([rows, new])
        assert rows is not None
        self._row = rows[-1:]
        return rows
