"""A machine that both ends share: while both compute each is slower, and drafting on does not pay.

Once the device knows it by the address (``loopback``), and once it has to find out. And once the
address says so and a round trip takes longer all the same, as through a port that is forwarded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from bench.both.cells import Cell, Costs, measure
from bench.virtual.record import Record

SLOWDOWNS = (1.0, 1.5, 2.0, 2.5)
PACES_MS = ((8.0, 1.0), (20.0, 4.0), (50.0, 4.0), (50.0, 20.0))
RTT_MS = 0.2
FORWARDED_MS = (3.0, 6.0, 9.0, 12.0)  # round trips


def cells(records: Sequence[Record]) -> Iterator[Cell]:
    """Each slow-down at each pace, known and unknown."""
    for shared, slowdown, (step_ms, draft_ms) in itertools.product(
        (True, False), SLOWDOWNS, PACES_MS
    ):
        costs = Costs(step_ms, draft_ms, RTT_MS, slowdown=slowdown, shared=shared)
        yield measure(costs, records)
    for rtt_ms in FORWARDED_MS:
        costs = Costs(8.0, 1.3, rtt_ms, row_ms=1.0, slowdown=2.0, shared=True)
        yield measure(costs, records)
