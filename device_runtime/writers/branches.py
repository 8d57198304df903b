"""Both ends write, and the device drafts on several paths at once."""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.actions import Draft, Propose
from device_runtime.drafting.drafter import Pass, Proposal
from device_runtime.drafting.tree import Node, Tree
from device_runtime.drafting.trunk import Trunk
from device_runtime.writers.both import Both
from device_runtime.writers.writing import Writing
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.protocol.both import MAX_LIVE
from draftlink.protocol.history import common
from draftlink.protocol.hot import MAX_BESIDE

OLD = 48  # tokens of text behind a path's beginning: there it goes on as a new one
SPARE = 64  # tokens of a path that is left for its trunk: behind that nothing else is proposed


class Branches(Both):
    """As ``Both``, where the path is a tree's trunk, and what is drafted beside it.

    Where the text leaves the trunk for what stood beside it, what is drafted behind that is the
    trunk from then on. If it has been proposed the path goes on, and the base station need not wait
    for anything; else it is proposed at once, as a path.
    """

    def __init__(self, writing: Writing) -> None:
        self._tree = Tree(writing.start.eos_ids, writing.draft_price)
        self._numbers: dict[Node, int] = {}  # of what was proposed on this path
        self._coded: list[int] = []  # behind which tokens the last payload was coded
        super().__init__(writing)
        assert isinstance(writing.paths, Trunk)
        self._path_window = writing.paths
        self._adopts = writing.paths.adopt
        self._made: Pass | None = None  # of the job

    @property
    def _beside(self) -> int:
        branches = 0 if self._window.turns else self._writing.branches - 1
        return max(super()._beside, min(branches, MAX_BESIDE))

    @property
    def _cached(self) -> int:
        writing = self._writing
        return self._tree.fed(len(writing.history), writing.device.model.length)

    def _draft(self, action: Draft) -> None:
        writing, window = self._writing, self._window
        # In turns nothing is hidden behind a step; and what follows the text proposes nothing.
        most = 1 if window.turns or window.rests else writing.branches
        most = most if self._path_window.affords(most) else 1
        start, entries = writing.start, writing.device.draft_context - len(writing.history)
        room = start.begins + start.max_tokens - len(writing.history)
        self._made = self._tree.next(most, min(room, entries), entries)
        past, writing.drafter.beside = list(writing.history), self._beside
        writing.begin(writing.drafter.branching, past, self._made, action.begins)

    async def _collect(self) -> None:
        writing = self._writing
        assert self._made is not None
        self._tree.grown(self._made, await writing.proposals(), self._leaves.chances)
        fresh = self._trunk()[len(self._nodes) :]
        seen = writing.seen(fresh)
        self._nodes += fresh
        rows = len(self._made.nodes)
        if not self._path_window.rows_drafted(writing.now(), seen, writing.waited_s, rows):
            self._adopts(seen)  # behind another trunk than it was asked for

    async def _propose(self, action: Propose) -> None:
        """The next of the trunk, and what is drafted beside it by now."""
        trunk = self._tree.trunk
        begin = sum(node in self._numbers for node in trunk)
        if self._live + action.tokens > MAX_LIVE:
            self._leave_path()
        ahead = [node for node in trunk[: begin + action.tokens] if node not in self._numbers]
        proposals = [node.proposal for node in ahead if node.proposal is not None]
        await self._send(ahead, self._chosen(proposals, begin), action.goes_on)
        if frames.BRANCHES not in self._writing.device.client.welcome.features:
            return
        for chain in list(self._tree.beside()):
            nodes = [node for node in chain if node not in self._numbers]
            if nodes and self._live + len(nodes) <= MAX_LIVE - SPARE:
                await self._send(nodes, [Drafted(node.token) for node in nodes], action.goes_on)

    @property
    def _live(self) -> int:
        """What of the path was proposed and the text has not come to, or not come through."""
        return self._proposed + self._base - len(self._writing.history)

    def _follows(self, node: Node) -> int | None:
        """The number of what a token follows on this path; None if that was not proposed."""
        above = node.parent
        if above is self._tree.root and len(self._writing.history) == self._base:
            return -1
        return None if above is None else self._numbers.get(above)

    async def _send(self, nodes: Sequence[Node], drafted: list[Drafted], goes_on: bool) -> None:
        """Propose tokens that follow one another, if what they follow was proposed."""
        writing, begin = self._writing, 0
        while begin < len(nodes):
            follows = self._follows(nodes[begin])
            if follows is None or writing.device.client.reconnects != self._reconnects:
                return  # since it was asked for there is another: ``lost`` has it proposed anew
            some = drafted[begin : begin + self._fit(drafted[begin:])]
            past = [*writing.history, *self._tree.behind(nodes[begin])[:-1]]
            writing.drafter.stands(common(self._coded, past))
            self._coded = past
            payload, bits = writing.drafter.encode(past, some)
            beside = tuple(len(each.beside) for each in some)
            frame = frames.Propose(
                self._path, self._base, len(writing.history), self._proposed, len(some), payload,
                goes_on, beside if any(beside) else (), self._proposed - 1 - follows,
            )  # fmt: skip
            for node in nodes[begin : begin + len(some)]:
                self._numbers[node] = self._proposed
                self._proposed += 1
            begin += len(some)
            await writing.send(frame, bits)

    def _fit(self, drafted: Sequence[Drafted]) -> int:
        """How many of these one message takes, with what stands beside them; at least one."""
        told, room = self._writing.device.client.welcome, 0
        most = self._writing.drafter.scheme.longest(
            told.vocab_size, frames.MAX_MESSAGE_BYTES, told.frame_entries
        )
        for count, one in enumerate(drafted):
            room += 1 + len(one.beside)
            if room > most and count:
                return count
        return len(drafted)

    def _leave_path(self) -> None:
        super()._leave_path()
        self._numbers.clear()

    def _stand(self, ids: Sequence[int], agreed: int) -> None:
        self._tree.written(ids)
        if agreed == len(ids):
            del self._nodes[:agreed]
        else:
            self._nodes = self._trunk()

    def _follow(self, agreed: bool) -> None:
        # What was cut is drafted behind anew, and may have been proposed already.
        root = self._tree.root
        goes_on = not agreed and root in self._numbers and not root.cut
        old = self._live > MAX_LIVE // 2 or len(self._writing.history) - self._base > OLD
        if old or not goes_on:
            self._leave_path()
        if not agreed:
            sent = sum(node in self._numbers for node in self._tree.trunk)
            self._adopts(self._writing.seen(self._nodes), sent)

    def _trunk(self) -> list[Proposal]:
        return [node.proposal for node in self._tree.trunk if node.proposal is not None]
