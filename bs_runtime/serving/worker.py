"""Does what one device asks for, one thing after the other: greets, feeds, verifies, writes.

Drafts that come while a round is under way wait together, and are verified in one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import Any

import msgspec

from bs_runtime.engine.generation import Generation, Round
from bs_runtime.engine.lookup import Proposers
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.target import Target
from bs_runtime.serving import greeting
from bs_runtime.serving.account import Account
from bs_runtime.serving.both import Both
from bs_runtime.serving.conversations import Conversation, Conversations, Owner
from bs_runtime.serving.life import Life, Lifetime
from bs_runtime.serving.outgoing import Outgoing
from bs_runtime.verify.job import Outcome
from draftlink.protocol import frames
from draftlink.protocol.control import digest
from draftlink.protocol.frames import PROGRESS_S, Draft, Hello, Replay, Resume, Resumed, Start
from draftlink.protocol.history import common
from draftlink.protocol.session import RemoteProtocolError, Session
from draftlink.protocol.states import State

Asked = Hello | Start | Resume | Replay


class Worker:
    """The conversation's side of a connection, which is its ``owner``.

    ``drafts`` wait for a round. ``proposers``: see ``Connection``.
    """

    def __init__(
        self, target: Target, scheduler: Scheduler, conversations: Conversations, session: Session,
        account: Account, lifetime: Lifetime, out: Outgoing, owner: Owner, proposers: Proposers,
    ) -> None:  # fmt: skip
        self._target = target
        self._scheduler, self._turns = scheduler, scheduler.turns
        self._conversations = conversations
        self._session = session
        self._account = account
        self._lifetime = lifetime
        self._out = out
        self._owner = owner
        self._proposers = proposers
        self.conversation: Conversation | None = None
        self.drafts: list[Draft] = []
        self._asked: deque[Asked] = deque()  # that the session has taken, and this not yet
        self._both: Both | None = None  # while both ends write
        self._proposer = proposers(scheduler.prices)  # this generation's
        self._prompt = False  # one is to be fed
        self._wake = asyncio.Event()

    def take(self, frame: frames.Frame) -> None:
        """A frame that the session has accepted."""
        if isinstance(frame, Asked):
            self._asked.append(frame)
        elif isinstance(frame, Draft):
            self.drafts.append(frame)
        elif isinstance(frame, frames.Propose) and self._both is not None:
            self._both.take(frame)
        self.wake()

    def wake(self) -> None:
        """There may be something to do, or the connection is not open any more."""
        self._wake.set()

    async def work(self) -> None:
        """Do what there is to do, until the connection is not open any more."""
        while self._session.state is not State.CLOSED:
            self._wake.clear()
            # What the session has taken is carried out all the same: the two are parked together.
            while self._asked and self._lifetime.life is not Life.REFUSED:
                await self._carry_out(self._asked.popleft())
            if not self._lifetime.open:
                return
            if not self._asked and (wait_s := await self._step()):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                        await self._wake.wait()

    async def _carry_out(self, frame: Asked) -> None:
        if isinstance(frame, Hello):
            await self._greet(frame)
        elif isinstance(frame, Start):
            # Over a new connection the device brings its whole history; a part may be cached here.
            self._generate(frame, self._here().history[: frame.base] + frame.ids)
        elif isinstance(frame, Resume):
            await self._resume(frame)
        else:
            start = self._session.progress.start
            assert start is not None
            self._generate(start, frame.ids)

    async def _step(self) -> float:
        """Do one thing. Seconds to wait for something to do before looking again; 0 for none."""
        session = self._session
        if session.state is State.FINISHING:
            await self._finish()
        elif self._prompt:
            await self._feed()
        elif self.drafts:
            await self._judge()
        elif session.state is State.SWITCHING:
            await self._out.send(
                frames.Switched(session.generation, session.epoch + 1, session.length)
            )
        elif session.state is State.STREAMING:
            await self._write()
        elif session.state is State.WRITING and self._both is not None:
            return await self._both.step()
        else:
            return math.inf
        return 0.0

    async def _greet(self, hello: Hello) -> None:
        answer = greeting.answer(hello, self._target)
        if isinstance(answer, frames.Refused):
            await self._out.refuse(answer.code, answer.reason)
            return
        here = await self._conversations.enter(
            hello.ticket, self._owner, self._account.tenant.name, asyncio.get_running_loop().time()
        )
        self.conversation = here
        ticket, prices = self._conversations.sealed(here), self._scheduler.prices
        await self._out.send(msgspec.structs.replace(answer, ticket=ticket, **prices.told()))

    def _generate(self, start: Start, history: list[int]) -> None:
        """Begin, or begin again, behind a history; what of it is cached is not fed again."""
        here, target = self._here(), self._target
        same = common(here.history, history)
        here.slot.rollback(min(here.slot.length, same))
        here.history[:] = history
        here.generation = Generation(
            here.slot,
            start,
            here.history,
            target.vocab_size,
            target.context,
            here.ticket.key,
            here.ticket.tenant,
            here.generation,
            same,
        )
        self._prompt, self._proposer = True, self._proposers(self._scheduler.prices)
        here.told.clear()
        self._both = self._writes_too() if start.mode == "both" else None

    def _writes_too(self) -> Both:
        session, out, told = self._session, self._out, self._here().told
        generation, proposer = self._current(), self._proposer
        return Both(generation, session, out, self._scheduler, self._run, told, proposer)

    async def _resume(self, asked: Resume) -> None:
        here = self._here()
        parked, generation = here.session, asked.start.generation
        same = digest(here.history[: asked.length]) == asked.digest
        if parked is None or not same or not self._session.adopt(parked):
            await self._out.send(Resumed(generation, 0, replay=True))
            return
        # Drafts that come from now on stand behind these.
        self.drafts, here.drafts = here.drafts, []
        self._prompt = here.slot.length < len(here.history) - 1
        await self._out.send(
            Resumed(generation, self._session.progress.frames.received, replay=False)
        )
        for data in self._session.resend(asked.seen):
            await self._out.deliver(data)
        if asked.start.mode == "both":
            self._both = self._writes_too()
            await self._both.tell(asked.length)

    def _here(self) -> Conversation:
        assert self.conversation is not None
        return self.conversation

    def _current(self) -> Generation:
        generation = self._here().generation
        assert generation is not None
        return generation

    async def _feed(self) -> None:
        """A prompt. It is left between two steps when nobody waits for it any more."""
        self._prompt = False
        await self._run(self._current().prompt())

    async def _judge(self) -> None:
        """One round over all drafts that wait, and one verdict."""
        drafts = list(self.drafts)
        generation, last = self._current(), drafts[-1]
        base = len(generation.history) + (drafts[0].first is not None)
        tokens = sum(draft.length for draft in drafts)
        self._account.owes = True
        try:
            drafted = await self._turns.run(
                generation.decoding(drafts),
                self._judges,
                generation.slot,
                tokens,
                lambda: self._out.tell(0, tokens),
            )
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        finally:
            self._account.owes = False
        if drafted is None:
            return
        del self.drafts[: len(drafts)]
        if (scheme := self._session.progress.scheme) is not None:
            self._account.give_back(scheme.unspent(self._target.vocab_size, drafted))
        round = generation.draft(drafted, drafts[0].first, waits=last.waits, had=last.had)
        outcome = await self._run(round)
        if self._session.state in (State.FINISHING, State.CLOSED):
            return
        assert outcome is not None
        verdict = frames.Verdict(
            epoch=last.epoch,
            base=base,
            accepted=outcome.accepted,
            next=outcome.next,
            ended=outcome.ended,
            queue_us=outcome.queue_us,
            verify_us=outcome.verify_us,
            row=outcome.row,
            surprisals=outcome.eighths,
            logprobs=b"".join(outcome.told),
        )
        if verdict.closes:  # what came meanwhile was drafted behind a token that does not stand
            self.drafts.clear()
        await self._out.send(verdict)

    def _judges(self) -> bool:
        """Whether drafts are to be judged here; those of a link that was lost are parked."""
        return self._lifetime.open and self._session.state is not State.FINISHING

    async def _write(self) -> None:
        """A token of a stream, and before it those looked up that are right."""
        generation, epoch = self._current(), self._session.epoch
        base = len(generation.history)
        # Behind the prompt there is a token that needs no step: it is not kept waiting for one.
        free = generation.kept_row() is not None
        round = generation.next(() if free else self._proposer.proposed(generation.history))
        outcome = await self._run(round)
        if self._session.state in (State.FINISHING, State.CLOSED):
            return
        assert outcome is not None
        self._out.looked_up(len(round.drafted), outcome.accepted)
        ids = tuple(generation.history[base:])
        told = b"".join(outcome.told)
        likely = outcome.eighths
        await self._out.send(frames.Tokens(epoch, base, ids, outcome.ended, told, likely))

    async def _run(self, round: Round) -> Outcome | None:
        """Run a round to its end, and tell the device how far it is if that takes long.

        None for a prompt whose device has gone: its next connection need not wait for it.
        """
        running = self._scheduler.run(round)
        left = asyncio.ensure_future(self._lifetime.left()) if round.purpose is None else None
        waited: list[asyncio.Future[Any]] = [running] if left is None else [running, left]
        total = round.left
        self._account.owes = True
        try:
            while not running.done():
                await asyncio.wait(waited, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED)
                if left is not None and left.done() and not running.done():
                    running.cancel()
                    await self._scheduler.unused(round.slot)
                    return None
                if not running.done():
                    fed, ahead = max(0, total - round.left), self._scheduler.ahead(round)
                    await self._out.tell(fed, total, ahead)
            return running.result()
        finally:
            if left is not None:
                left.cancel()
            self._account.owes = False

    async def _finish(self) -> None:
        session, here = self._session, self._here()
        if self.drafts and (first := self.drafts[0].first) is not None:
            here.history.append(first)  # it is the text's, whatever becomes of the draft
        self.drafts.clear()
        self._prompt, self._both = False, None
        if here.generation is not None:
            here.generation.rollback(session.kept)
            here.generation.ended = True
        await self._out.send(frames.Done(session.generation, session.kept, session.epoch + 1))
