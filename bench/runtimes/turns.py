"""Runtimes in processes of their own, which are asked in turns and stopped in between.

Else threads that wait for work by spinning, as llama.cpp's and torch's do here, would take the
cores that another's turn is measured on.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.runtimes import KINDS, Cached, Runtime, rows

TOKENS = 24  # in a turn
IDS = 8000  # tokens that are fed for the time alone have ids from 1 to here
PROBE_BYTES = 1 << 30
Ask = Callable[[Any], Any]


@dataclass(frozen=True)
class Speed:
    """An order: seconds a token behind ``context`` tokens, the median of a turn.

    A context is read when it is first asked for, into a cache that is then kept and cut back.
    """

    context: int


@dataclass(frozen=True)
class Rows:
    """An order: the logits (n, V) before each of ``ids`` from ``begin`` on, fed one at a time.

    They are written to ``out``, as numpy saves an array.
    """

    ids: list[int]
    begin: int
    out: Path


@dataclass(frozen=True)
class Peak:
    """An order: the most bytes that the process has held, memory-mapped files counted."""


@dataclass(frozen=True)
class Entry:
    """A runtime, and the files that it is to run with so many threads."""

    title: str
    kind: str  # in ``KINDS``
    path: Path
    threads: int

    @property
    def bytes(self) -> int:
        """Of its file, or of its folder's files."""
        found = [self.path] if self.path.is_file() else self.path.iterdir()
        return sum(path.stat().st_size for path in found)


def interleaved(asks: Sequence[Ask], contexts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
    """Seconds a token of each process, by context: a turn of all of them, one after the other.

    ``contexts``: those that each is asked for.
    """
    return [
        {context: ask(Speed(context)) for context in own}
        for ask, own in zip(asks, contexts, strict=True)
    ]


def medians(turns: Sequence[Sequence[dict[int, float]]]) -> list[dict[int, float]]:
    """Of each process's seconds in all turns, by context."""
    return [
        {context: statistics.median(turn[context] for turn in own) for context in own[0]}
        for own in zip(*turns, strict=True)
    ]


def peak_bytes() -> int:
    """Of this process (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


class Worker:
    """A runtime, and the caches that orders have filled."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._rng = np.random.default_rng(0)
        self._read: dict[int, Cached] = {}
        self._text: Cached | None = None

    def _ids(self, count: int) -> list[int]:
        ids: list[int] = self._rng.integers(1, IDS, count).tolist()
        return ids

    def carry_out(self, order: Speed | Rows | Peak) -> Any:
        """The answer to an order; of ``Rows`` there is none but the file."""
        if isinstance(order, Peak):
            return peak_bytes()
        if isinstance(order, Speed):
            return self._seconds(order.context)
        np.save(order.out, self._rows(order), allow_pickle=False)
        return None

    def _seconds(self, context: int) -> float:
        if context not in self._read:
            self._read[context] = self._runtime.cache()
            self._read[context].feed(self._ids(context))
        cached = self._read[context]
        cached.feed([1])  # the first one after another's turn finds nothing in the caches
        times = []
        for token in self._ids(TOKENS):
            begun = time.perf_counter()
            cached.feed([token])
            times.append(time.perf_counter() - begun)
        cached.rollback(context)
        return statistics.median(times)

    def _rows(self, order: Rows) -> NDArray[np.float32]:
        if self._text is None:
            self._text = self._runtime.cache()
        found = rows(self._text, order.ids, order.begin)
        return np.stack([np.array(row, np.float32) for row in found])


def worker(pipe: Connection, kind: str, path: Path, threads: int) -> None:
    """Carry out orders with a runtime in this process, until there is none."""
    found = Worker(KINDS[kind](path, threads))
    pipe.send(None)
    while order := pipe.recv():
        pipe.send(found.carry_out(order))


def probe(pipe: Connection, threads: int) -> None:
    """Read 1 GiB with ``threads`` threads: bytes/s of the best of three ways, for each order."""
    import torch

    torch.set_num_threads(threads)
    matrix = torch.ones(PROBE_BYTES >> 17, 1 << 15)
    vector = torch.ones(1 << 15)
    readers: tuple[Callable[[], object], ...] = (
        lambda: matrix @ vector,
        lambda: matrix.sum(),
        lambda: matrix.max(),
    )
    pipe.send(None)
    while pipe.recv():
        least = math.inf
        for read in readers:
            begun = time.perf_counter()
            read()
            least = min(least, time.perf_counter() - begun)
        pipe.send(PROBE_BYTES / least)


class Ended(RuntimeError):
    """A process that ended instead of answering: a peer's kernels may crash on this machine."""


@contextmanager
def process(
    target: Callable[..., None], *arguments: Any, title: str = "", stops: bool = True
) -> Iterator[Ask]:
    """A process of its own that answers what it is asked, and is stopped in between.

    Without ``stops`` it runs on, as one must that has a connection to keep. ``title`` names it
    where it ends instead of answering (``Ended``).
    """
    pipe, end = multiprocessing.Pipe()
    made = multiprocessing.get_context("spawn").Process(target=target, args=(end, *arguments))
    made.start()
    end.close()

    def answer() -> Any:
        try:
            return pipe.recv()
        except (EOFError, ConnectionError) as error:
            made.join(10)
            raise Ended(f"{title or target.__name__} ended: {_how(made.exitcode)}") from error
        finally:
            if stops and made.is_alive():
                os.kill(made.pid or 0, signal.SIGSTOP)

    def ask(what: Any) -> Any:
        if stops and made.is_alive():
            os.kill(made.pid or 0, signal.SIGCONT)
        with suppress(ConnectionError):  # ``answer`` says how it ended
            pipe.send(what)
        return answer()

    try:
        answer()  # it is ready
        yield ask
    finally:
        made.kill()
        made.join(10)


def _how(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}, its error is above"
