"""Several paths drafted at once: tokens/s by how many, against the best of the fixed modes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.both.cells import Costs, measure, play, rate
from bench.virtual.record import Record

WIDTHS = (1, 2, 3)
FAR_MS = 15.0  # round trips from which on a mean is told


@dataclass(frozen=True)
class Row:
    """A cell by how many tokens a draft forward goes on behind; ``best``: the best fixed mode's.

    ``drafted``: tokens drafted for one of the text.
    """

    costs: Costs
    best: float
    tokens_per_s: tuple[float, ...]
    drafted: tuple[float, ...]
    bits: tuple[float, ...]


def rows(each: Iterable[Costs], records: Sequence[Record]) -> Iterator[Row]:
    """Each cell. The text is the same."""
    for costs in each:
        fixed = measure(costs, records).tokens_per_s
        best = max(rate for mode, rate in fixed.items() if mode != "auto")
        found = [_played(costs, records, width) for width in WIDTHS]
        yield Row(costs, best, *zip(*found, strict=True))


def _played(costs: Costs, records: Sequence[Record], width: int) -> tuple[float, float, float]:
    results = [play(costs, record, "auto", branches=width) for record in records]
    count = sum(len(one.right) for one in records)
    return (
        rate(results),
        sum(r.drafted for r in results) / count,
        sum(r.uplink_payload_bits for r in results) / count,
    )


def table(found: Iterable[Row]) -> Table:
    """One row a cell."""
    widths = [f"{width} / best" for width in WIDTHS]
    out = Table("step, draft, RTT ms", "tokens/s", *widths, "of one", "drafted", "bits up")
    for one in found:
        costs = one.costs
        out.add_row(
            f"{costs.step_ms:g}, {costs.draft_ms:g}, {costs.rtt_ms:g}",
            " ".join(f"{rate:.1f}" for rate in one.tokens_per_s),
            *(f"{rate / one.best:.3f}" for rate in one.tokens_per_s),
            " ".join(f"{rate / one.tokens_per_s[0]:.3f}" for rate in one.tokens_per_s[1:]),
            " ".join(f"{count:.2f}" for count in one.drafted),
            " ".join(f"{bits:.1f}" for bits in one.bits),
        )
    return out


def said(found: Sequence[Row]) -> str:
    """What the cells come to."""
    far = [one for one in found if one.costs.rtt_ms >= FAR_MS]
    told = []
    for place, width in enumerate(WIDTHS):
        of_best = [one.tokens_per_s[place] / one.best for one in far]
        of_one = [one.tokens_per_s[place] / one.tokens_per_s[0] for one in found]
        mean = statistics.geometric_mean(of_best) if of_best else 0.0
        told.append(
            f"{width}: / best {mean:.3f} from {FAR_MS:g} ms on; / one"
            f" {statistics.geometric_mean(of_one):.3f}, at least {min(of_one):.3f}"
        )
    return "; ".join(told)
