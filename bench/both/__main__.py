"""Both ends write, against each mode that is fixed, in virtual time: tokens/s over links and paces.

    python -m bench.both [PART ...] [--quick] [--json FILE] [--plot FILE]

Both ends' own code on a virtual clock (see ``bench.virtual``), and records of the embedded pair's
own texts (``coupled``, temperature 1) over a small vocabulary. ``auto`` starts cold in each text
and is told nothing; it is held against stop-and-wait with the best of several draft lengths,
run-ahead, and the target alone. All write the same text. Parts, all if none is named:

    cells    one device: a target's step, a draft's forward and a round trip, 70 of them
    sure     some of them with a draft that is right 97 times of a hundred
    shared   both ends on one machine, where each slows the other
    many     1, 8 and 32 devices at one base station
    apart    two links that nothing was chosen on, with their rates and stalls
    leaves   candidates beside proposed tokens, on against off, at two prices of a row; of 6 texts
             to 24, until it is told whether a cell makes .99 of what it does without
    branches likewise, and with several paths drafted at once, where a row takes a fortieth
    frontier tokens/s against what both ends spend, over the two prices (--plot)

``python -m bench.both sockets`` is in real time: see ``bench.both.sockets``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.both import branches, frontier, leaves, many, shared, sockets
from bench.both import texts as told_by
from bench.both.cells import DRAFTS_MS, RTTS_MS, STEPS_MS, Cell, Costs, measure
from bench.both.records import records
from bench.virtual.record import Record
from draftlink.link.shaping import PROFILES

QUICK = (
    (8.0, 1.0, 0.5), (8.0, 1.0, 15.0), (20.0, 4.0, 2.0), (20.0, 4.0, 15.0), (20.0, 4.0, 60.0),
    (50.0, 4.0, 15.0), (50.0, 4.0, 60.0), (50.0, 10.0, 150.0), (100.0, 10.0, 60.0),
    (20.0, 20.0, 60.0),
)  # fmt: skip
TEXTS, TOKENS = 3, 120
SURE = 0.97
APART = ("satellite", "uav_nlos")  # looked at once a change is made, not while it is
PACES_MS = ((20.0, 4.0), (45.0, 10.0))
PARTS = ("cells", "sure", "shared", "many", "frontier", "apart", "leaves", "branches")


def table(cells: Iterable[Cell]) -> Table:
    """One row a cell."""
    modes = ("stop-and-wait", "run-ahead", "stream", "auto")
    out = Table(
        "step, draft, RTT ms", "slowed", *modes, "/ best", "/ stream", "forwards", "drafted a token"
    )
    for cell in cells:
        costs, rates = cell.costs, cell.tokens_per_s
        out.add_row(
            f"{costs.step_ms:g}, {costs.draft_ms:g}, {costs.profile or f'{costs.rtt_ms:g}'}",
            f"{costs.slowdown:g}{', known' if costs.shared else ''}",
            f"{rates['stop-and-wait']:.1f} ({cell.gamma})",
            *(f"{rates[mode]:.1f}" for mode in modes[1:]),
            f"{cell.of_best:.3f}",
            f"{cell.of_stream:.3f}",
            f"{cell.forwards:.2f}",
            f"{cell.drafted:.2f}",
        )
    return out


def load_table(loads: Iterable[many.Load]) -> Table:
    """One row for a number of devices and a mode."""
    out = Table("devices", "mode", "tokens/s", "slowest / median", "forwards", "rows", "drafted")
    for one in loads:
        out.add_row(
            str(len(one.each)), one.mode, f"{one.tokens_per_s:.0f}", f"{one.slowest:.2f}",
            f"{one.forwards:.3f}", f"{one.rows:.2f}", f"{one.drafted:.2f}",
        )  # fmt: skip
    return out


def said(cells: Sequence[Cell]) -> str:
    """What all cells come to."""
    far = [c for c in cells if c.costs.rtt_ms >= 15 and c.costs.draft_ms <= c.costs.step_ms / 2]
    idle = [c.drafted for c in cells if c.of_stream < 1.03]
    told = (
        f"{len(cells)} cells: auto / best at least {min(c.of_best for c in cells):.3f},"
        f" / stream at least {min(c.of_stream for c in cells):.3f}; where it gains less than 3%"
        f" over the stream at most {max(idle, default=0.0):.2f} drafted a token"
    )
    if far:
        mean = statistics.geometric_mean([c.of_best for c in far])
        told += f"; geometric mean from 15 ms on with a draft of at most half a step {mean:.3f}"
    return told


def chosen(*, quick: bool) -> list[Costs]:
    """The cells."""
    if quick:
        return [Costs(*cell) for cell in QUICK]
    every = itertools.product(STEPS_MS, DRAFTS_MS, RTTS_MS)
    return [Costs(*cell) for cell in every if cell[1] <= cell[0]]


def main() -> None:
    """Print the tables."""
    if sys.argv[1:2] == ["sockets"]:
        sockets.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="ten cells")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="of the frontier, PNG or SVG")
    options = parser.parse_args()
    parts, told = options.parts or PARTS, Console(width=150)
    texts = records(TEXTS, TOKENS)
    told.print("alpha of the texts:", *(f"{text.alpha:.3f}" for text in texts))
    out: dict[str, Any] = {}
    more = functools.cache(lambda: records(told_by.MOST, TOKENS))

    def show(part: str, cells: Iterable[Cell]) -> None:
        found = list(cells)
        told.print(table(found), said(found))
        out[part] = [asdict(cell) for cell in found]

    if "cells" in parts:
        show("cells", (measure(costs, texts) for costs in chosen(quick=options.quick)))
    if "sure" in parts:
        sure: list[Record] = [text.better(SURE, seed=text.number) for text in texts]
        show("sure", (measure(Costs(*cell), sure) for cell in QUICK))
    if "apart" in parts:
        every = itertools.product(APART, PACES_MS)
        apart = [Costs(*pace, PROFILES[link].rtt_s * 1e3, profile=link) for link, pace in every]
        show("apart", (measure(costs, texts) for costs in apart))
    if "shared" in parts:
        show("shared", shared.cells(texts))
    if "many" in parts:
        loads = [load for group in many.loads(texts) for load in group]
        told.print(load_table(loads))
        out["many"] = [asdict(load) for load in loads]
    if "leaves" in parts:
        for share in leaves.SHARES:
            near = [replace(c, row_ms=share * c.step_ms) for c in chosen(quick=options.quick)]
            pairs = list(leaves.pairs(near, more()))
            gain = statistics.geometric_mean([one.gain for one in pairs])
            told.print(leaves.table(pairs), f"geometric mean {gain:.3f}")
            out[f"leaves {share:g}"] = [asdict(one) for one in pairs]
    if "branches" in parts:
        near = [replace(c, row_ms=branches.ROW * c.step_ms) for c in chosen(quick=options.quick)]
        drafted = list(branches.rows(near, more()))
        told.print(branches.table(drafted), branches.said(drafted))
        out["branches"] = [asdict(one) for one in drafted]
    if "frontier" in parts:
        points = list(frontier.points(texts))
        out["frontier"] = [asdict(point) for point in points]
        if options.plot:
            frontier.plot(points, options.plot)
    if options.json:
        options.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
