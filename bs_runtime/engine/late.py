"""A round whose block is not known before its first step begins, and may have leaves.

Where both ends write, proposals go on coming while a round waits for the step of others to end.
What has come until then is in the block. Beside its tokens may stand candidates: *leaves*, which
are fed behind the whole chain of the block, each as a sibling of the token that it stands beside.
A leaf's row is of account only where the target writes just that token there; then the row says
what comes behind it, and the leaf's keys and values are moved to where the refuted token's are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from bs_runtime.engine.generation import Generation, Round
from bs_runtime.model.kv import Feed
from bs_runtime.verify.job import Job, Outcome
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sparse import Drafted


class Leaf(NamedTuple):
    """A token that may stand in the place of a block's, which is number ``beside`` of it."""

    beside: int
    token: int


class Late(Round):
    """Those of ``proposed()`` that are right, and a token of the target's own: as ``next``.

    It is asked whenever a step is made, until the round is fed for the first time. ``beside``:
    given how long the block is, the leaves beside its tokens; those of one token all differ, from
    each other and from it.
    """

    def __init__(
        self,
        generation: Generation,
        proposed: Callable[[], Sequence[int]],
        beside: Callable[[int], Sequence[Leaf]] = lambda _: (),
    ) -> None:
        super().__init__(generation, (), Purpose.STREAM)
        self._proposed, self._beside = proposed, beside
        self._begun = False
        self.leaves: list[Leaf] = []
        self._path: list[int] | None = None  # of the block, where it ends in a leaf

    def bind(self) -> int:
        """Ask once more, unless the round has been fed."""
        if not self._begun:
            self.drafted = list(self.generation.proposed(self._proposed()))
            # No more than the slot may come to hold: it has been granted no more.
            room = max(0, self.generation.left - len(self.drafted))
            self.leaves = list(self._beside(len(self.drafted)))[:room]
        return self.left

    @property
    def size(self) -> int:
        """Tokens of the block, leaves too."""
        return len(self.drafted) + len(self.leaves)

    def feed(self, limit: int) -> Feed:
        """The next tokens: see ``Round.feed``. The block stays what it is from now on."""
        self._begun = True
        return super().feed(limit)

    def block(self, begin: int, end: int) -> tuple[Sequence[int], Sequence[int]]:
        """Tokens of the block, the chain first, and their parents: see ``Round.block``."""
        if not self.leaves:
            return super().block(begin, end)
        tokens = [*(d.token for d in self.drafted), *(leaf.token for leaf in self.leaves)]
        parents = [*range(-1, len(self.drafted) - 1), *(leaf.beside - 1 for leaf in self.leaves)]
        return tokens[begin:end], parents[begin:end]

    def rows(self) -> Tensor:
        """Those of the chain; or, behind ``follow``, of the path that ends in a leaf."""
        rows = super().rows()
        if self._path is None:
            return rows[: len(self.drafted) + 1]
        return rows[[0, *(1 + at for at in self._path)]]

    def follow(self, job: Job, outcome: Outcome) -> Job | None:
        """What is to be judged behind a leaf, by the last of ``rows``, where the target writes one.

        ``outcome``: what the chain came to, judged as ``job``. The row is judged with the history
        that it has: the tokens before the leaf, and the leaf.
        """
        place = outcome.accepted, outcome.next
        if self._path is not None or place not in self.leaves:
            return None
        at = len(self.drafted) + self.leaves.index(Leaf(*place))
        self._path = [*range(outcome.accepted), at]
        return replace(job, drafted=(), history=[*job.history, *self._tokens])

    @property
    def _tokens(self) -> list[int]:
        """Of the path that ends in a leaf."""
        assert self._path is not None
        chain = [self.drafted[at].token for at in self._path[:-1]]
        return [*chain, self.leaves[self._path[-1] - len(self.drafted)].token]

    def commit(self, outcome: Outcome | None) -> Outcome:
        """Carry out what was verified: see ``Generation.commit``."""
        if self._path is None:
            return super().commit(outcome)
        self.slot.keep(self._path)
        written = [Drafted(token, 1, 1) for token in self._tokens]
        return self.generation.commit(written, self.rows(), outcome, waits=True)


def joined(chain: Outcome, leaf: Outcome) -> Outcome:
    """What a chain came to, and what stands behind the leaf that follows it, as one block's."""
    return replace(
        leaf,
        accepted=chain.accepted + 1,
        surprisals=chain.surprisals + leaf.surprisals,
        logprobs=chain.logprobs + leaf.logprobs,
    )
