"""The window while the device drafts, epoch by epoch: what is due next, and what verdicts change.

Stop-and-wait is the window that closes after one block. In run-ahead the device drafts on while
verdicts are on their way: a block that does not wait brings no bonus token, and the next one
follows it. The first block behind a correction is sent when it is as long as planned, and later
ones just in time for the base station to take them when it is done with those before.

Whether a position is drafted is decided before its draw: from the time, the estimates and the
chances of earlier tokens. Once drawn, a token is sent, or discarded for a reason that does not
depend on its value. All times are this end's, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from device_runtime.drafting.actions import Action, Draft, Reuse, Send, Switch
from device_runtime.drafting.blocks import Flight, Forward, Judged, Proposed
from device_runtime.drafting.controller import Controller, DraftingMode
from device_runtime.drafting.counts import Counts
from device_runtime.drafting.offline import Offline
from device_runtime.drafting.refuted import Refuted

BLOCK = 16  # a block of so many tokens is sent however certain they are
LATE = 0.1  # by how much of a draft forward a verdict may be late before it is not waited for
BACKLOG = 2  # a forward that feeds more tokens than that tells nothing of a draft forward's time


class Epochs:
    """Drafting in a mode that may change from epoch to epoch, until the base station takes over.

    With ``auto`` the controller chooses the mode; where it prefers the stream, this ends once the
    blocks in flight have been judged.
    """

    def __init__(
        self, controller: Controller, counts: Counts, offline: Offline, now: float, *, auto: bool
    ) -> None:
        self.mode: DraftingMode = controller.drafts
        self._controller = controller
        self._estimates = controller.estimates
        self._counts = counts
        self._offline = offline
        self._auto = auto
        self._flight = Flight()
        self._forward: Forward | None = None
        self._opened = False  # the last verdict's time was what the prompt took to be read
        self._owes = False  # the next block brings the token that the device drew itself
        self._wants_stream = self._leaves = False  # and the base station has been told so
        self._pause_s: float | None = None  # until when nothing is drafted
        self._refuted = Refuted(self._estimates.acceptance)
        self._begin_epoch(now)

    def _begin_epoch(self, now: float) -> None:
        """The last token of the history was not drafted, and nothing is in flight."""
        self.begins = self._counts.length
        self.judged = self._length = 0  # tokens accepted since; and of the block judged last
        self._plan = self._controller.plan(self.mode)
        self._free_s: float | None = None  # when the base station can take another block
        self._began_s = now
        if not self._counts.limits.foretells:
            self._offline.outdate()

    # What is due.

    @property
    def drafting(self) -> bool:
        """Whether a draft forward is under way."""
        return self._forward is not None

    @property
    def ends(self) -> list[bool]:
        """Of each drafted token that has not been judged, whether it is an EOS."""
        return self._flight.ends

    @property
    def pause_s(self) -> float | None:
        """Until when nothing is drafted, if a verdict is waited for first."""
        return self._pause_s

    @property
    def gone(self) -> bool:
        """Whether the base station writes: it has been told, and nothing is in flight."""
        return self._leaves and not self._flight.sent

    def waits_since_s(self, *, connected: bool) -> float | None:
        """Since when something of the base station's is due, if anything is."""
        if self._flight.sent:
            return self._flight.sent[0].sent_s
        return self._began_s if self._leaves or not connected else None

    def due(self, now: float, cached: int) -> list[Action]:
        """What is to be done at once, in this order, while both ends agree.

        ``cached`` is the number of tokens in the draft's cache. Nothing while a forward is under
        way, or behind a block that waits.
        """
        if self._leaves or self._forward is not None or self._flight.waits:
            return []
        counts = self._counts
        full = not self._flight and counts.left > 1 and self._most() < 1  # the draft's context
        if (self._wants_stream or full) and counts.left > 0:
            return self._leave(now)
        if self._opens:
            return [self._take(now, waits=True)]
        actions: list[Action] = []
        block, known = self._cut(now), 0
        if block is None or not block.waits:
            count = self._wanted()
            if count > 0:
                known = self._offline.known(len(self._flight), count)
            if count > 0 and not known and not self._holds(now):
                past = counts.length + len(self._flight)
                self._forward = Forward(now, bool(self._flight.sent), past - cached)
                actions.append(Draft(count, self.begins, not self._flight))
        if block is not None:
            actions.append(block)
        if known:
            self._pause_s = None
            actions.append(Reuse(len(self._flight), known))
        return actions

    @property
    def _opens(self) -> bool:
        """Whether the text's first token is asked for before any is drafted: on one machine to read
        the prompt here, too, would slow the base station, which has its row once it has read it."""
        begins = self._counts.length == self._counts.limits.begins
        return begins and self._controller.opens and not self._flight.sent

    def _leave(self, now: float) -> list[Action]:
        """The base station is to stream, once it has judged what is in flight."""
        if self._owes:
            return [self._take(now, waits=True)]  # it brings the token, and nothing to judge
        if self._flight.block:
            # Whether a token was held back depends on which it is: to drop it would be to choose.
            return [self._take(now, waits=False)]
        if self._flight.sent and self._counts.limits.corrects:
            return []  # a token may come to be owed
        self._leaves = True
        return [Switch("stream")]

    def _most(self) -> int:
        """Tokens that can still be drafted behind those that have been."""
        if self._flight.over:
            return 0
        # The history and all that is drafted must fit the draft; the last token is the target's.
        return min(self._counts.room, self._counts.left - 1) - len(self._flight)

    def _wanted(self) -> int:
        """How many tokens to draft before there is something to decide."""
        count = min(self._most(), self._window() - len(self._flight), self._longest())
        if self._plan.waits and not self._plan.sure:
            return min(count, self._plan.first - len(self._flight.block))
        return min(count, 1)

    def _longest(self) -> int:
        """Tokens that still fit the block's message."""
        return self._counts.limits.message - len(self._flight.block)

    def _window(self) -> int:
        """Drafted tokens without a verdict, at most: as planned, and as the base station allows."""
        return min(self._plan.window, self._counts.limits.flight)

    def _cut(self, now: float) -> Send | None:
        """The block that is to be sent now, if any."""
        if self._most() <= 0:
            # With nothing drafted it asks for a token of the target's.
            if self._flight.block or not self._flight.sent:
                return self._take(now, waits=True)
            return None
        full = len(self._flight) >= self._window() or self._longest() <= 0
        if not self._flight.block or not (full or self._is_due(now)):
            return None
        return self._take(now, waits=self._plan.waits)

    def _is_due(self, now: float) -> bool:
        """Whether the base station should check the block, rather than wait for more of it."""
        plan = self._plan
        if plan.waits or len(self._flight.block) >= BLOCK:
            long = len(self._flight.block) >= plan.first
            return long or (plan.waits and self._whole() <= plan.sure)
        # The next token would come too late for the next verification. While it is all but certain
        # that nothing is rejected, that would be for nothing.
        next_s = now + self._estimates.draft.typical
        free = self._free_s is None or next_s > self._free_s
        return free and self._whole() <= plan.sure and self._is_worth_it()

    def _is_worth_it(self) -> bool:
        """Whether a message of its own gains more for the block than it costs.

        If all that is in flight is accepted and something of the block is not, the correction comes
        a verification sooner than if the block waited for more. A message that stalls holds up
        those behind it, the next epoch's too if this one is over.
        """
        reached = math.prod(block.whole for block in self._flight.sent)
        gain_s = reached * (1.0 - self._whole()) * self._estimates.verify_s
        return not self._flight.sent or gain_s >= self._estimates.stall_s

    def _whole(self) -> float:
        """How likely all of the block is to be accepted, if all before it is."""
        acceptance = self._estimates.acceptance
        return math.prod(acceptance.probability(proposed.chance) for proposed in self._flight.block)

    def _holds(self, now: float) -> bool:
        """Whether to wait for a verdict that is due before another token could be drafted.

        A forward is not interrupted: one that is under way when a rejection comes only delays what
        follows.
        """
        pause_s, draft_s = self._pause_s, self._estimates.draft.typical
        if pause_s is not None and now < pause_s:
            return True
        self._pause_s = None
        if pause_s is not None or not self._flight.sent:
            return False
        block = self._flight.sent[0]
        lost_s, idle_s = now + draft_s - block.due_s, block.due_s - now
        if idle_s <= 0.0 or (1.0 - block.whole) * lost_s <= block.whole * idle_s:
            return False
        self._pause_s = block.due_s + LATE * draft_s
        return True

    def _take(self, now: float, *, waits: bool) -> Send:
        estimates = self._estimates
        # In this end's time: when it would have to be sent to arrive at that moment.
        begin_s = max(self._free_s or 0.0, now)
        self._free_s = begin_s + estimates.verify_s
        due_s = self._free_s + estimates.rtt.typical
        whole, self._owes = self._whole(), False
        block = self._flight.take(waits=waits, whole=whole, sent_s=now, due_s=due_s)
        return Send(len(block.proposed), waits)

    # What has happened.

    def drafted(self, now: float, proposed: Sequence[Proposed], waited_s: float = 0.0) -> bool:
        """Tokens have been drafted. False if they are void: their epoch has been closed."""
        forward, self._forward = self._forward, None
        assert forward is not None
        if forward.fed <= BACKLOG:  # else the prompt, or a backlog, was a part of it
            # While a forward went stale, the base station was at work for a part of it.
            beside = None if forward.stale else forward.beside
            seconds = now - forward.asked_s - waited_s
            self._estimates.draft.took(seconds / len(proposed), beside=beside)
        if not forward.stale:
            self.append(proposed)
        return not forward.stale

    def append(self, proposed: Sequence[Proposed]) -> None:
        """These follow what has been drafted."""
        self._flight.append(proposed)

    def verdict(self, now: float, verdict: Judged) -> bool:
        """A verdict on what was sent first. Whether it rejects a token."""
        first, chances = self._flight.sent[0], self._flight.chances
        rejected = verdict.own and verdict.accepted < len(chances)
        estimates, verify_s, queue_s = self._estimates, verdict.verify_s, verdict.queue_s
        self._counts.rounds += 1
        self._length = len(first.proposed)
        self._opened = self._counts.rounds == 1 and not self._length
        if not self._opened:
            estimates.verify.took(verify_s, beside=not first.waits)
            if first.waits:
                estimates.rows.add(self._length, verify_s)
        estimates.queue.add(queue_s)
        self._refuted.judged(self.judged, chances, verdict.accepted, rejected=rejected)
        # Behind the prompt, or another verification, a block waits longer than the verdict says.
        # An epoch's first one is behind neither, however many have been sent by then: left out
        # where others follow it, the round trips that stall would never be seen.
        if not self.judged and self._counts.rounds > 1:
            estimates.rtt.add(now - first.sent_s - verify_s - queue_s)
        self._pause_s = None
        if verdict.closes:
            self._flight.clear()
            if self._forward is not None:
                self._forward.stale = True
        else:
            self._flight.accept(verdict.accepted)
        self.judged += verdict.accepted
        return rejected

    def proceed(self, now: float, *, closes: bool, owes: bool) -> None:
        """The history holds all that a verdict makes of it: how to go on.

        ``closes``: a token that was not drafted ends the epoch. ``owes``: the device drew it.
        """
        controller = self._controller
        if closes and not self._opened:
            controller.drafted(self.mode, self.judged + 1, now - self._began_s, self._length)
        if self._auto and not self._leaves:
            chosen = controller.choose(self._counts.left)
            if chosen == "stream":
                self._wants_stream = True
            elif closes:
                self.mode = chosen
        if closes:
            self._owes = owes
            self._begin_epoch(now)
