"""Leaves and branches beside a path, against neither: tokens/s over the best of the fixed modes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.both import leaves, texts
from bench.both.cells import Costs, measure
from bench.virtual.record import Record

# Candidates beside a token at the most, and behind how many tokens a draft forward goes on.
KINDS = {
    "alone": (0, 1),
    "leaves": (1, 1),
    "2 branches": (1, 2),
    "3 branches": (1, 3),
    "4 branches": (1, 4),
}
FAR_MS = 15.0  # round trips from which on a mean is told
ROW = 0.025  # of a step, that a row takes beyond the first
FIXED_BY = 3  # texts by which the best of the fixed modes is found


@dataclass(frozen=True)
class Row:
    """A cell; ``of_best``: without any of it over the best of the fixed modes.

    The others by kind, in ``KINDS``' order: ``gains`` over the first, with ``errors``, their
    standard errors, of so many ``texts``. ``bits`` up, ``rows`` and ``forwards`` of the target and
    ``drafted`` tokens are those of a token of the text.
    """

    costs: Costs
    of_best: float
    texts: int
    gains: tuple[float, ...]
    errors: tuple[float, ...]
    tokens_per_s: tuple[float, ...]
    bits: tuple[float, ...]
    rows: tuple[float, ...]
    forwards: tuple[float, ...]
    drafted: tuple[float, ...]


def rows(each: Iterable[Costs], records: Sequence[Record]) -> Iterator[Row]:
    """Each cell. The text is the same."""
    for costs in each:
        with leaves.at_most(0):
            alone = measure(costs, records[:FIXED_BY])
        found = leaves.played(costs, records, KINDS.values())
        gains = [texts.gain(found[0], results) for results in found]
        counts = [leaves.counts(results) for results in found]
        yield Row(
            costs, alone.of_best, len(found[0]), *zip(*gains, strict=True),
            *zip(*counts, strict=True),
        )  # fmt: skip


def table(found: Iterable[Row]) -> Table:
    """One row a cell."""
    of_one = [f"{kind} / alone" for kind in list(KINDS)[1:]]
    out = Table("step, draft, RTT ms", "alone / best", *of_one, "texts", "bits up", "rows",
                "forwards", "drafted")  # fmt: skip
    for one in found:
        costs = one.costs
        out.add_row(
            f"{costs.step_ms:g}, {costs.draft_ms:g}, {costs.rtt_ms:g}",
            f"{one.of_best:.3f}",
            *(f"{gain:.3f} ± {error:.3f}"
              for gain, error in list(zip(one.gains, one.errors, strict=True))[1:]),
            str(one.texts),
            *(" ".join(f"{x:.2f}" for x in each)
              for each in (one.bits, one.rows, one.forwards, one.drafted)),
        )  # fmt: skip
    return out


def said(found: Sequence[Row]) -> str:
    """What the cells come to."""
    far = [one for one in found if one.costs.rtt_ms >= FAR_MS]
    quick = [one for one in far if one.costs.draft_ms <= one.costs.step_ms / 2]
    told = []
    for place, kind in enumerate(KINDS):
        means = [
            statistics.geometric_mean([one.of_best * one.gains[place] for one in each] or [1.0])
            for each in (far, quick)
        ]
        of_one = [one.gains[place] for one in found]
        told.append(
            f"{kind}: {means[0]:.3f} of the best from {FAR_MS:g} ms on, {means[1]:.3f} with a draft"
            f" of at most half a step; of alone {statistics.geometric_mean(of_one):.3f}, at least"
            f" {min(of_one):.3f}"
        )
    return "\n".join(told)
