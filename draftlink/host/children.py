"""Processes that a command starts: Pythons of this installation, which end with the command."""

from __future__ import annotations

import asyncio
import os
import signal
import site
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

import draftlink

T = TypeVar("T")

# From SIGTERM to the end of a base station: 10 s for devices, 2 s for others, and a slow machine.
STOPPED_S: Final = 25.0


def python(*arguments: str) -> list[str]:
    """The command for this Python on ``arguments``, to be run in ``environment()``.

    The current folder is not looked at for modules, as ``-m`` and ``-c`` do by themselves: it is
    the user's, and may hold a ``numpy.py``. (``-I`` would also leave out PYTHONPATH and the user's
    own site-packages, where this installation may be.)
    """
    return [sys.executable, "-P", *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which a child finds the same modules as this process did.

    Where they were not installed but run as they lie, as in a clone of the repository, the child is
    told of the folder: what this process found in its current folder, a child would not.
    """
    root = str(Path(draftlink.__file__).resolve().parents[1])
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    before = os.environ.get("PYTHONPATH")
    paths = [] if root in map(os.path.realpath, installed) else [root]
    paths += [before] if before else []
    return os.environ | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}) | more


def end(process: subprocess.Popen[Any], within_s: float, say: Callable[[str], object]) -> None:
    """Tell a process to terminate, and kill it, saying so, if it runs on for ``within_s``.

    Raises nothing: it is called where an error of another kind may be on its way.
    """
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        say(f"process {process.pid} did not end within {within_s:g} s of SIGTERM: killed")
        process.kill()
        process.wait()


@contextmanager
def child(
    arguments: list[str], say: Callable[[str], object], within_s: float = STOPPED_S, **pipes: Any
) -> Iterator[subprocess.Popen[str]]:
    """A Python on ``arguments``, with ``pipes`` as Popen has them; it ends with the block.

    ``say`` is told, in a line, where it had to be killed.
    """
    process = subprocess.Popen(
        python(*arguments),
        env=environment(),
        text=True,
        errors="backslashreplace",  # whatever encoding the child writes in
        **pipes,
    )
    try:
        yield process
    finally:
        try:
            end(process, within_s, say)
        except BaseException:  # told again, as by a second Ctrl-C: there is no more time
            process.kill()
            process.wait()
            raise
        finally:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(OSError):  # what was not yet written to it
                        pipe.close()


@contextmanager
def terminable() -> Iterator[None]:
    """During the block SIGTERM ends this process as an error does, through every ``finally``.

    For the main thread; a coroutine is run there by ``run``, which is kinder to it.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, which SIGTERM ends as Ctrl-C does: the coroutine is cancelled.

    An exception out of the signal's handler would strike whatever the loop is at, a connection's
    own callback as well; then that connection could not be closed, and who holds its other end
    would wait for it. Raises SystemExit when told to terminate. For the main thread.
    """

    async def until_told() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        told = False

        def leave(number: int, _: FrameType | None) -> None:
            nonlocal told
            told = True
            task.cancel()
            loop.call_soon_threadsafe(lambda: None)  # it may be asleep

        before = signal.signal(signal.SIGTERM, leave)
        try:
            return await main
        except asyncio.CancelledError:
            if told:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    return asyncio.run(until_told())
