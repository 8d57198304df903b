"""Both ends write: drafts, proposes and rolls back as the window says, and reads the text."""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting import leaves
from device_runtime.drafting.actions import Draft, Propose, Show, Wait
from device_runtime.drafting.drafter import Proposal
from device_runtime.result import Came, Kind
from device_runtime.transport.client import LinkError
from device_runtime.writers.told import came
from device_runtime.writers.writing import Writing
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames


class Both:
    """Drafts on one path after another, beside a base station that writes, too."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._window = writing.paths
        self._nodes: list[Proposal] = []  # of the path, behind the text
        self._leaves = leaves.Leaves(writing.controller)
        self._reconnects = writing.device.client.reconnects
        self._leave_path()

    @property
    def _branches(self) -> bool:
        """Whether the base station takes candidates beside the tokens of a path."""
        return frames.LEAVES in self._writing.device.client.welcome.features

    @property
    def _beside(self) -> int:
        """Candidates that are looked for beside a token. In turns none: the ends share a machine,
        where no round trip is saved, and neither draws nor rows run beside anything."""
        return 0 if self._window.turns else leaves.MOST * self._branches

    async def more(self) -> list[Came]:
        """The next tokens of the text."""
        writing = self._writing
        while True:
            self._mend()
            for action in writing.due(self._cached):
                if isinstance(action, Show):
                    return await writing.show(action, self._nodes)
                if isinstance(action, Draft):
                    self._draft(action)
                elif isinstance(action, Propose):
                    await self._propose(action)
                else:
                    assert isinstance(action, Wait)
                    batch = await self._wait(action)
                    if batch is not None:
                        return batch

    @property
    def _cached(self) -> int:
        """Tokens of text and path that the draft has been fed."""
        return self._writing.device.model.length

    def _draft(self, action: Draft) -> None:
        writing = self._writing
        past = [*writing.history, *(node.drafted.token for node in self._nodes)]
        writing.drafter.beside = self._beside
        proposing = writing.drafter.proposing
        writing.begin(proposing, past, action.tokens, action.begins, action.fresh)

    async def _wait(self, action: Wait) -> list[Came] | None:
        """Until something has come, or a time; what has been written, if that has come."""
        writing = self._writing
        await writing.event(action.until_s)
        if writing.job is not None and writing.job.done():
            await self._collect()
        if not writing.incoming().done():
            return None
        frame = await writing.receive()
        if not isinstance(frame, frames.Written):
            raise LinkError(f"the base station sent {type(frame).__name__}, not Written")
        return self._take(frame)

    def _mend(self) -> None:
        """Over a new connection a path of what is drafted and not refuted takes the last's place.

        What was sent may be lost.
        """
        reconnects = self._writing.device.client.reconnects
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            self._leave_path()
            self._window.lost()

    def _leave_path(self) -> None:
        """The next token that is proposed begins a path behind the text."""
        self._path = self._writing.session.progress.path + 1
        self._base = len(self._writing.history)
        self._proposed = 0

    async def _propose(self, action: Propose) -> None:
        writing = self._writing
        if writing.device.client.reconnects != self._reconnects:
            return  # since it was asked for: ``lost`` has it proposed anew
        begin = self._base + self._proposed - len(writing.history)  # of the nodes, sent before
        drafted = self._chosen(self._nodes[begin : begin + action.tokens], begin)
        past = [*writing.history, *(node.drafted.token for node in self._nodes[:begin])]
        payload, bits = writing.drafter.encode(past, drafted)
        beside = tuple(len(each.beside) for each in drafted)
        frame = frames.Propose(
            self._path, self._base, len(writing.history), self._proposed, len(drafted), payload,
            action.goes_on, beside if any(beside) else (),
        )  # fmt: skip
        self._proposed += len(drafted)
        await writing.send(frame, bits)

    def _chosen(self, nodes: Sequence[Proposal], ahead: int) -> list[Drafted]:
        """Tokens of the path, with the candidates beside them that are proposed, too."""
        if not self._branches:
            return [Drafted(node.drafted.token) for node in nodes]
        told = self._writing.device.client.welcome
        most = self._writing.drafter.scheme.longest(
            told.vocab_size, frames.MAX_MESSAGE_BYTES, told.frame_entries
        )
        return self._leaves.proposed(nodes, ahead, told, most)

    async def _collect(self) -> None:
        writing = self._writing
        proposals = await writing.proposals()
        seen = writing.seen(proposals)
        if self._window.drafted(writing.now(), seen, writing.waited_s):
            self._nodes += proposals

    def _take(self, frame: frames.Written) -> list[Came]:
        """What the base station has written; the path is held against it."""
        writing = self._writing
        agreed = 0
        for token, node in zip(frame.ids, self._nodes, strict=False):
            if token != node.drafted.token:
                break
            agreed += 1
        differs = agreed < min(len(frame.ids), len(self._nodes))
        for node, token in zip(self._nodes[: agreed + differs], frame.ids, strict=False):
            self._leaves.met(node, token)
        self._window.heard(writing.now())
        writing.tally.verify_s += frame.step_us * 1e-6
        writing.tally.wrote(frame.accepted, frame.fed)
        writing.tally.met(agreed, differs=differs)
        writing.tally.followed += len(frame.ids) * self._window.follows
        goes_on = self._window.written(
            writing.now(),
            agreed,
            frame.accepted,
            len(frame.ids),
            step_s=frame.step_us * 1e-6,
            rows=frame.fed,
        )
        self._stand(frame.ids, agreed)
        writing.commit(frame.ids)
        if not goes_on:
            self._follow(agreed == len(frame.ids))
        own: Kind = "correction" if differs else "bonus"
        kinds: list[Kind] = ["draft"] * frame.accepted
        kinds += [own] * (len(frame.ids) - frame.accepted)
        return came(writing, frame.ids, kinds, frame.logprobs)

    def _stand(self, ids: Sequence[int], agreed: int) -> None:
        """The text goes on with ``ids``, of which the path has the first ``agreed``."""
        if agreed == len(ids):
            del self._nodes[:agreed]
        else:
            self._nodes = []
            self._writing.drop(len(self._writing.history) + agreed)

    def _follow(self, agreed: bool) -> None:
        """The path does not go on. ``agreed``: as far as it goes the text has it, too."""
        self._leave_path()
