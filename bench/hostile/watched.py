"""A base station as ``draftlink bs`` starts it, whose event loop's callbacks are timed.

    python -m bench.hostile.watched MODEL [OPTIONS]

Nothing of the base station is changed. A line on stdin asks for the longest callback since the last
one, by the CPU time of its thread; the answer is a JSON line on stdout. ``POISON`` in the
environment, as "nan 8190" or "raise 8190", makes the embedding of that token not a number, or its
forward fail. Descriptors are limited as a login shell limits them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import runpy
import sys
import threading
import time
from typing import Any

DESCRIPTORS = 1024


class Watch:
    """The longest callback since it was asked for last."""

    def __init__(self) -> None:
        self._most = self._collected = 0.0
        self._name = ""
        self._count = 0
        self._collecting = self._since = 0.0
        self._thread = threading.get_ident()  # the event loop's
        gc.callbacks.append(self._collect)
        self._run = asyncio.events.Handle._run

    def start(self) -> None:
        """Time each callback from here on."""
        run, watch = self._run, self

        def timed(handle: Any) -> None:
            callback = handle._callback  # a handle forgets it when it is cancelled
            watch._collecting = 0.0
            before = time.thread_time()
            run(handle)
            seconds = time.thread_time() - before
            watch._count += 1
            if seconds > watch._most:
                watch._most, watch._collected = seconds, watch._collecting
                watch._name = _name(callback)

        asyncio.events.Handle._run = timed  # type: ignore[assignment]

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._since = time.thread_time()
        else:
            self._collecting += time.thread_time() - self._since

    def answer(self) -> None:
        """Answer each line on stdin; whoever asks has ended when it does, and so does this."""
        while os.read(0, 4096):
            os.write(1, (json.dumps(self.take()) + "\n").encode())
        os._exit(1)

    def take(self) -> dict[str, Any]:
        """The longest callback since this was asked last."""
        found = {
            "callback_ms": 1e3 * self._most,
            "collecting_ms": 1e3 * self._collected,  # of it, by Python's garbage collector
            "callback": self._name,
            "callbacks": self._count,
        }
        self._most, self._count = 0.0, 0
        return found


def _name(callback: Any) -> str:
    """What a callback was, and for a task's step where it has come to."""
    owner = getattr(callback, "__self__", None)
    if not isinstance(owner, asyncio.Task):
        return getattr(callback, "__qualname__", repr(callback))
    chain: list[str] = []
    inner: Any = owner.get_coro()
    while inner is not None and hasattr(inner, "cr_code"):
        line = inner.cr_frame.f_lineno if inner.cr_frame is not None else "end"
        chain.append(f"{inner.cr_code.co_qualname}:{line}")
        inner = inner.cr_await
    return " > ".join(chain)


def _poison(kind: str, bad: int) -> None:
    import torch

    embed = torch.nn.Embedding.forward

    def forward(self: torch.nn.Embedding, input: torch.Tensor) -> torch.Tensor:
        rows, found = embed(self, input), input == bad
        if not bool(found.any()):
            return rows
        if kind == "raise":
            raise RuntimeError("this token's forward fails")
        return rows.masked_fill(found[..., None], float("nan"))

    torch.nn.Embedding.forward = forward  # type: ignore[method-assign]


def main() -> None:
    """The process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    if kind := os.environ.pop("POISON", ""):
        name, bad = kind.split()
        _poison(name, int(bad))
    watch = Watch()
    watch.start()
    threading.Thread(target=watch.answer, daemon=True).start()
    sys.argv[1:1] = ["bs"]
    runpy.run_module("draftlink.cli", run_name="__main__")


if __name__ == "__main__":
    main()
