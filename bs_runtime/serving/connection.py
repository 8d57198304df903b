"""One device's connection: the protocol outside, rounds for the scheduler inside.

A reader takes frames off the link as they come; a worker does what they ask for, one thing after
the other. So drafts that come while a round is under way wait together, and are judged in one.

Between the session's taking a frame and the worker's having it nothing is waited for: a verdict,
the link's end or a Finish that come in any wait find both of one mind. What a frame costs is
therefore paid before the session sees it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Any

import msgspec

from bs_runtime.engine.generation import Generation, Round
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.target import Target
from bs_runtime.operations.limits import Closing, Refusal
from bs_runtime.serving import greeting
from bs_runtime.serving.account import Account
from bs_runtime.serving.conversations import Conversation, Conversations
from bs_runtime.verify.job import Outcome
from draftlink.protocol import frames
from draftlink.protocol.control import digest
from draftlink.protocol.frames import PROGRESS_S, Draft, Hello, Replay, Resume, Resumed, Start
from draftlink.protocol.history import common
from draftlink.protocol.session import ProtocolError, RemoteProtocolError, Session, decode
from draftlink.protocol.states import TABLE, State
from draftlink.schemes.base import MAX_DRAFT

log = logging.getLogger("draftlink.bs")

SEND_S = 30.0  # a device that reads nothing for so long has gone
Asked = Hello | Start | Resume | Replay


def nothing(_: Sequence[int]) -> Sequence[int]:
    """No proposals: each round of a stream writes one token."""
    return ()


class Life(Enum):
    """Whether a connection is served, and else what becomes of what its device has asked for."""

    OPEN = auto()
    CLOSING = auto()  # this end closes it: what is under way is still told, the rest is kept
    GONE = auto()  # nobody hears what is sent: all of it is kept for a new connection
    REFUSED = auto()  # nothing more is to be done for this device


class Connection:
    """Serves one device until it goes away.

    ``receive`` returns the next binary message or None at the end; ``send`` sends one. What
    needs the model is run by ``scheduler``, which many connections share. ``account``: whose device
    it is, and what it may do. ``propose``: given a stream's history, ids that may come next; they
    change how many tokens a round writes, and never which.
    """

    def __init__(
        self,
        target: Target,
        scheduler: Scheduler,
        conversations: Conversations,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
        account: Account | None = None,
        propose: Callable[[Sequence[int]], Sequence[int]] = nothing,
    ) -> None:
        self._target = target
        self._scheduler = scheduler
        self._conversations = conversations
        self._receive = receive
        self._send_bytes = send
        self._account = account or Account()
        self._propose = propose
        self._session = Session("bs", target.vocab_size)
        self._conversation: Conversation | None = None
        self._asked: deque[Asked] = deque()  # that the session has taken, and the worker not yet
        self._drafts: list[Draft] = []  # that wait for a round
        self._prompt = False  # one is to be fed
        self._wake = asyncio.Event()
        self._life = Life.OPEN
        self._left = asyncio.Event()  # it is not open any more
        self._lost = asyncio.Event()  # found by who sends, or by a newer connection
        self._over = asyncio.Event()
        self._sending: asyncio.Timeout | None = None
        self.fenced = False  # by a newer connection
        self.closing: Closing | None = None  # why this end closes, to be opened again

    async def serve(self) -> None:
        """Run the session. The peer's mistakes are answered with a reason."""
        reader, worker = asyncio.create_task(self._read()), asyncio.create_task(self._work())
        lost = asyncio.create_task(self._lost.wait())
        tasks: tuple[asyncio.Task[Any], ...] = (reader, worker, lost)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._life = self._ended(reader)
            reader.cancel()
            if self._life is Life.GONE and self._sending is not None:
                self._sending.reschedule(0.0)  # nobody will read it
            self._left.set()
            self._wake.set()
            await asyncio.wait([reader, worker])
            for task in (reader, worker):
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        except ProtocolError as error:
            await self._refuse("protocol", str(error))
        except Refusal as refusal:
            await self._refuse(refusal.code, refusal.reason, refusal.retry_after_s)
        except Closing as closing:
            self.closing = closing
        except ConnectionError:
            log.info("the device has gone")
        except Exception as error:
            await self._fail(error)
        finally:
            for task in tasks:
                task.cancel()
            self._leave()
            self._over.set()

    def _ended(self, reader: asyncio.Task[None]) -> Life:
        """What one of the tasks has ended for."""
        if self._lost.is_set():
            return Life.GONE
        if not reader.done():  # the worker has failed, or has refused
            return Life.REFUSED
        error = reader.exception()
        if isinstance(error, Closing):
            return Life.CLOSING
        if error is None:
            return Life.REFUSED if self._session.state is State.CLOSED else Life.GONE
        return Life.GONE if isinstance(error, ConnectionError) else Life.REFUSED

    async def fence(self) -> None:
        """A newer connection of the same device takes the conversation."""
        self.fenced = True
        self._lost.set()
        await self._over.wait()

    def _leave(self) -> None:
        here = self._conversation
        if here is None:
            return
        if self._session.state is State.CLOSED:  # refused: there is nothing to come back to
            self._conversations.drop(here)
            return
        if self._session.generation:  # else what was kept before still holds
            here.session, here.drafts = self._session, self._drafts
        loop, conversations = asyncio.get_running_loop(), self._conversations
        conversations.park(here, loop.time())
        loop.call_later(conversations.grace_s, lambda: conversations.expire(loop.time() + 1e-3))

    # The reader.

    async def _read(self) -> None:
        account, session = self._account, self._session
        while session.state is not State.CLOSED:
            data = await self._receive()
            if data is None:
                return
            frame = decode(data)
            self._check(frame)
            tokens = self._tokens(frame)
            await account.admit(frame, tokens)
            # From here to the next message nothing is waited for.
            if session.accept(frame) is None:
                account.give_back(tokens)
                continue
            account.received(frame, len(data))
            if isinstance(frame, Asked):
                self._asked.append(frame)
            elif isinstance(frame, Draft):
                self._drafts.append(frame)
            self._wake.set()

    def _check(self, frame: frames.Frame) -> None:
        """Raise Refusal for a generation that cannot be."""
        fault = None
        if isinstance(frame, Start):
            fault = greeting.unfit(frame, frame.begins, self._target)
        elif isinstance(frame, Resume):
            fault = greeting.unfit(frame.start, frame.length, self._target)
        if fault is not None:
            raise Refusal("request", fault)

    def _tokens(self, frame: frames.Frame) -> int:
        """What a frame costs, in tokens to be fed, by its head alone: it may not even be right."""
        if isinstance(frame, Start | Replay):
            return len(frame.ids)
        progress = self._session.progress
        if isinstance(frame, Draft) and progress.scheme and frame.epoch >= progress.epoch:
            work = progress.scheme.work(self._target.vocab_size, min(frame.length, MAX_DRAFT))
            return work + frame.waits
        return 0

    # The worker.

    async def _work(self) -> None:
        """Do what there is to do, until the connection is not open any more."""
        while self._session.state is not State.CLOSED:
            self._wake.clear()
            # What the session has taken is carried out all the same: the two are parked together.
            while self._asked and self._life is not Life.REFUSED:
                await self._carry_out(self._asked.popleft())
            if self._life is not Life.OPEN:
                return
            if not self._asked and not await self._step():
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

    async def _step(self) -> bool:
        """Do one thing; False if there is nothing to do."""
        session = self._session
        if session.state is State.FINISHING:
            await self._finish()
        elif self._prompt:
            await self._feed()
        elif self._drafts:
            await self._judge()
        elif session.state is State.SWITCHING:
            await self._send(frames.Switched(session.generation, session.epoch + 1, session.length))
        elif session.state is State.STREAMING:
            await self._write()
        else:
            return False
        return True

    async def _greet(self, hello: Hello) -> None:
        answer = greeting.answer(hello, self._target)
        if isinstance(answer, frames.Refused):
            await self._refuse(answer.code, answer.reason)
            return
        here = await self._conversations.enter(
            hello.ticket, self, self._account.tenant.name, asyncio.get_running_loop().time()
        )
        self._conversation = here
        await self._send(msgspec.structs.replace(answer, ticket=self._conversations.sealed(here)))

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
        self._prompt = True

    async def _resume(self, asked: Resume) -> None:
        here = self._here()
        parked, generation = here.session, asked.start.generation
        same = digest(here.history[: asked.length]) == asked.digest
        if parked is None or not same or not self._session.adopt(parked):
            await self._send(Resumed(generation, 0, replay=True))
            return
        # Drafts that come from now on stand behind these.
        self._drafts, here.drafts = here.drafts, []
        self._prompt = here.slot.length < len(here.history) - 1
        await self._send(Resumed(generation, self._session.progress.frames.received, replay=False))
        for data in self._session.resend(asked.seen):
            await self._deliver(data)

    def _here(self) -> Conversation:
        assert self._conversation is not None
        return self._conversation

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
        drafts = list(self._drafts)
        generation, last = self._current(), drafts[-1]
        base = len(generation.history) + (drafts[0].first is not None)
        tokens = sum(draft.length for draft in drafts)
        self._account.owes = True
        try:
            drafted = await self._scheduler.turns.run(
                generation.decoding(drafts), self._judges, id(self), lambda: self._tell(0, tokens)
            )
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        finally:
            self._account.owes = False
        if drafted is None:
            return
        del self._drafts[: len(drafts)]
        round = generation.draft(drafted, drafts[0].first, waits=last.waits)
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
        )
        if verdict.closes:  # what came meanwhile was drafted behind a token that does not stand
            self._drafts.clear()
        await self._send(verdict)

    def _judges(self) -> bool:
        """Whether drafts are to be judged here; those of a link that was lost are parked."""
        return self._life is Life.OPEN and self._session.state is not State.FINISHING

    async def _write(self) -> None:
        """A token of a stream, and before it those of ``propose`` that are right."""
        generation, epoch = self._current(), self._session.epoch
        base = len(generation.history)
        outcome = await self._run(generation.next(self._propose(generation.history)))
        if self._session.state in (State.FINISHING, State.CLOSED):
            return
        assert outcome is not None
        ids = tuple(generation.history[base:])
        await self._send(frames.Tokens(epoch, base, ids, outcome.ended))

    async def _run(self, round: Round) -> Outcome | None:
        """Run a round to its end, and tell the device how far it is if that takes long.

        None for a prompt whose device has gone: its next connection need not wait for it.
        """
        running = self._scheduler.run(round)
        left = asyncio.ensure_future(self._left.wait()) if round.purpose is None else None
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
                    await self._tell(fed, total, ahead)
            return running.result()
        finally:
            if left is not None:
                left.cancel()
            self._account.owes = False

    async def _tell(self, fed: int, total: int, ahead: int = 0) -> None:
        """What is due is still under way."""
        if (self._session.state, frames.Progress) in TABLE:
            await self._send(frames.Progress(self._session.generation, fed, total, ahead))

    async def _finish(self) -> None:
        session, here = self._session, self._here()
        if self._drafts and (first := self._drafts[0].first) is not None:
            here.history.append(first)  # it is the text's, whatever becomes of the draft
        self._drafts.clear()
        self._prompt = False
        if here.generation is not None:
            here.generation.rollback(session.kept)
            here.generation.ended = True
        await self._send(frames.Done(session.generation, session.kept, session.epoch + 1))

    async def _send(self, frame: frames.Frame) -> None:
        data = self._session.send(frame)
        await self._deliver(data)
        await self._account.sent(frame, len(data))

    async def _deliver(self, data: bytes) -> None:
        """Send, unless nobody reads it; a new connection gets what was not read."""
        if self._life is Life.GONE:
            return
        try:
            async with asyncio.timeout(SEND_S) as self._sending:
                await self._send_bytes(data)
        except (ConnectionError, TimeoutError):
            self._life = Life.GONE
            self._lost.set()
        finally:
            self._sending = None

    async def _fail(self, error: Exception) -> None:
        log.error("a generation failed", exc_info=error)
        await self._refuse("internal", f"{type(error).__name__} at the base station")

    async def _refuse(self, code: Any, reason: str, retry_after_s: int | None = None) -> None:
        log.warning("refused (%s): %s", code, reason)
        if self._session.state is not State.CLOSED:
            await self._send(frames.Refused(code, reason, retry_after_s))
