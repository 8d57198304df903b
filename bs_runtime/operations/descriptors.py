"""File descriptors: as many as this process may have, and how they are shared out."""

from __future__ import annotations

import contextlib
import math

OWN = 128  # of the process itself: the listener, the log, the model's files, a GPU's driver
LEAST_PENDING = 16


def raise_limit() -> None:
    """Allow this process as many as its hard limit does; the soft one is 1,024 by habit."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # what there is must do
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> float:
    """How many descriptors this process may have; infinite where nothing says so."""
    try:
        import resource
    except ImportError:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def share(available: float, sessions: int, pending: int) -> tuple[int, int]:
    """(sessions, pending connections), as many as asked for or as ``available`` allows.

    Sessions come first: a stranger's connection must not take a device's.
    """
    room = max(available - OWN, 2 * LEAST_PENDING)
    sessions = int(min(sessions, room - LEAST_PENDING))
    return sessions, int(min(pending, room - sessions))
