"""A request's texts on their way out: as a stream of events, or all at once."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from device_runtime.result import Result
from device_runtime.serve.answer import Answer, Ended, Wanted
from device_runtime.serve.asked import Common
from device_runtime.serve.counts import Counts
from device_runtime.serve.errors import ApiError
from device_runtime.serve.likely import Placed, shaped
from device_runtime.serve.service import Service
from device_runtime.serve.shapes import Head, Kind, told


class Replies:
    """Answers requests with the texts that a service writes."""

    def __init__(self, service: Service, counts: Counts) -> None:
        self._service, self._counts = service, counts

    async def reply(self, kind: Kind, asked: Common, wanted: Sequence[Wanted]) -> Response:
        """The answer, once its first text can begin. Raises ApiError."""
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        head = Head(
            kind,
            f"{prefix}-{secrets.token_hex(12)}",
            self._service.name,
            int(time.time()),
            asked.choices,
        )
        answer = await Answer.begin(self._service.conversations, wanted)
        self._counts.running.inc()
        if asked.stream:
            return _Stream(self._events(answer, head, usage=asked.usage), self._left, answer)
        try:
            return await self._whole(answer, head, len(wanted))
        finally:
            self._end(answer)

    async def _whole(self, answer: Answer, head: Head, count: int) -> Response:
        texts = [""] * count
        results: list[Result] = []
        placed: list[list[Placed]] = [[] for _ in texts]
        async for event in answer.events():
            if isinstance(event, Ended):
                results.append(event.result)
                self._counts.ended(event.result)
                continue
            if event.token is not None:
                placed[event.index].append(Placed(event.token, len(texts[event.index])))
            texts[event.index] += event.text
        body = head.whole(texts, results, [self._likely(head, tokens) for tokens in placed])
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def _events(self, answer: Answer, head: Head, *, usage: bool) -> AsyncIterator[bytes]:
        """Server-sent events. What vLLM and we tell is in the last part that has an object."""
        results: list[Result] = []
        begun, offset = -1, 0
        try:
            async for event in answer.events():
                if event.index > begun:
                    begun, offset = event.index, 0
                    first = head.first(begun)
                    if first is not None:
                        yield _event(first, usage)
                if not isinstance(event, Ended):
                    tokens = [] if event.token is None else [Placed(event.token, offset)]
                    likely = self._likely(head, tokens)
                    yield _event(head.piece(event.index, event.text, likely), usage)
                    offset += len(event.text)
                    continue
                results.append(event.result)
                self._counts.ended(event.result)
                last = head.last(event.index, event.result)
                if len(results) == answer.count and not usage:
                    last |= told(results)
                yield _event(last, usage)
            if usage:
                yield _event(head.totals(results) | told(results), False)
        except ApiError as error:  # the status has gone out already
            self._counts.failed(error.status)
            yield _event(error.body, False)
        yield b"data: [DONE]\n\n"

    def _likely(self, head: Head, tokens: Sequence[Placed]) -> dict[str, Any] | None:
        """What is told of tokens, if log-probabilities were asked for."""
        return shaped(head.kind, tokens, self._service.spelling) if tokens else None

    def _end(self, answer: Answer) -> None:
        self._counts.running.dec()
        answer.leave()

    def _left(self, answer: Answer) -> None:
        """A stream is over; where its text is not, the client went away."""
        if not (answer.over or answer.failed):
            self._counts.left()
        self._end(answer)


class _Stream(StreamingResponse):
    """A stream that lets its answer go however it ends, begun or not."""

    def __init__(
        self, events: AsyncIterator[bytes], left: Callable[[Answer], None], answer: Answer
    ) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._left, self._answer = left, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, until the client goes away."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left(self._answer)


def _event(part: dict[str, Any], usage: bool) -> bytes:
    """An event; where its stream ends with the usage, the others say that it is not there yet."""
    return b"data: " + msgspec.json.encode(part | {"usage": None} if usage else part) + b"\n\n"
