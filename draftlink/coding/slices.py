"""Long work in slices: who runs it decides after each whether to go on now, later, or not at all.

Decoding what a peer sent is done on an event loop that others wait for, and Python code on a thread
of its own would hold them up as much: it keeps the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

# Yields behind each slice, a few milliseconds of a slow machine at the most, and returns what was
# made. Closed before its end it leaves no trace.
Slices = Generator[None, None, T]


def whole(slices: Slices[T]) -> T:
    """All of the work at once; what it returns."""
    while True:
        try:
            next(slices)
        except StopIteration as done:
            value: T = done.value
            return value
