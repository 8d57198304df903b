"""One device's connection: the protocol outside, rounds for the scheduler inside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bs_runtime.generation import Generation
from bs_runtime.scheduler import Scheduler
from bs_runtime.target import Target
from draftlink import frames, schemes
from draftlink.session import ProtocolError, RemoteProtocolError, Session, State

log = logging.getLogger("draftlink.bs")


class Connection:
    """Serves one device until it goes away.

    ``receive`` returns the next binary message or None at the end; ``send`` sends one. What
    needs the model is run by ``scheduler``, which many connections share.
    """

    def __init__(
        self,
        target: Target,
        scheduler: Scheduler,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._target = target
        self._scheduler = scheduler
        self._receive = receive
        self._send_bytes = send
        self._session = Session("bs", target.vocab_size)
        self._slot = target.open()
        self._history: list[int] = []
        self._generation: Generation | None = None
        self._stream: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Run the session. The peer's mistakes are answered with a reason."""
        try:
            while (data := await self._receive()) is not None:
                frame = self._session.receive(data)
                assert frame is not None  # a base station's peer is never overtaken
                await self._handle(frame)
                if self._session.state is State.CLOSED:
                    return
        except ProtocolError as error:
            await self._refuse("protocol", str(error))
        except ConnectionError:
            log.info("the device has gone")
        except Exception as error:
            await self._fail(error)
        finally:
            await self._stop_stream()
            self._scheduler.close(self._slot)

    async def _handle(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.Hello):
            await self._greet(frame)
        elif isinstance(frame, frames.Start):
            await self._begin(frame)
        elif isinstance(frame, frames.Draft):
            await self._judge(frame)
        elif isinstance(frame, frames.Switch):
            self._stream = asyncio.create_task(self._write())
        elif isinstance(frame, frames.Finish):
            await self._finish(frame)

    async def _greet(self, hello: frames.Hello) -> None:
        target = self._target
        if hello.version != frames.VERSION:
            await self._refuse(
                "version", f"the device speaks version {hello.version}, this is {frames.VERSION}"
            )
        elif hello.tokenizer_hash != target.tokenizer_hash:
            await self._refuse(
                "tokenizer",
                f"the draft's tokenizer ({hello.tokenizer_hash[:12]}, {hello.vocab_size} logits) is"
                f" not that of {target.name} ({target.tokenizer_hash[:12]},"
                f" {target.vocab_size} logits); use a draft with the target's tokenizer",
            )
        else:
            await self._send(
                frames.Welcome(
                    version=frames.VERSION,
                    tokenizer_hash=target.tokenizer_hash,
                    vocab_size=target.vocab_size,
                    context=target.context,
                    schemes=[name for name in schemes.BY_NAME if name in hello.schemes],
                    model=target.name,
                    dtype=target.dtype,
                )
            )

    async def _begin(self, start: frames.Start) -> None:
        length = start.base + len(start.ids)
        fault = None
        if length >= self._target.context:
            fault = (
                f"a prompt of {length} tokens leaves no room in the target's context of"
                f" {self._target.context}; shorten it"
            )
        try:
            start.sampling.check()
            start.scheme.check(self._target.vocab_size)
            if start.scheme.shares_seed and start.seed is None:
                raise ValueError(f"{start.scheme.name} needs a seed, which both ends draw from")
        except ValueError as error:
            fault = str(error)
        if fault:
            await self._refuse("request", fault)
            return
        del self._history[start.base :]
        self._slot.rollback(min(self._slot.length, start.base))
        self._history += start.ids
        generation = Generation(
            self._slot, start, self._history, self._target.vocab_size, self._target.context
        )
        self._generation = generation
        await self._scheduler.run(generation.prompt())
        if start.mode == "stream":
            self._stream = asyncio.create_task(self._write())

    async def _judge(self, draft: frames.Draft) -> None:
        generation = self._generation
        assert generation is not None
        try:
            drafted = generation.decode(draft)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        served = await self._scheduler.run(generation.draft(drafted, draft.first))
        judgement = served.judgement
        await self._send(
            frames.Verdict(
                epoch=draft.epoch,
                base=draft.base + (draft.first is not None),
                accepted=judgement.accepted,
                next=judgement.next,
                ended=judgement.ended,
                queue_us=served.queue_us,
                verify_us=served.verify_us,
                row=judgement.row,
                surprisals=judgement.surprisals,
            )
        )

    async def _write(self) -> None:
        """Stream until the generation ends, or the device ends it, or it fails."""
        try:
            await self._write_all()
        except ConnectionError:
            raise
        except Exception as error:
            await self._fail(error)  # nobody awaits this task while the device only listens

    async def _write_all(self) -> None:
        generation = self._generation
        assert generation is not None
        epoch = self._session.epoch
        while not generation.ended:
            base = len(generation.history)
            token = (await self._scheduler.run(generation.next())).judgement.next
            assert token is not None
            if self._session.state is not State.STREAMING:
                return
            await self._send(frames.Tokens(epoch, base, (token,), generation.ended))

    async def _finish(self, finish: frames.Finish) -> None:
        await self._stop_stream()
        if self._generation is not None:
            self._generation.rollback(finish.keep)
            self._generation.ended = True
        await self._send(frames.Done(finish.generation, finish.keep))

    async def _stop_stream(self) -> None:
        if self._stream is None:
            return
        task, self._stream = self._stream, None
        # Its forward must have ended before the slot is touched; the state tells it to stop.
        with contextlib.suppress(ConnectionError):
            await task

    async def _send(self, frame: frames.Frame) -> None:
        await self._send_bytes(self._session.send(frame))

    async def _fail(self, error: Exception) -> None:
        log.error("a generation failed", exc_info=error)
        await self._refuse("internal", f"{type(error).__name__} at the base station")

    async def _refuse(self, code: Any, reason: str) -> None:
        log.warning("refused (%s): %s", code, reason)
        if self._session.state is not State.CLOSED:
            with contextlib.suppress(ConnectionError):
                await self._send(frames.Refused(code, reason))
