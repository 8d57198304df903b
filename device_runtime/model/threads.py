"""How many threads a draft runs with: more are only taken where they pay."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from draftlink.planning.trials import counts

# A thread more costs power, and a core that something else may need; so must gain something.
GAIN = 1.1


class Setting(NamedTuple):
    """Threads, and whether they look for one another's work while they wait, or sleep at once."""

    threads: int
    spins: bool = True


def available() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check(count: int) -> None:
    """Raises ValueError for a number of threads that cannot be meant.

    Threads beyond the cores wait for one another, spinning: thousands of them for minutes.
    """
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    if count > available():
        raise ValueError(
            f"threads must be at most {available()}, the cores that this process may run on, not"
            f" {count}"
        )


def settings(best: int, most: int) -> list[Setting]:
    """What may be the fastest beside other processes, of which ``best`` threads is without them.

    Fewer threads, and as many that sleep; then ``best``, and more of them.
    """
    fewer = [Setting(count, spins=False) for count in counts(best) if best > 1]
    return [*fewer, *(Setting(count) for count in counts(most) if count >= best)]


def fastest(seconds: Callable[[int], float], most: int) -> int:
    """The thread count, up to ``most``, whose forward takes the least time, by ``seconds``.

    Counts are tried in ascending order, and no more once one has not gained a tenth.
    """
    best, least = 1, seconds(1)
    for count in counts(most)[1:]:
        took = seconds(count)
        if took * GAIN > least:
            break
        best, least = count, took
    return best
