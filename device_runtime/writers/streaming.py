"""Reading what the base station writes alone, and meanwhile seeing what the draft would have said.

Where a proposal is a function of the draft's distribution (greedy and ``coupled``), comparing it
with each token of the stream tells the acceptance rate before anything is drafted, for nothing but
the device's own time. A cache that has kept up is also ready to draft at once. In other schemes a
few proposals are made for the time that they take, and forgotten.
"""

from __future__ import annotations

from device_runtime.drafting.drafter import Proposal
from device_runtime.result import Kind
from device_runtime.transport.client import LinkError
from device_runtime.writers.writing import Writing
from draftlink.protocol import frames

BURST_S = 0.002  # tokens that come closer to one another had waited for something on the link

LOOKS = 3  # draft forwards that are timed, whatever else they tell


class Streaming:
    """Reads a stream. With ``auto`` the controller may end it."""

    def __init__(self, writing: Writing, *, auto: bool) -> None:
        self._writing = writing
        self._begins = len(writing.history)
        self._auto = auto
        self._last_s: float | None = None  # when the last token came
        self._first_s = 0.0
        self._bounded = writing.tally.first_s is not None  # by tokens of an earlier stream, if any
        self._leaves = False
        self._proposals: dict[int, Proposal] = {}  # by position, of tokens that have not come yet

    async def more(self) -> list[tuple[int, Kind]]:
        """The next tokens; nothing if the device drafts from here on."""
        writing = self._writing
        while True:
            if writing.job is None and self._looks():
                self._foretell()
            alone_s = writing.alone_s(writing.tally.started_s)
            if alone_s is not None and writing.now() >= alone_s:
                if shown := await writing.go_on((), self._begins):
                    return shown
                alone_s = None  # no more than that
            await writing.event(alone_s)
            if writing.job is not None and writing.job.done():
                await self._compare()
            if writing.incoming().done():
                frame = await writing.receive()
                if isinstance(frame, frames.Switched):
                    if writing.job is not None:
                        await self._compare()
                    return []
                if not isinstance(frame, frames.Tokens):
                    raise LinkError(f"the base station sent {type(frame).__name__}, not Tokens")
                return await self._take(frame)

    async def _take(self, frame: frames.Tokens) -> list[tuple[int, Kind]]:
        writing, now = self._writing, self._writing.now()
        begin = len(writing.history)
        place = writing.stand(frame.ids)
        if place is not None and writing.job is None:  # a job has no more than history before it
            writing.drafter.settle(begin + place)
        if self._last_s is not None and now - self._last_s > BURST_S:
            writing.estimates.target.add((now - self._last_s) / len(frame.ids))
        else:
            self._first_s = now
        self._last_s = now
        self._judge()
        self._bound_rtt()
        if self._auto and not self._leaves and writing.room > 0 and not frame.ended:
            controller = writing.controller
            controller.streamed(len(frame.ids))
            if controller.choose(writing.room) != "stream":
                self._leaves = True
                await writing.send(frames.Switch(writing.start.generation, "draft"))
        return [(token, "stream") for token in frame.ids]

    def _bound_rtt(self) -> None:
        """A round trip and the prompt came before the first token: no link is slower than that.

        A greeting that stalled would otherwise keep a fast link from being used.
        """
        estimates = self._writing.estimates
        if self._bounded or not len(estimates.target):
            return
        self._bounded = True
        first_s = self._first_s - self._writing.tally.started_s
        most_s = first_s - estimates.target.typical  # the prompt takes no less than a token
        if 0.0 < most_s < estimates.rtt.typical:
            estimates.rtt.add(most_s)

    def _looks(self) -> bool:
        """Whether the draft is to follow: always, if that tells what would be accepted."""
        drafter, draft = self._writing.drafter, self._writing.estimates.draft
        return self._auto and not self._leaves and (drafter.foretells or len(draft) < LOOKS)

    def _foretell(self) -> None:
        """Feed the draft the next token of the history, and note what it proposes behind it."""
        writing = self._writing
        length = writing.device.model.length
        written = writing.start.begins  # the first position that the target wrote
        until = max(length + 1, written)
        if until <= min(len(writing.history), writing.device.draft_context):
            self._asked_s, self._fed = writing.now(), until - length
            writing.begin(writing.drafter.propose, writing.history[:until], 1, self._begins)

    async def _compare(self) -> None:
        """The draft has proposed a token; the target's own may be there already."""
        writing = self._writing
        (proposal,) = await writing.done()
        if self._fed <= 2:
            writing.estimates.draft.took(writing.now() - self._asked_s, beside=True)
        if writing.drafter.foretells:
            self._proposals[writing.device.model.length] = proposal
            self._judge()

    def _judge(self) -> None:
        writing = self._writing
        for position in [p for p in self._proposals if p < len(writing.history)]:
            proposal = self._proposals.pop(position)
            stands = proposal.drafted.token == writing.history[position]
            writing.estimates.acceptance.foretold(proposal.chance, stands)
