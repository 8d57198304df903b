"""An event loop whose clock is virtual: where nothing is ready it jumps to the next timer.

What runs takes no time, whatever it costs this machine, but for what workers are told to ``spend``.
So a run is deterministic, and an hour of it takes as long as its computations.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(RuntimeError):
    """Tasks wait, and nothing will ever wake them."""


class _Jump(selectors.BaseSelector):
    """A selector without files: instead of waiting, it moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj, events, data)  # of the loop's own pipe
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError("every task waits, and no timer is set")
        self.now += max(timeout, 0.0)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class _Running:
    """A job whose time is being spent: what is left of it, were it alone, and what ends it."""

    def __init__(self, left_s: float, ends: Callable[[], None]) -> None:
        self.left_s = left_s
        self.ends = ends


class _Worker:
    """An executor of one thread: jobs one after the other, in the loop's own time."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.busy = False


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. Executors are taken to have one thread each; sockets do not exist.

    ``slowdown``: while more than one executor is at work all are slower by this factor, as where
    they share a machine's cores.
    """

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._workers: dict[Any, _Worker] = {}
        self._spent_s = 0.0
        self.slowdown = 1.0
        self._running: list[_Running] = []
        self._since_s = 0.0  # up to when what is left of them has been counted
        self._next: asyncio.TimerHandle | None = None

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jump.now

    def spend(self, seconds: float) -> None:
        """Called by a job in an executor: it takes so much longer."""
        self._spent_s += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run ``func`` once the executor is free; its result is there when its time is spent."""
        worker = self._workers.setdefault(executor, _Worker())
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            self._spent_s = 0.0
            result: T | None = None
            failure: Exception | None = None
            try:
                result = func(*args)
            except Exception as error:
                failure = error
            self._spend(self._spent_s, lambda: finish(result, failure))

        def finish(result: Any, failure: Exception | None) -> None:
            worker.busy = bool(worker.jobs)
            if worker.jobs:
                worker.jobs.popleft()()
            if future.done():
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

        if worker.busy:
            worker.jobs.append(run)
        else:
            worker.busy = True
            run()
        return future

    def _spend(self, seconds: float, ends: Callable[[], None]) -> None:
        """Call ``ends`` when a job of so many seconds has been done, beside others or alone."""
        if self.slowdown == 1.0:
            self.call_later(seconds, ends)
            return
        self._count()
        self._running.append(_Running(seconds, ends))
        self._plan()

    def _count(self) -> None:
        """Take off what has been done since it was counted last."""
        done_s = (self.time() - self._since_s) / self._factor
        self._since_s = self.time()
        for one in self._running:
            one.left_s -= done_s

    @property
    def _factor(self) -> float:
        return self.slowdown if len(self._running) > 1 else 1.0

    def _plan(self) -> None:
        """Wake when the first of them ends, if nothing changes before."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._running:
            least_s = min(one.left_s for one in self._running)
            self._next = self.call_later(max(least_s, 0.0) * self._factor, self._ends)

    def _ends(self) -> None:
        self._count()
        first = min(self._running, key=lambda one: one.left_s)
        self._running.remove(first)
        first.ends()
        self._count()
        self._plan()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new virtual loop. Raises DeadlockError.

    The ``random`` module, which spreads the attempts to connect again, gives the same each time.
    """
    before = random.getstate()
    random.seed(0)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main)
    finally:
        random.setstate(before)
