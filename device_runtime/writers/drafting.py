"""Drafting: carries out what the window asks for while the device drafts, and applies verdicts."""

from __future__ import annotations

from device_runtime.drafting.actions import (
    Action,
    Draft,
    GiveBack,
    Guess,
    Reuse,
    Send,
    Show,
    Switch,
    Wait,
)
from device_runtime.drafting.blocks import Judged
from device_runtime.drafting.drafter import Missed, Proposal
from device_runtime.result import Came, Kind
from device_runtime.transport.client import LinkError
from device_runtime.writers.told import by_row, came
from device_runtime.writers.writing import Writing
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames


class Drafting:
    """Drafts, sends and rolls back as the window says, until the base station writes alone."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._proposals: list[Proposal] = []  # drafted and not judged, and of them
        self._in_flight = 0  # those that have been sent
        self._rejected: Drafted | None = None  # whose correction is still to be drawn, by more
        self._had = 0  # pairs than these
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        """Nothing is in flight; what was shown is not drafted again, and may be in the cache."""
        writing = self._writing
        if writing.alone is not None and not writing.drafter.foretells and writing.job is None:
            writing.drafter.rollback(len(writing.history))

    async def more(self) -> list[Came]:
        """What the next verdict adds to the text; nothing if the base station writes from here on.

        While nothing is heard of it, provisional tokens.
        """
        writing = self._writing
        if self._rejected is not None:
            return await self._answered()
        while True:
            for action in writing.due():
                if isinstance(action, GiveBack):
                    writing.drafter.rollback(len(writing.history))
                    return []
                if isinstance(action, Show | Guess):
                    return await writing.show(action, self._proposals)
                if isinstance(action, Wait):
                    batch = await self._wait(action)
                    if batch is not None:
                        return batch
                else:
                    await self._carry_out(action)

    async def _wait(self, action: Wait) -> list[Came] | None:
        """Until something has come, or a time; what a verdict adds to the text, if one has."""
        writing = self._writing
        await writing.event(action.until_s)
        if writing.job is not None and writing.job.done():
            await self._collect()
        # Behind the last verdict a stream has begun, whose frames another reads.
        if not writing.incoming().done() or writing.window.gone:
            return None
        frame = await writing.receive()
        if not isinstance(frame, frames.Verdict):
            raise LinkError(f"the base station sent {type(frame).__name__}, not Verdict")
        return await self._apply(frame)

    async def _carry_out(self, action: Action) -> None:
        writing = self._writing
        if isinstance(action, Draft):
            past = writing.history + self._tokens
            proposing = writing.drafter.proposing
            writing.begin(proposing, past, action.tokens, action.begins, action.fresh)
        elif isinstance(action, Send):
            await self._send(action)
        elif isinstance(action, Reuse):
            assert writing.alone is not None
            known = writing.alone.known(action.first, action.tokens)
            self._proposals += known
            writing.window.reused(writing.seen(known))
        elif isinstance(action, Switch):
            await writing.send(frames.Switch(writing.start.generation, action.mode))

    @property
    def _tokens(self) -> list[int]:
        return [proposal.drafted.token for proposal in self._proposals]

    async def _send(self, block: Send) -> None:
        """Send the next block, and before its tokens the one that is owed, if one is."""
        writing, session = self._writing, self._writing.session
        begin, end = self._in_flight, self._in_flight + block.tokens
        drafted = [proposal.drafted for proposal in self._proposals[begin:end]]
        past = writing.history + self._tokens[:begin]
        payload, bits = writing.drafter.encode(past, drafted)
        owed, writing.owed = writing.owed, None
        self._in_flight = end
        expected = session.progress.expected
        frame = frames.Draft(session.epoch, expected, block.tokens, payload, owed, block.waits)
        await writing.send(frame, bits)

    async def _collect(self) -> None:
        """Tokens have been drafted; they are void where a verdict has closed their epoch."""
        writing = self._writing
        proposals = await writing.proposals()
        seen = writing.seen(proposals)
        if writing.window.drafted(writing.now(), seen, writing.waited_s):
            self._proposals += proposals

    async def _apply(self, verdict: frames.Verdict) -> list[Came]:
        """Apply a verdict to history and cache; the tokens that it adds to the text."""
        writing, window, accepted = self._writing, self._writing.window, verdict.accepted
        judged = window.judged
        verify_s, queue_s = verdict.verify_us * 1e-6, verdict.queue_us * 1e-6
        own = verdict.next is not None or bool(verdict.row)  # the target's own token comes behind
        said = Judged(accepted, own, verdict.closes, verdict.ended, verify_s, queue_s)
        rejected = window.verdict(writing.now(), said)
        writing.tally.verify_s += verify_s
        writing.tally.verdict(judged, accepted, rejected=rejected)
        writing.tally.counts_rows = False
        tokens, behind = self._tokens[:accepted], self._proposals[accepted : accepted + 1]
        writing.commit(tokens)
        kinds: list[Kind] = ["draft"] * accepted
        if verdict.closes:
            self._proposals, self._in_flight = [], 0
            writing.drop()
            if verdict.next is not None:
                writing.commit([verdict.next])
                tokens.append(verdict.next)
                kinds.append("correction" if rejected else "bonus")
        else:
            del self._proposals[:accepted]
            self._in_flight -= accepted
        if writing.learned is not None and verdict.surprisals and not judged:
            writing.learned.observe(tokens[0], verdict.surprisals[0])
        stands = came(writing, tokens, kinds, verdict.logprobs)
        if verdict.row:
            self._rejected, self._had = behind[0].drafted, 0
            return stands + await self._correct(verdict.row)
        if not verdict.ended:
            self._proceed(closes=verdict.closes)
        return stands

    def _proceed(self, *, closes: bool) -> None:
        """All that a verdict brought is in the text, which goes on."""
        writing = self._writing
        writing.window.proceed(writing.now(), closes=closes, owes=writing.owed is not None)
        if closes:
            self._begin_epoch()

    async def _correct(self, row: bytes) -> list[Came]:
        """The token in the place of the rejected one, by the device (``split``).

        Nothing where what came for it does not do: more is asked for.
        """
        writing, session = self._writing, self._writing.session
        if writing.job is not None:
            await self._collect()
        try:
            found: int | Missed = await writing.call(
                writing.drafter.correct, writing.history, self._rejected, row, self._had
            )
            if isinstance(found, int) and found >= session.vocab_size:
                raise ValueError(f"its row has the token {found}, which the draft lacks")
        except ValueError as error:
            raise LinkError(f"the base station broke the protocol: {error}") from None
        if isinstance(found, Missed):
            self._had = found.had
            expected = session.progress.expected
            await writing.send(
                frames.Draft(session.epoch, expected, 0, b"", had=found.had), payload_bits=0
            )
            return []
        self._rejected, writing.owed = None, found
        writing.commit([found])
        self._proceed(closes=True)
        return [Came(found, "correction", by_row(writing, row, found))]

    async def _answered(self) -> list[Came]:
        """What has come of asking for more to correct by.

        Nothing can be drafted behind a token that is not there, nor shown: while this is waited for
        there are no provisional tokens either.
        """
        writing, begun = self._writing, self._writing.now()
        frame = await writing.receive()
        if not isinstance(frame, frames.Verdict):
            raise LinkError(f"the base station sent {type(frame).__name__}, not Verdict")
        writing.tally.wait_s += writing.now() - begun
        writing.tally.verify_s += frame.verify_us * 1e-6
        return await self._correct(frame.row)
