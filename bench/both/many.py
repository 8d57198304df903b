"""One base station for many devices, whose drafts are paced and run on cores of their own.

All write at once, each a text of its own over a link of its own. A step takes as long as its rows
say.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.both.cells import GAMMAS, OTHERS, RATE, Costs, begun, draws
from bench.virtual.loop import run
from bench.virtual.record import Draft, Record
from device_runtime.device import Device
from device_runtime.result import Mode
from draftlink.link.shaping import LinkProfile, make_link

DEVICES = (1, 8, 32)
COSTS = Costs(20.0, 4.0, 15.0, row_ms=0.2)
RTTS_MS = (2.0, 15.0, 30.0, 60.0)  # of one device after the other


@dataclass(frozen=True)
class Load:
    """What so many devices come to in a mode. Counts are for each token of the texts."""

    mode: str
    each: list[float]  # tokens/s of every device
    forwards: float
    rows: float
    drafted: float

    @property
    def tokens_per_s(self) -> float:
        """Of all together."""
        return sum(self.each)

    @property
    def slowest(self) -> float:
        """The slowest device's tokens/s, over the median."""
        return min(self.each) / statistics.median(self.each)


def play(
    costs: Costs,
    records: Sequence[Record],
    *modes: Mode,
    rtts_ms: Sequence[float] = RTTS_MS,
    **options: Any,
) -> Load:
    """All records at once, each in its mode, or all in the only one."""
    world = costs.world(records, candidates=draws(modes[0], **options))
    asked = modes if len(modes) > 1 else modes * len(records)

    async def one(device: Device, record: Record, mode: Mode) -> tuple[float, int]:
        generation = begun(device, record, mode, **options)
        async for _ in generation:
            pass
        return generation.result.tokens_per_s, generation.result.drafted

    async def all_() -> list[tuple[float, int]]:
        each = []
        for number, record in enumerate(records):
            rtt_s = rtts_ms[number % len(rtts_ms)] / 1e3
            link = make_link(LinkProfile(RATE, RATE, rtt_s), seed=number)
            each.append((link, Draft(record)))
        async with world.devices(each) as devices:
            return await asyncio.gather(*map(one, devices, records, asked))

    found = run(all_())
    count = sum(len(record.right) for record in records)
    return Load(
        ", ".join(dict.fromkeys(modes)),
        [rate for rate, _ in found],
        world.target.forwards / count,
        world.target.rows / count,
        sum(drafted for _, drafted in found) / count,
    )


def several(records: Sequence[Record], count: int) -> list[Record]:
    """So many records, each of another place in those that there are."""
    made = []
    for number in range(count):
        one = records[number % len(records)]
        turn = (7 * number) % len(one.right)
        right = one.right[turn:] + one.right[:turn]
        chances = one.chances[turn:] + one.chances[:turn]
        seconds = one.seconds[turn:] + one.seconds[:turn]
        made.append(replace(one, number=number, right=right, chances=chances, seconds=seconds))
    return made


def loads(records: Sequence[Record], costs: Costs = COSTS) -> Iterator[list[Load]]:
    """Of each number of devices: stop-and-wait at its best length, the other modes, ``auto``."""
    for count in DEVICES:
        chosen = several(records, count)
        waits = [play(costs, chosen, "stop-and-wait", gamma=gamma) for gamma in GAMMAS]
        best = max(waits, key=lambda load: load.tokens_per_s)
        yield [best, *(play(costs, chosen, mode) for mode in OTHERS)]
