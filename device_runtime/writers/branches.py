"""Both ends write, and the device drafts on several paths at once."""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.actions import Draft
from device_runtime.drafting.drafter import Pass, Proposal
from device_runtime.drafting.tree import Tree
from device_runtime.drafting.trunk import Trunk
from device_runtime.writers.both import Both
from device_runtime.writers.writing import Writing
from draftlink.protocol.hot import MAX_BESIDE


class Branches(Both):
    """As ``Both``, where the path is a tree's trunk: what is proposed is the same.

    Where the text leaves the trunk for what stood beside it, what is drafted behind that is the
    path from then on, and is proposed at once.
    """

    def __init__(self, writing: Writing) -> None:
        super().__init__(writing)
        assert isinstance(writing.paths, Trunk)
        self._adopts = writing.paths.adopt
        self._tree = Tree(writing.start.eos_ids, writing.draft_price)
        drafter = writing.drafter
        drafter.beside = max(drafter.beside, min(writing.branches - 1, MAX_BESIDE))
        self._made: Pass | None = None  # of the job

    @property
    def _cached(self) -> int:
        writing = self._writing
        return self._tree.fed(len(writing.history), writing.device.model.length)

    def _draft(self, action: Draft) -> None:
        writing, window = self._writing, self._window
        # In turns nothing is hidden behind a step; and what follows the text proposes nothing.
        most = 1 if window.turns or window.rests else writing.branches
        start, entries = writing.start, writing.device.draft_context - len(writing.history)
        room = start.begins + start.max_tokens - len(writing.history)
        self._made = self._tree.next(most, min(room, entries), entries)
        past = list(writing.history)
        writing.begin(writing.drafter.branching, past, self._made, action.begins)

    async def _collect(self) -> None:
        writing, window = self._writing, self._window
        assert self._made is not None
        self._tree.grown(self._made, await writing.proposals(), self._chances)
        fresh = self._trunk()[len(self._nodes) :]
        seen = writing.seen(fresh)
        self._nodes += fresh
        if not window.drafted(writing.now(), seen, writing.waited_s):
            self._adopts(seen)  # behind another trunk than it was asked for

    def _chances(self, proposal: Proposal) -> list[float]:
        """How likely a drafted token is right, and those beside it."""
        first = self._writing.controller.estimates.acceptance.probability(proposal.chance)
        each = [self._leaves.chance(rank, later) for rank, later in enumerate(proposal.later)]
        return [first, *(min(chance, 1.0 - first) for chance in each)]

    def _stand(self, ids: Sequence[int], agreed: int) -> None:
        self._tree.written(ids)
        if agreed == len(ids):
            del self._nodes[:agreed]
        else:
            self._nodes = self._trunk()
            self._writing.drafter.stands(len(self._writing.history) + agreed)

    def _follow(self, agreed: bool) -> None:
        if not agreed:
            self._adopts(self._writing.seen(self._nodes))

    def _trunk(self) -> list[Proposal]:
        return [node.proposal for node in self._tree.trunk if node.proposal is not None]
