"""What a device has proposed where both ends write: the newest path, as far as it may be right.

A path is dead at the first of its tokens that the text has not. What then still comes of it is
dropped without being decoded. Nothing here decides what is written: a proposal that is wrong costs
a row of a forward, and one that is right saves a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from bs_runtime.engine.decoding import Decoder
from bs_runtime.engine.late import Leaf
from draftlink.coding.slices import Slices
from draftlink.protocol.frames import Draft, Propose
from draftlink.protocol.history import common
from draftlink.schemes import Scheme

FAR = 256  # tokens that a path's beginning may be behind the text: farther back nothing is decoded


class _Context(Sequence[int]):
    """The first ``base`` tokens of a history, and a path's behind them, of which none is copied.

    That would cost each proposal as much as the text is long.
    """

    def __init__(self, history: Sequence[int], base: int, ids: list[int]) -> None:
        self._history, self._base, self._ids = history, base, ids

    def __len__(self) -> int:
        return self._base + len(self._ids)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> list[int]: ...

    def __getitem__(self, at: int | slice) -> int | list[int]:
        base = self._base
        if isinstance(at, int):
            return self._history[at] if at < base else self._ids[at - base]
        begin, end, _ = at.indices(len(self))
        history = self._history[begin : min(end, base)]
        return [*history, *self._ids[max(begin - base, 0) : max(end - base, 0)]]


class Paths:
    """A generation's. ``history``: the prompt and the text, which the base station writes to."""

    def __init__(self, scheme: Scheme, vocab_size: int, history: Sequence[int]) -> None:
        self._scheme = scheme
        self._history = history
        self._decoder = Decoder(vocab_size)
        self.number = 0
        self._base = 0
        self._ids: list[int] = []
        self._beside: list[tuple[int, ...]] = []  # of each of them, what may stand in its place
        self._compared = 0  # of them, those that the text has reached, and has too
        self.alive = False
        self._right = 0  # proposals that the text has reached, and has too,
        self._wrong = 0  # and those that ended a path
        self._reached = self._won = 0  # candidates likewise: whether a step was given them or not

    def useful(self, frame: Propose) -> bool:
        """Whether a proposal may still save a step, if what came before it on its path has come."""
        if len(self._history) - frame.base > FAR:
            return False
        return frame.path > self.number or (frame.path == self.number and self._stands())

    def adding(self, frame: Propose) -> Slices[None]:
        """Decode a proposal if it is useful, in slices of work.

        Not where tokens of its path before it were lost with a connection. Raises ValueError for
        bytes that are none.
        """
        known = len(self._ids) if frame.path == self.number else 0
        if not self.useful(frame) or frame.first != known:
            return
        if frame.path > self.number:
            # The last path's tokens as far as the text has them, too, are as they were decoded.
            self._stands()
            self._decoder.rollback(self._base + min(self._compared, frame.base - self._base))
            self.number, self._base, self._ids, self._beside = frame.path, frame.base, [], []
            self._compared, self.alive = 0, True
        as_draft = Draft(0, frame.base + frame.first, frame.length, frame.payload)
        context = _Context(self._history, self._base, self._ids)
        found = yield from self._decoder.decoding(self._scheme, [as_draft], context, frame.beside)
        self._ids += [drafted.token for drafted in found]
        self._beside += [drafted.beside for drafted in found]
        self._stands()

    def following(self, most: int) -> list[int]:
        """At most so many proposed tokens that may come next."""
        if not self._stands():
            return []
        begin = len(self._history) - self._base
        return self._ids[begin : begin + most]

    def beside(self, count: int) -> list[Leaf]:
        """The candidates beside the first ``count`` tokens that may come next, in their order."""
        if not self._stands():
            return []
        begin = len(self._history) - self._base
        near = enumerate(self._beside[begin : begin + count])
        return [Leaf(place, token) for place, others in near for token in others]

    def met(self) -> tuple[int, int]:
        """Proposals that the text has reached since this was asked last: right ones, wrong ones."""
        self._stands()
        found = self._right, self._wrong
        self._right = self._wrong = 0
        return found

    def met_beside(self) -> tuple[int, int]:
        """Candidates to whose places the text has come since this was asked last, and those of
        them that it has."""
        self._stands()
        found = self._reached, self._won
        self._reached = self._won = 0
        return found

    @property
    def left_at(self) -> int | None:
        """The position at which the text has another token than the newest path; None if none."""
        return None if self._stands() else self._base + self._compared

    @property
    def behind(self) -> int:
        """Tokens of the text behind the end of a path that it has."""
        return max(0, len(self._history) - self.end) if self._stands() else 0

    @property
    def end(self) -> int:
        """The position behind the last token of the path."""
        return self._base + len(self._ids)

    def _stands(self) -> bool:
        """Whether the path is the text's own, as far as both go."""
        if self.alive:
            begin = self._base + self._compared
            end = min(self.end, len(self._history))
            ours = self._ids[self._compared : end - self._base]
            agreed = common(ours, list(self._history[begin:end]))
            self.alive = agreed == len(ours)
            self._right += agreed
            self._wrong += not self.alive
            met = self._beside[self._compared : self._compared + agreed + (not self.alive)]
            self._reached += sum(map(len, met))
            self._compared += agreed
            if not self.alive:
                self._won += self._history[self._base + self._compared] in met[-1]
        return self.alive
