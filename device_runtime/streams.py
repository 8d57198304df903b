"""A text that is written in another thread, for code without asyncio, or with a loop of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from device_runtime.generation import Generation
from device_runtime.result import Result, Token

T = TypeVar("T")
Ended = Callable[[Generation], Awaitable[None]]  # called in the loop once a text has ended


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="draftlink", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` comes to; where the caller is interrupted it is cancelled."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin ``work``, and do not wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Any) -> None:
        """Call a function in the loop."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """The end of it."""
        self.call(self._loop.stop)
        self._thread.join()


class Stream:
    """A text that is being written: iterate over its tokens, with ``for`` or ``async for``.

    ``text`` is what has come so far; ``result`` is there when the iteration has ended. ``close``
    ends the text where it is, as does leaving a ``with`` block. ``read`` is called by the reader,
    once, when the iteration ends.
    """

    def __init__(
        self,
        loop: Loop,
        generation: Generation,
        ended: Ended,
        read: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop, self._generation, self._read = loop, generation, read
        self._tokens: queue.SimpleQueue[Token | BaseException | None] = queue.SimpleQueue()
        self._over = False
        loop.soon(self._write(ended))

    async def _write(self, ended: Ended) -> None:
        failure: BaseException | None = None
        try:
            async for token in self._generation:
                self._tokens.put(token)
        except BaseException as error:
            failure = error
        try:
            await ended(self._generation)
        finally:
            self._tokens.put(failure)

    def __iter__(self) -> Iterator[Token]:
        return self

    def __next__(self) -> Token:
        return self._took(None if self._over else self._tokens.get())

    def _took(self, item: Token | BaseException | None) -> Token:
        if isinstance(item, Token):
            return item
        if not self._over:
            self._over = True
            self._read()
        if item is not None:
            raise item
        raise StopIteration

    async def __aiter__(self) -> AsyncIterator[Token]:
        while not self._over:
            item = await asyncio.to_thread(self._tokens.get)
            try:
                token = self._took(item)
            except StopIteration:
                return
            yield token

    @property
    def text(self) -> str:
        """What has come so far and stands."""
        return self._generation.text

    @property
    def result(self) -> Result:
        """What the text took. Raises RuntimeError before its end."""
        return self._generation.result

    def close(self) -> None:
        """End the text after what has come."""
        self._loop.call(self._generation.cancel)
        for _ in self:
            pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
