"""How many texts tell what a way to draft gains over another: as many as it takes, within bounds.

All are played in both ways, so what a text gains is told apart from how fast it is. A text comes
out a tenth faster or slower in a cell by how its rejections fall on the steps; three of them tell a
cell from ``LEAST`` only where nothing changes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from bench.both.cells import rate
from bench.virtual.record import Record
from device_runtime.device import Result

FEW, MOST = 6, 24
LEAST = 0.99  # of the first way, that a cell is to make at the least in each other
SURE = 2.0  # standard errors that it is away from that, where more texts are not played

Way = Callable[[Record], Result]


def gain(first: Sequence[Result], other: Sequence[Result]) -> tuple[float, float]:
    """How many times as fast the same texts are in another way, and the standard error of that."""
    before, after = _seconds(first), _seconds(other)
    ratio = rate(other) / rate(first)
    beyond = [b - ratio * a for b, a in zip(before, after, strict=True)]
    return ratio, math.sqrt(len(first)) * statistics.stdev(beyond) / sum(after)


def played(records: Sequence[Record], ways: Sequence[Way]) -> list[list[Result]]:
    """Of each way the results of the first records: of ``FEW``, or more, up to all."""
    found: list[list[Result]] = [[] for _ in ways]
    for count, record in enumerate(records, 1):
        for way, results in zip(ways, found, strict=True):
            results.append(way(record))
        if count >= FEW and all(_told(*gain(found[0], results)) for results in found[1:]):
            break
    return found


def _told(ratio: float, error: float) -> bool:
    return abs(ratio - LEAST) >= SURE * error


def _seconds(results: Sequence[Result]) -> list[float]:
    return [len(one.tokens) / one.tokens_per_s for one in results]
