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
from draftlink.protocol.hot import MAX_BESIDE
from draftlink.schemes import Scheme

ROOT = -1  # what the first tokens of a path follow
GONE = -1  # in the place of an id that was not decoded
LEARNS = 3  # ids of a history are learned while one is decoded
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
    """A generation's. ``history``: the prompt and the text, which the base station writes to.

    ``branches``: a token may follow any other of its path. The text then may come to leave what was
    proposed first for what was proposed beside it, also where that comes only after the text: the
    path is not dead then, but what does not follow the text is not decoded.
    """

    def __init__(
        self, scheme: Scheme, vocab_size: int, history: Sequence[int], *, branches: bool = False
    ) -> None:
        self._scheme = scheme
        self._history = history
        self._branches = branches
        self._decoder = Decoder(vocab_size)
        self._coded: list[int] = []  # behind which tokens the last ones were coded
        self.number = 0
        self._begin(0)
        self.alive = False
        self._right = 0  # proposals that the text has reached, and has too,
        self._wrong = 0  # and those that ended a path
        self._reached = self._won = 0  # candidates likewise: whether a step was given them or not
        # A path, and the last of its tokens that did not branch off, whether they are decoded yet.
        self._lead = 0, ROOT

    def _begin(self, base: int) -> None:
        """A path of no tokens."""
        self._base = base
        self._ids: list[int] = []
        self._beside: list[tuple[int, ...]] = []  # of each of them, what may stand in its place
        self._parents: list[int] = []
        self._children: dict[int, list[int]] = {}
        self._walked: list[int] = []  # those that the text has reached, and has too

    def useful(self, frame: Propose) -> bool:
        """Whether a proposal may still save a step, if what came before it on its path has come."""
        if len(self._history) - frame.base > FAR:
            return False
        return frame.path > self.number or (frame.path == self.number and self._stands())

    def counts(self, frame: Propose) -> bool:
        """Whether a proposal is useful, or has to be numbered, since its path may be so again."""
        near = len(self._history) - frame.base <= FAR
        return self.useful(frame) or (near and self._branches and frame.path == self.number)

    def costs(self, frame: Propose) -> int:
        """What a proposal takes to decode, in tokens: those that it follows are learned anew, but
        for those that the last one followed, too."""
        if not self.counts(frame):
            return 0
        goes_on = frame.path == self.number and frame.first == len(self._ids)
        above = self._path(frame.follows) if goes_on else []
        return frame.nodes + (len(above) - common(self._coded, above)) // LEARNS

    def leads(self, frame: Propose) -> bool:
        """Whether a proposal that has come goes on with what may come next, or branches off."""
        leads = frame.path > self._lead[0] or (frame.path, frame.follows) == self._lead
        if not leads and frame.path == self.number:  # the text may have come to a branch
            leads = frame.follows == [self._at, *self._next(len(self._ids))][-1]
        if leads:
            self._lead = frame.path, frame.first + frame.length - 1
        return leads

    def adding(self, frame: Propose) -> Slices[None]:
        """Decode a proposal if it may come to be right, in slices of work.

        Not where tokens of its path before it were lost with a connection. Raises ValueError for
        bytes that are none.
        """
        known = len(self._ids) if frame.path == self.number else 0
        if not self.counts(frame) or frame.first != known:
            return
        if frame.path > self.number:
            # The last path's tokens as far as the text has them, too, are as they were decoded.
            self._stands()
            agreed = common(self._coded, self._walked)
            self._decoder.rollback(min(self._base + agreed, frame.base))
            self._coded = []
            self.number, self.alive = frame.path, True
            self._begin(frame.base)
        self._stands()
        if not self._open(frame.follows):
            self._add(frame.follows, [GONE] * frame.length, [()] * frame.length)
            return
        above = self._path(frame.follows)
        self._decoder.rollback(self._base + common(self._coded, above))
        self._coded = above
        as_draft = Draft(0, frame.base + len(above), frame.length, frame.payload)
        context = _Context(self._history, self._base, [self._ids[at] for at in above])
        found = yield from self._decoder.decoding(self._scheme, [as_draft], context, frame.beside)
        token = found[0].token
        if token in (self._ids[at] for at in self._children.get(frame.follows, ())):
            raise ValueError(f"id {token} stands twice behind one token")
        self._add(frame.follows, [d.token for d in found], [d.beside for d in found])
        self._stands()

    def _add(self, parent: int, ids: Sequence[int], beside: Sequence[tuple[int, ...]]) -> None:
        for token, others in zip(ids, beside, strict=True):
            self._children.setdefault(parent, []).append(len(self._ids))
            self._parents.append(parent)
            parent = len(self._ids)
            self._ids.append(token)
            self._beside.append(others)

    def _path(self, node: int) -> list[int]:
        """The tokens from the path's beginning to one of them, by number."""
        found = []
        while node != ROOT:
            found.append(node)
            node = self._parents[node]
        return found[::-1]

    def _open(self, node: int) -> bool:
        """Whether what follows a token may come next, or behind what does."""
        at = self._at
        while self.alive and node > at:
            node = self._parents[node]
        return node == at

    @property
    def _at(self) -> int:
        """The token where the text stands, or has left what was proposed."""
        return self._walked[-1] if self._walked else ROOT

    def following(self, most: int) -> list[int]:
        """At most so many proposed tokens that may come next."""
        return [self._ids[at] for at in self._next(most)]

    def _next(self, most: int) -> list[int]:
        found: list[int] = []
        if self._stands() and self._base + len(self._walked) == len(self._history):
            at = self._at
            while len(found) < most and (children := self._children.get(at)):
                at = children[0]  # the others were proposed beside it
                found.append(at)
        return found

    def beside(self, count: int) -> list[Leaf]:
        """The candidates beside the first ``count`` tokens that may come next, in their order."""
        found = []
        for place, at in enumerate(self._next(count)):
            others = self._others(self._children[self._parents[at]])
            found += [Leaf(place, token) for token in others]
        return found

    def _others(self, children: Sequence[int]) -> list[int]:
        """The candidates beside the first of what follows one token: named with it, or later."""
        first, *siblings = children
        ids = [*self._beside[first], *(self._ids[node] for node in siblings)]
        return list(dict.fromkeys(ids))[:MAX_BESIDE]

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
        return None if self._stands() else self._base + len(self._walked)

    @property
    def behind(self) -> int:
        """Tokens of the text behind the end of a path that it has."""
        if not self._stands():
            return 0
        return len(self._history) - self._base - len(self._walked)

    @property
    def end(self) -> int:
        """The position behind the path's last token, if none branches off."""
        return self._base + len(self._ids)

    def _stands(self) -> bool:
        """Whether the path is the text's own, as far as both go."""
        while self.number and (place := self._base + len(self._walked)) < len(self._history):
            children = self._children.get(self._at)
            if not children:
                break
            token = self._history[place]
            right = [node for node in children if self._ids[node] == token]
            if self.alive:
                others = self._others(children)
                self._reached += len(others)
                self._won += token in others
                self._wrong += not right
            self.alive = bool(right)
            if not right:
                break
            self._walked += right
            self._right += 1
        return self.alive
