"""One device's connection: the protocol outside, rounds for the scheduler inside.

A reader takes frames off the link as they come; a worker does what they ask for, one thing after
the other. So drafts that come while a round is under way wait together, and are judged in one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bs_runtime.account import Account
from bs_runtime.conversations import Conversation, Conversations
from bs_runtime.generation import Generation
from bs_runtime.limits import Closing, Refusal
from bs_runtime.scheduler import Scheduler
from bs_runtime.target import Target
from draftlink import frames, schemes
from draftlink.control import digest
from draftlink.frames import Draft, Hello, Replay, Resume, Resumed, Start
from draftlink.session import ProtocolError, RemoteProtocolError, Session
from draftlink.states import State

log = logging.getLogger("draftlink.bs")

SEND_S = 30.0  # a device that reads nothing for so long has gone


class Connection:
    """Serves one device until it goes away.

    ``receive`` returns the next binary message or None at the end; ``send`` sends one. What
    needs the model is run by ``scheduler``, which many connections share. ``account``: whose device
    it is, and what it may do.
    """

    def __init__(
        self,
        target: Target,
        scheduler: Scheduler,
        conversations: Conversations,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
        account: Account | None = None,
    ) -> None:
        self._target = target
        self._scheduler = scheduler
        self._conversations = conversations
        self._receive = receive
        self._send_bytes = send
        self._account = account or Account()
        self._session = Session("bs", target.vocab_size)
        self._conversation: Conversation | None = None
        self._drafts: list[Draft] = []  # that wait for a round
        self._prompt = False  # one is to be fed
        self._beginning = False  # the session has a generation, the rest of this end not yet
        self._wake = asyncio.Event()
        self._gone = False  # nobody hears what is sent; it is kept for a new connection
        self._refused = False  # nothing more is to be done for this device
        self._lost = asyncio.Event()
        self._over = asyncio.Event()
        self._sending: asyncio.Timeout | None = None
        self.fenced = False  # by a newer connection
        self.closing: Closing | None = None  # why this end closes, to be opened again

    async def serve(self) -> None:
        """Run the session. The peer's mistakes are answered with a reason."""
        tasks = [
            asyncio.create_task(task) for task in (self._read(), self._work(), self._lost.wait())
        ]
        reader, worker, _ = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            away = self._lost.is_set() or (reader.done() and self._hung_up(reader))
            self._gone, self._refused = away, not away
            reader.cancel()
            if self._gone and self._sending is not None:
                self._sending.reschedule(0.0)  # nobody will read it
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

    def _hung_up(self, reader: asyncio.Task[Any]) -> bool:
        """Whether the reader ended because the device has gone."""
        if (error := reader.exception()) is not None:
            return isinstance(error, ConnectionError)
        return self._session.state is not State.CLOSED

    async def fence(self) -> None:
        """A newer connection of the same device takes the conversation."""
        self.fenced = True
        self._lost.set()
        await self._over.wait()

    def _leave(self) -> None:
        if self._conversation is None:
            return
        if self._session.state is State.CLOSED:  # refused: there is nothing to come back to
            self._conversations.drop(self._conversation)
        else:
            loop, conversations = asyncio.get_running_loop(), self._conversations
            if self._beginning:  # of no use to come back to: the device tells its history again
                self._conversation.session = None
            elif self._session.generation:  # else what was kept before still holds
                self._conversation.session = self._session
            conversations.park(self._conversation, loop.time())
            loop.call_later(conversations.grace_s, lambda: conversations.expire(loop.time() + 1e-3))

    # The reader.

    async def _read(self) -> None:
        while self._session.state is not State.CLOSED:
            data = await self._receive()
            if data is None:
                return
            frame = self._session.receive(data)
            if frame is not None:
                # The worker looks at the session's state: not before all of this end is there, for
                # the limits may make a frame wait, or refuse it.
                self._beginning = isinstance(frame, Start | Resume | Replay)
                await self._account.received(frame, len(data))
                await self._take(frame)
                self._beginning = False
                self._wake.set()

    async def _take(self, frame: frames.Frame) -> None:
        if isinstance(frame, Hello):
            await self._greet(frame)
        elif isinstance(frame, Start):
            await self._begin(frame)
        elif isinstance(frame, Resume):
            await self._resume(frame)
        elif isinstance(frame, Replay):
            self._replay(frame)
        elif isinstance(frame, Draft):
            self._drafts.append(frame)

    async def _greet(self, hello: Hello) -> None:
        target, facts = self._target, self._target.facts
        version = min(hello.version, frames.VERSION)
        if version < max(hello.lowest or hello.version, frames.LOWEST):
            await self._refuse(
                "version",
                f"the device speaks versions {hello.lowest or hello.version} to {hello.version},"
                f" this is {frames.LOWEST} to {frames.VERSION}; update the older of the two",
            )
        elif hello.tokenizer_hash != target.tokenizer_hash:
            await self._refuse(
                "tokenizer",
                f"the draft's tokenizer ({hello.tokenizer_hash[:12]}, {hello.vocab_size} logits) is"
                f" not that of {target.name} ({target.tokenizer_hash[:12]},"
                f" {target.vocab_size} logits); use a draft with the target's tokenizer",
            )
        else:
            conversations = self._conversations
            here = await conversations.enter(
                hello.ticket, self, self._account.tenant.name, asyncio.get_running_loop().time()
            )
            self._conversation = here
            await self._send(
                frames.Welcome(
                    version=version,
                    tokenizer_hash=target.tokenizer_hash,
                    vocab_size=target.vocab_size,
                    context=target.context,
                    schemes=[name for name in schemes.BY_NAME if name in hello.schemes],
                    model=target.name,
                    dtype=target.dtype,
                    ticket=conversations.sealed(here),
                    features=[name for name in frames.FEATURES if name in hello.features],
                    eos_ids=list(facts.eos_ids),
                    bos_ids=list(facts.bos_ids),
                    suppressed_ids=list(facts.suppressed_ids),
                    sampling=facts.sampling,
                )
            )

    async def _begin(self, start: Start) -> None:
        fault = self._unfit(start, start.begins)
        if fault:
            await self._refuse("request", fault)
            return
        # Over a new connection the device brings its whole history; a part may be cached here.
        self._generate(start, self._here().history[: start.base] + start.ids)

    def _generate(self, start: Start, history: list[int]) -> None:
        """Begin, or begin again, behind a history; what of it is cached is not fed again."""
        here, target = self._here(), self._target
        both = zip(here.history, history, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both))
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
        )
        self._prompt = True

    def _unfit(self, start: Start, length: int) -> str | None:
        """Why a generation with ``length`` tokens of history cannot be, or None."""
        if length >= self._target.context:
            return (
                f"a prompt of {length} tokens leaves no room in the target's context of"
                f" {self._target.context}; shorten it"
            )
        try:
            start.sampling.check()
            start.scheme.check(self._target.vocab_size)
        except ValueError as error:
            return str(error)
        if start.scheme.shares_seed and start.seed is None:
            return f"{start.scheme.name} needs a seed, which both ends draw from"
        return None

    async def _resume(self, asked: Resume) -> None:
        fault = self._unfit(asked.start, asked.length)
        if fault:
            await self._refuse("request", fault)
            return
        here = self._here()
        parked, generation = here.session, asked.start.generation
        same = digest(here.history[: asked.length]) == asked.digest
        if parked is None or not same or not self._session.adopt(parked):
            await self._send(Resumed(generation, 0, replay=True))
            return
        await self._send(Resumed(generation, self._session.progress.frames.received, replay=False))
        for data in self._session.resend(asked.seen):
            await self._deliver(data)

    def _replay(self, replay: Replay) -> None:
        start = self._session.progress.start
        assert start is not None
        self._generate(start, replay.ids)

    def _here(self) -> Conversation:
        assert self._conversation is not None
        return self._conversation

    def _current(self) -> Generation:
        generation = self._here().generation
        assert generation is not None
        return generation

    # The worker.

    async def _work(self) -> None:
        """Do what there is to do, until the device has gone and its drafts have been judged."""
        while True:
            self._wake.clear()
            while not self._refused and await self._step():
                pass
            if self._gone or self._refused:
                return
            await self._wake.wait()

    async def _step(self) -> bool:
        """Do one thing; False if there is nothing to do."""
        state = self._session.state
        if self._beginning:
            return False
        if state is State.FINISHING:
            await self._finish()
        elif self._prompt and not self._gone:
            self._prompt = False
            await self._scheduler.run(self._current().prompt())
        elif self._drafts:
            await self._judge()
        elif state is State.SWITCHING:
            session = self._session
            await self._send(frames.Switched(session.generation, session.epoch + 1, session.length))
        elif state is State.STREAMING and not self._gone:
            await self._write()
        else:
            return False
        return True

    async def _judge(self) -> None:
        """One round over all drafts that wait, and one verdict."""
        drafts, self._drafts = self._drafts, []
        generation, last = self._current(), drafts[-1]
        base = len(generation.history) + (drafts[0].first is not None)
        try:
            drafted = generation.decode(drafts)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        round = generation.draft(drafted, drafts[0].first, waits=last.waits)
        served = await self._scheduler.run(round)
        if self._session.state in (State.FINISHING, State.CLOSED):
            return
        judgement = served.judgement
        verdict = frames.Verdict(
            epoch=last.epoch,
            base=base,
            accepted=judgement.accepted,
            next=judgement.next,
            ended=judgement.ended,
            queue_us=served.queue_us,
            verify_us=served.verify_us,
            row=judgement.row,
            surprisals=judgement.surprisals,
        )
        if verdict.closes:  # what came meanwhile was drafted behind a token that does not stand
            self._drafts.clear()
        await self._send(verdict)

    async def _write(self) -> None:
        """One token of a stream."""
        generation, epoch = self._current(), self._session.epoch
        base = len(generation.history)
        token = (await self._scheduler.run(generation.next())).judgement.next
        assert token is not None
        if self._session.state not in (State.FINISHING, State.CLOSED):
            await self._send(frames.Tokens(epoch, base, (token,), generation.ended))

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
        if self._gone:
            return
        try:
            async with asyncio.timeout(SEND_S) as self._sending:
                await self._send_bytes(data)
        except (ConnectionError, TimeoutError):
            self._gone = True
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
