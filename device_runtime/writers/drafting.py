"""Drafting: a window of drafted tokens in flight, verdicts, and going back when one is rejected.

Stop-and-wait is the window that closes after one block. In run-ahead the device drafts on while
verdicts are under way: a block without ``waits`` brings no bonus token, and the next one follows.
The first block behind a correction is sent when it is as long as planned, later ones just in time
for the base station to take them when it is done with those before.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from device_runtime.drafting.controller import Drafting as Mode
from device_runtime.drafting.controller import Plan
from device_runtime.drafting.drafter import Proposal
from device_runtime.result import Kind
from device_runtime.transport.client import LinkError
from device_runtime.writers.writing import Writing
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.protocol.states import State

BLOCK = 16  # tokens that are sent in any case, however certain
LATE = 0.1  # by how much of a draft forward a verdict may be late before it is not waited for


@dataclass
class _Block:
    """Drafted tokens in a frame of their own, behind which the device waits or not."""

    proposals: list[Proposal]
    waits: bool
    stands: float  # how likely all of it is to stand
    sent_s: float
    due_s: float  # when its verdict should come


class Drafting:
    """Writes by drafting, in a ``mode`` that may change between epochs.

    With ``auto`` the controller changes it; where it prefers to stream, this ends once the verdicts
    that are under way have come.
    """

    def __init__(self, writing: Writing, mode: Mode, *, auto: bool) -> None:
        self.mode: Mode = mode
        self._writing = writing
        self._auto = auto
        self._sent: deque[_Block] = deque()
        self._block: list[Proposal] = []  # drafted and not yet sent
        self._ahead: list[int] = []  # the tokens of both
        self._wants_out = False  # to the stream
        self._leaves = False  # and has said so
        self._plan: Plan
        self._begins: int  # tokens of the history when the epoch began
        self._asked_s = 0.0  # when the job began
        self._beside = False  # whether the base station had something in flight then
        self._fed = 0  # tokens that it feeds before it drafts
        self._pause_s: float | None = None  # until when nothing is drafted
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        """Something other than a drafted token stands last, and nothing is in flight."""
        writing = self._writing
        self._begins = len(writing.history)
        if writing.alone is not None and not writing.drafter.foretells:
            writing.alone.outdate()
            if writing.job is None:
                writing.drafter.settle(self._begins)
        self._plan = self._writing.controller.plan(self.mode)
        self._judged = 0  # tokens that stand, behind the epoch's beginning
        self._free_s: float | None = None  # when the base station can take another block
        self._began_s = self._writing.now()

    async def more(self) -> list[tuple[int, Kind]]:
        """What the next verdict makes stand; nothing if the base station streams from here on."""
        writing = self._writing
        while True:
            while writing.agreed and await self._advance():
                pass
            if writing.agreed and writing.session.state is State.STREAMING:
                writing.drafter.settle(len(writing.history))
                return []
            alone_s = writing.alone_s(self._waits_since_s())
            if alone_s is not None and writing.now() >= alone_s:
                if shown := await writing.go_on(self._flight() + self._block, self._begins):
                    return shown
                alone_s = None  # no more than that
            # A pause ends with a token being drafted, for which both ends must be agreed.
            await writing.event(self._pause_s if writing.agreed else None, alone_s)
            if writing.job is not None and writing.job.done():
                await self._collect()
            if writing.incoming().done():
                frame = await writing.receive()
                if not isinstance(frame, frames.Verdict):
                    raise LinkError(f"the base station sent {type(frame).__name__}, not Verdict")
                return await self._settle(frame)

    def _most(self) -> int:
        """Tokens that can still be drafted behind those that have been."""
        writing = self._writing
        if self._ahead and self._ahead[-1] in writing.start.eos_ids:
            return 0
        # The history and all that is drafted must fit the draft; the last token is the target's.
        return min(writing.room, writing.left - 1) - len(self._ahead)

    def _flight(self) -> list[Proposal]:
        """What has been sent, and not judged yet."""
        return [proposal for block in self._sent for proposal in block.proposals]

    def _waits_since_s(self) -> float | None:
        """Since when something of the base station's is due, if anything is."""
        if self._sent:
            return self._sent[0].sent_s
        return self._began_s if self._leaves or not self._writing.agreed else None

    async def _advance(self) -> bool:
        """Send what is due, and draft on if there is room; not while a job is under way.

        True if there may be more to do at once.
        """
        writing = self._writing
        if writing.job is not None or self._leaves or (self._sent and self._sent[-1].waits):
            return False
        full = not self._ahead and writing.left > 1 and self._most() < 1  # the draft's context
        if (self._wants_out or full) and writing.left > 0:
            if writing.owed is not None:
                await self._send(self._taken(waits=True))  # which brings it, and nothing to judge
            elif self._block:
                # Whether a token was held depends on which it is: to drop it would be to choose.
                await self._send(self._taken(waits=False))
                return True
            elif not self._sent or writing.drafter.scheme.corrects == "bs":
                await self._leave()  # else a token may come to be owed
            return False
        block, known = self._cut(), []
        if not (block and block.waits):
            count = self._wanted()
            if count > 0 and writing.alone is not None:
                known = writing.alone.known(len(self._ahead), count)
            if count > 0 and not known and not self._holds():
                past = writing.history + self._ahead
                self._asked_s, self._beside = writing.now(), bool(self._sent or block)
                self._fed = len(past) - writing.device.model.length
                writing.begin(writing.drafter.propose, past, count, self._begins, not self._ahead)
        if block:
            await self._send(block)
        if known:
            self._pause_s = None
            self._append(known)
        return bool(known)

    def _wanted(self) -> int:
        """How many tokens to draft before there is something to decide."""
        count = min(self._most(), self._window() - len(self._ahead), self._longest())
        if self._plan.waits:
            return min(count, self._plan.first - len(self._block))
        return min(count, 1)

    def _longest(self) -> int:
        """Tokens that still fit the block's message."""
        writing, welcome = self._writing, self._writing.device.client.welcome
        longest = writing.drafter.scheme.longest(
            welcome.vocab_size, frames.MAX_MESSAGE_BYTES, welcome.frame_entries
        )
        return longest - len(self._block)

    def _window(self) -> int:
        """Drafted tokens without a verdict, at most: as planned, and as the base station allows."""
        writing, welcome = self._writing, self._writing.device.client.welcome
        allowed = writing.drafter.scheme.deepest(welcome.vocab_size, welcome.flight_entries)
        return min(self._plan.window, allowed)

    def _cut(self) -> _Block | None:
        """The block that is to be sent now, if any."""
        most = self._most()
        if most <= 0:
            # With nothing drafted it asks for a token of the target's.
            if self._block or not self._sent:
                return self._taken(waits=True)
            return None
        full = len(self._ahead) >= self._window() or self._longest() <= 0
        if not self._block or not (full or self._is_due()):
            return None
        return self._taken(waits=self._plan.waits)

    def _is_due(self) -> bool:
        """Whether the base station should check the block, rather than wait for more of it."""
        writing, plan = self._writing, self._plan
        if plan.waits or len(self._block) >= BLOCK:
            return len(self._block) >= plan.first
        # The next token would come too late for the next verification. While it is all but certain
        # that nothing is rejected, that would be for nothing.
        next_s = writing.now() + writing.estimates.draft.typical
        free = self._free_s is None or next_s > self._free_s
        return free and self._stands() <= plan.sure and self._is_worth_it()

    def _is_worth_it(self) -> bool:
        """Whether a message of its own gains more for the block than it costs.

        If all that is in flight stands and something of the block does not, the correction comes a
        verification sooner than if the block waited for more. A message that stalls holds up those
        behind it, the next epoch's too if this one is over.
        """
        estimates = self._writing.estimates
        reached = math.prod(block.stands for block in self._sent)
        gain_s = reached * (1.0 - self._stands()) * estimates.verify_s
        return not self._sent or gain_s >= estimates.stall_s

    def _stands(self) -> float:
        """How likely all of the block is to stand, if all before it does."""
        acceptance = self._writing.estimates.acceptance
        return math.prod(acceptance.stands(proposal.chance) for proposal in self._block)

    def _holds(self) -> bool:
        """Whether to wait for a verdict that is due before another token could be drafted.

        A forward is not interrupted: one that is under way when a rejection comes only delays what
        follows.
        """
        writing, pause_s = self._writing, self._pause_s
        now, draft_s = writing.now(), writing.estimates.draft.typical
        if pause_s is not None and now < pause_s:
            return True
        self._pause_s = None
        if pause_s is not None or not self._sent:
            return False
        block = self._sent[0]
        lost_s, idle_s = now + draft_s - block.due_s, block.due_s - now
        if idle_s <= 0.0 or (1.0 - block.stands) * lost_s <= block.stands * idle_s:
            return False
        self._pause_s = block.due_s + LATE * draft_s
        return True

    def _taken(self, *, waits: bool) -> _Block:
        writing, estimates = self._writing, self._writing.estimates
        # In this end's time: when it would have to be sent to arrive at that moment.
        begin_s = max(self._free_s or 0.0, writing.now())
        self._free_s = begin_s + estimates.verify_s
        due_s = self._free_s + estimates.rtt.typical
        block = _Block(self._block, waits, self._stands(), writing.now(), due_s)
        self._block = []
        self._sent.append(block)
        return block

    async def _send(self, block: _Block) -> None:
        writing, session = self._writing, self._writing.session
        drafted = [proposal.drafted for proposal in block.proposals]
        tokens = len(self._flight()) - len(drafted)
        payload, bits = writing.drafter.encode(writing.history + self._ahead[:tokens], drafted)
        owed, writing.owed = writing.owed, None
        frame = frames.Draft(
            session.epoch,
            session.progress.expected,
            len(drafted),
            payload,
            owed,
            block.waits,
        )
        await writing.send(frame, bits)

    async def _collect(self) -> None:
        """Tokens have been drafted."""
        writing = self._writing
        stale = writing.stale
        proposals: list[Proposal] = await writing.done()
        seconds = writing.now() - self._asked_s
        writing.tally.draft_s += seconds
        writing.tally.drafted += len(proposals)
        if self._fed <= 2:  # else the prompt, or a backlog, was part of it
            # While a job went stale, the base station was at work for a part of it.
            beside = None if stale else self._beside
            writing.estimates.draft.took(seconds / len(proposals), beside=beside)
        if not stale:
            self._append(proposals)

    def _append(self, proposals: list[Proposal]) -> None:
        self._block += proposals
        self._ahead += [proposal.drafted.token for proposal in proposals]

    async def _settle(self, verdict: frames.Verdict) -> list[tuple[int, Kind]]:
        """Apply a verdict to history and cache; the tokens that it makes stand."""
        writing, accepted, flight = self._writing, verdict.accepted, self._flight()
        own = verdict.next is not None or bool(verdict.row)  # the target's own token comes behind
        rejected = own and accepted < len(flight)
        self._account(verdict, [proposal.chance for proposal in flight], rejected)
        batch: list[tuple[int, Kind]] = [(token, "draft") for token in self._ahead[:accepted]]
        writing.stand(self._ahead[:accepted])
        following = verdict.next
        if verdict.closes:
            self._drop()
            if verdict.row:
                following = writing.owed = await self._correct(
                    flight[accepted].drafted, verdict.row
                )
            if following is not None:
                writing.stand([following])
                batch.append((following, "correction" if rejected else "bonus"))
        else:
            self._pause_s = None
            del self._ahead[:accepted]
            while accepted:
                accepted -= len(self._sent.popleft().proposals)
        if writing.learned is not None and verdict.surprisals and not self._judged:
            writing.learned.observe(batch[0][0], verdict.surprisals[0])
        self._judged += verdict.accepted
        if not verdict.ended:
            await self._choose(closes=verdict.closes)
        return batch

    def _account(self, verdict: frames.Verdict, chances: list[float], rejected: bool) -> None:
        writing, tally, estimates = self._writing, self._writing.tally, self._writing.estimates
        verify_s, queue_s = verdict.verify_us * 1e-6, verdict.queue_us * 1e-6
        tally.verify_s += verify_s
        tally.verdict(self._judged, verdict.accepted, rejected=rejected)
        estimates.verify.took(verify_s, beside=not self._sent[0].waits)
        estimates.queue.add(queue_s)
        estimates.acceptance.judged(self._judged, chances, verdict.accepted, rejected=rejected)
        # Behind the prompt, or another verification, a block waits longer than the verdict says.
        # An epoch's first one is behind neither, however many have been sent by then: left out
        # where others follow it, the round trips that stall would never be seen.
        if not self._judged and tally.rounds > 1:
            estimates.rtt.add(writing.now() - self._sent[0].sent_s - verify_s - queue_s)

    def _drop(self) -> None:
        """What has been drafted and does not stand; ``history`` ends where it began."""
        self._sent.clear()
        self._block, self._ahead, self._pause_s = [], [], None
        self._writing.drop()

    async def _correct(self, rejected: Drafted, row: bytes) -> int:
        """The token in the place of a rejected one, by the device (``split``)."""
        writing = self._writing
        if writing.job is not None:
            await self._collect()
        try:
            token = await writing.call(writing.drafter.correct, writing.history, rejected, row)
            if token >= writing.session.vocab_size:
                raise ValueError(f"its row has the token {token}, which the draft lacks")
        except ValueError as error:
            raise LinkError(f"the base station broke the protocol: {error}") from None
        return token

    async def _choose(self, *, closes: bool) -> None:
        """A verdict has come: how to go on."""
        controller, writing = self._writing.controller, self._writing
        if closes:
            controller.drafted(self.mode, self._judged + 1, writing.now() - self._began_s)
        if self._auto and not self._leaves:
            writer = controller.choose(writing.left)
            if writer == "stream":
                self._wants_out = True
            elif closes:
                self.mode = writer
        if closes:
            self._begin_epoch()

    async def _leave(self) -> None:
        """The base station streams, once it has dealt with what is in flight."""
        writing = self._writing
        self._leaves = True
        await writing.send(frames.Switch(writing.start.generation, "stream"))
