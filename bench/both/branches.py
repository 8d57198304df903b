"""Leaves and branches beside a path, against neither: tokens/s over the best of the fixed modes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.both import leaves
from bench.both.cells import Costs, measure
from bench.virtual.record import Record

# Candidates beside a token at the most, and behind how many tokens a draft forward goes on.
KINDS = {"alone": (0, 1), "leaves": (1, 1), "2 branches": (1, 2), "3 branches": (1, 3)}
FAR_MS = 15.0  # round trips from which on a mean is told
ROW = 0.025  # of a step, that a row takes beyond the first


@dataclass(frozen=True)
class Row:
    """A cell; ``best``: the best fixed mode's tokens/s. The others by kind, in ``KINDS``' order.

    ``bits`` up, ``rows`` and ``forwards`` of the target and ``drafted`` tokens are those of a
    token of the text.
    """

    costs: Costs
    best: float
    tokens_per_s: tuple[float, ...]
    bits: tuple[float, ...]
    rows: tuple[float, ...]
    forwards: tuple[float, ...]
    drafted: tuple[float, ...]


def rows(each: Iterable[Costs], records: Sequence[Record]) -> Iterator[Row]:
    """Each cell. The text is the same."""
    for costs in each:
        with leaves.at_most(0):
            fixed = measure(costs, records).tokens_per_s
        best = max(rate for mode, rate in fixed.items() if mode != "auto")
        found = [leaves.played(costs, records, *kind) for kind in KINDS.values()]
        yield Row(costs, best, *zip(*found, strict=True))


def table(found: Iterable[Row]) -> Table:
    """One row a cell."""
    of_one = [f"{kind} / alone" for kind in list(KINDS)[1:]]
    out = Table("step, draft, RTT ms", "alone / best", *of_one, "bits up", "rows", "forwards",
                "drafted")  # fmt: skip
    for one in found:
        costs, alone = one.costs, one.tokens_per_s[0]
        out.add_row(
            f"{costs.step_ms:g}, {costs.draft_ms:g}, {costs.rtt_ms:g}",
            f"{alone / one.best:.3f}",
            *(f"{rate / alone:.3f}" for rate in one.tokens_per_s[1:]),
            *(" ".join(f"{x:.2f}" for x in each)
              for each in (one.bits, one.rows, one.forwards, one.drafted)),
        )  # fmt: skip
    return out


def said(found: Sequence[Row]) -> str:
    """What the cells come to."""
    far = [one for one in found if one.costs.rtt_ms >= FAR_MS]
    told = []
    for place, kind in enumerate(KINDS):
        of_best = [one.tokens_per_s[place] / one.best for one in far]
        of_one = [one.tokens_per_s[place] / one.tokens_per_s[0] for one in found]
        mean = statistics.geometric_mean(of_best) if of_best else 0.0
        told.append(
            f"{kind}: {mean:.3f} of the best from {FAR_MS:g} ms on; of alone"
            f" {statistics.geometric_mean(of_one):.3f}, at least {min(of_one):.3f}"
        )
    return "\n".join(told)
