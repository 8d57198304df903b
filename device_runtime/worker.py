"""The one thread that a device drafts with, for all of its conversations in turns.

A draft model is as fast with one caller as with several: its threads share the cores anyway. So the
work of all conversations goes through one thread, in slices (a forward, or a part of a prompt), and
none waits for another's whole prompt. What a job waited for its turns is known apart from what it
took: else the draft model of a busy device would seem slow to whoever decides how to use it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from types import GeneratorType
from typing import Any


class Job(asyncio.Future[Any]):
    """A piece of work; its own future. A function that is a generator is run in slices.

    ``waited_s``: seconds that it was due and others had their turns.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__()
        self.waited_s = 0.0
        self.due_s = self.get_loop().time()
        self._work = partial(function, *args)
        self._slices: GeneratorType[None, None, Any] | None = None
        self._found: Any = None

    def step(self) -> bool:
        """Do one slice, on the worker's thread. Whether that was the last."""
        if self._slices is None:
            self._found = self._work()
            if not isinstance(self._found, GeneratorType):
                return True
            self._slices = self._found
        try:
            next(self._slices)
        except StopIteration as end:
            self._found = end.value
            return True
        return False

    def finish(self) -> None:
        """It has come to its end, and has a result."""
        self.set_result(self._found)


class Worker:
    """Runs jobs in turns. All of it but the jobs themselves happens on the event loop.

    ``executor`` has one thread, and no work but this.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._due: deque[Job] = deque()
        self._busy = False

    def run(self, function: Callable[..., Any], *args: Any) -> Job:
        """Have the thread do something, once the jobs before it have had a turn."""
        job = Job(function, *args)
        self._due.append(job)
        if not self._busy:
            self._next()
        return job

    def _next(self) -> None:
        """The turn of the job that has been due for longest, if there is one."""
        self._busy = False
        while self._due and not self._busy:
            job = self._due.popleft()
            loop = job.get_loop()
            job.waited_s += loop.time() - job.due_s
            try:
                turn = loop.run_in_executor(self.executor, self._turn, job)
            except RuntimeError as error:  # the device was closed
                job.set_exception(error)
                continue
            self._busy = True
            turn.add_done_callback(partial(self._ended, job))

    def _turn(self, job: Job) -> bool:
        """Slices of a job, more than one as long as no other is due. Whether it has ended."""
        while not job.step():
            if self._due:
                return False
        return True

    def _ended(self, job: Job, turn: asyncio.Future[bool]) -> None:
        job.due_s = job.get_loop().time()
        if turn.cancelled():
            job.cancel()
        elif (error := turn.exception()) is not None:
            job.set_exception(error)
        elif turn.result():
            job.finish()
        else:
            self._due.append(job)
        self._next()
