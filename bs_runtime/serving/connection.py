"""One device's connection: the protocol outside, rounds for the scheduler inside.

A reader takes frames off the link as they come; a worker does what they ask for, one thing after
the other.

Between the session's taking a frame and the worker's having it nothing is waited for: a verdict,
the link's end or a Finish that come in any wait find both of one mind. What a frame costs is
therefore paid before the session sees it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bs_runtime.engine.lookup import LookUp, Proposers
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.target import Target
from bs_runtime.operations.limits import Closing, Refusal
from bs_runtime.serving import greeting
from bs_runtime.serving.account import Account
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.life import Life, Lifetime
from bs_runtime.serving.outgoing import Outgoing
from bs_runtime.serving.worker import Worker
from draftlink.protocol import frames
from draftlink.protocol.frames import Draft, Replay, Resume, Start
from draftlink.protocol.session import ProtocolError, Session, decode
from draftlink.protocol.states import State
from draftlink.schemes.base import MAX_DRAFT

log = logging.getLogger("draftlink.bs")

NORMAL = 1000  # WebSocket's close code


class Connection:
    """Serves one device until it goes away.

    ``receive`` returns the next binary message or None at the end; ``send`` sends one. What
    needs the model is run by ``scheduler``, which many connections share. ``account``: whose device
    it is, and what it may do. ``proposers``: who says, beside the device, what may come next; that
    changes how many tokens a round writes, and never which.
    """

    def __init__(
        self,
        target: Target,
        scheduler: Scheduler,
        conversations: Conversations,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
        account: Account | None = None,
        proposers: Proposers = LookUp,
    ) -> None:
        self._target = target
        self._conversations = conversations
        self._receive = receive
        self._account = account or Account()
        self._session = Session("bs", target.vocab_size)
        self._lifetime = Lifetime()
        self._out = Outgoing(self._session, self._account, self._lifetime, send)
        self._worker = Worker(
            target, scheduler, conversations, self._session, self._account, self._lifetime,
            self._out, self, proposers,
        )  # fmt: skip
        self.closing = Closing(NORMAL, "")  # how this end closes

    async def serve(self) -> None:
        """Run the session. The peer's mistakes are answered with a reason."""
        lifetime = self._lifetime
        reader = asyncio.create_task(self._read())
        worker = asyncio.create_task(self._worker.work())
        left = asyncio.create_task(lifetime.left())
        tasks: tuple[asyncio.Task[Any], ...] = (reader, worker, left)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            lifetime.leave(self._ended(reader))
            reader.cancel()
            if lifetime.life is Life.GONE:
                self._out.give_up()
            self._worker.wake()
            await asyncio.wait([reader, worker])
            for task in (reader, worker):
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        except ProtocolError as error:
            await self._out.refuse("protocol", str(error))
        except Refusal as refusal:
            await self._out.refuse(refusal.code, refusal.reason, refusal.retry_after_s)
        except Closing as closing:
            self.closing = closing
        except ConnectionError:
            log.info("the device has gone")
        except Exception as error:
            log.error("a generation failed", exc_info=error)
            await self._out.refuse("internal", f"{type(error).__name__} at the base station")
        finally:
            for task in tasks:
                task.cancel()
            self._leave()
            lifetime.end()

    def _ended(self, reader: asyncio.Task[None]) -> Life:
        """What one of the tasks has ended for; of no account where the device has gone."""
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
        self.closing = Closing(frames.FENCED, "")
        self._lifetime.leave(Life.GONE)
        await self._lifetime.over()

    def _leave(self) -> None:
        here = self._worker.conversation
        if here is None:
            return
        if self._session.state is State.CLOSED:  # refused: there is nothing to come back to
            self._conversations.drop(here)
            return
        if self._session.generation:  # else what was kept before still holds
            here.session, here.drafts = self._session, self._worker.drafts
        loop, conversations = asyncio.get_running_loop(), self._conversations
        conversations.park(here, loop.time())
        loop.call_later(conversations.grace_s, lambda: conversations.expire(loop.time() + 1e-3))

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
            self._worker.take(frame)

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
