"""What a step takes, tried once at load: devices are told before anybody has been served.

A device that takes turns with the base station chooses their length by it (docs/window.md, 8.2),
and the base station how long it waits for proposals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from bs_runtime.model.kv import Feed, Slot

ROWS = 8  # of the larger step
TIMES = 3  # each is tried; the least counts
LONG_S = 1.0  # a model whose step takes so long is tried once


def times(
    forward: Callable[[Sequence[Feed]], torch.Tensor],
    slot: Slot,
    ids: Sequence[int],
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[int, float]]:
    """(rows, seconds) of a step of one row and one of ``ROWS``, fed some of ``ids`` to a slot.

    The slot holds the same again afterwards.
    """
    length, tokens = slot.length, [ids[place % len(ids)] for place in range(ROWS)]
    found = []
    for count in (1, ROWS):
        best = float("inf")
        for _ in range(TIMES):
            begun = clock()
            rows = forward([Feed(slot, tokens[:count], count)])
            float(rows[-1, 0])  # on the host, so that it is done
            best = min(best, clock() - begun)
            slot.rollback(length)
            if best > LONG_S:
                break
        found.append((count, best))
    return found
