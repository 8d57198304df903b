"""The texts of one request, written one after another on one conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from device_runtime.conversation import Conversation
from device_runtime.generation import Generation
from device_runtime.request import Options
from device_runtime.result import Result, Token
from device_runtime.serve.conversations import Conversations
from device_runtime.serve.errors import ApiError
from device_runtime.transport.connecting import LinkError
from draftlink.distribution.sampling import Sampling

GRACE_S = 2.0  # for a text that nobody wants any more to end as texts do


@dataclass(frozen=True)
class Wanted:
    """A text: the ids before it, and the options of its generation."""

    ids: list[int]
    options: Options


@dataclass(frozen=True)
class Piece:
    """What comes next of the text ``index``: of a ``token``, if log-probabilities are asked for."""

    index: int
    text: str
    token: Token | None


@dataclass(frozen=True)
class Ended:
    """A text has ended."""

    index: int
    result: Result


class Answer:
    """Made by ``begin``; ``leave`` must be called in the end, however it ends.

    A generation runs in a task of its own, so that whoever reads it can go away at any point and
    both ends know where it stopped.
    """

    def __init__(
        self,
        conversations: Conversations,
        conversation: Conversation,
        generations: Sequence[Generation],
    ) -> None:
        self._conversations, self._conversation = conversations, conversation
        self._generations = generations
        self._current: Generation | None = None
        self._task: asyncio.Task[None] | None = None
        self._pieces: asyncio.Queue[tuple[str, Token | None] | None] = asyncio.Queue()
        self.failed = False
        self.count = len(generations)
        self.over = False  # all texts have ended
        self._left: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, conversations: Conversations, wanted: Sequence[Wanted]) -> Answer:
        """Check all texts, and have a conversation for them. Raises ApiError."""
        try:
            conversation = await conversations.take(wanted[0].ids)
        except LinkError as error:
            raise _lost(error) from None
        try:
            generations = [conversation.generate(w.ids, **w.options) for w in wanted]
        except ValueError as error:
            conversations.give(conversation)
            raise _refused(error) from None
        except BaseException:
            conversations.give(conversation)
            raise
        return cls(conversations, conversation, generations)

    async def events(self) -> AsyncIterator[Piece | Ended]:
        """All texts, in pieces. Raises ApiError where the base station is lost."""
        for index, generation in enumerate(self._generations):
            self._current = generation
            self._task = asyncio.create_task(self._write(generation))
            while (piece := await self._pieces.get()) is not None:
                yield Piece(index, *piece)
            try:
                await self._task
            except Exception as error:
                self.failed = True
                raise _lost(error) from error
            self.over = index == self.count - 1
            yield Ended(index, generation.result)

    async def _write(self, generation: Generation) -> None:
        shown = 0
        try:
            async for token in generation:
                told = None if token.logprob is None else token
                if token.text or told:
                    shown += len(token.text)
                    self._pieces.put_nowait((token.text, told))
        finally:
            rest = generation.text[shown:]  # of a text that no token ended
            if rest:
                self._pieces.put_nowait((rest, None))
            self._pieces.put_nowait(None)

    def leave(self) -> asyncio.Task[None]:
        """Nobody reads this any more: end what is under way, and give the conversation back."""
        if self._left is None:
            self._left = asyncio.create_task(self._leave())
        return self._left

    async def _leave(self) -> None:
        task, generation = self._task, self._current
        if task is not None and generation is not None and not task.done():
            generation.cancel()
            await asyncio.wait([task], timeout=GRACE_S)
            if not task.done():  # it waits for a base station that says nothing
                task.cancel()
                await asyncio.wait([task])
                self.failed = True  # which would write on: its connection is closed
        if task is not None and not task.cancelled() and task.exception() is not None:
            self.failed = True
        if self.failed:
            await self._conversations.drop(self._conversation)
        else:
            self._conversations.give(self._conversation)


def _lost(error: Exception) -> ApiError:
    """What a client is told of a text that cannot go on."""
    if not isinstance(error, LinkError):
        return ApiError(502, str(error) or type(error).__name__, code="text_failed")
    return ApiError(503, str(error), code="base_station", retry_after_s=error.retry_after_s)


def _refused(error: ValueError) -> ApiError:
    text = str(error)
    named = text.partition(" ")[0]
    code = "context_length_exceeded" if "context is" in text else "invalid_value"
    known = named in Options.__annotations__ or named in Sampling.__struct_fields__
    return ApiError(400, text, param=named if known else None, code=code)
