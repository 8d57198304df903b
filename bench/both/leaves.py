"""Candidates beside proposed tokens, on against off: tokens/s, and what they cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.both.cells import Costs, play, rate
from bench.virtual.record import Record
from device_runtime.drafting import leaves

SHARES = (0.0, 0.025)  # of a step, that a row takes beyond the first


@dataclass(frozen=True)
class Pair:
    """A cell without and with candidates; bits up, rows and forwards are those of a token."""

    costs: Costs
    tokens_per_s: tuple[float, float]
    bits: tuple[float, float]
    rows: tuple[float, float]
    forwards: tuple[float, float]

    @property
    def gain(self) -> float:
        """With them over without."""
        return self.tokens_per_s[1] / self.tokens_per_s[0]


def pairs(each: Iterable[Costs], records: Sequence[Record]) -> Iterator[Pair]:
    """Each cell, with one candidate beside a token at the most. The text is the same."""
    for costs in each:
        found = [played(costs, records, most)[:4] for most in (0, 1)]
        yield Pair(costs, *zip(*found, strict=True))


@contextlib.contextmanager
def at_most(most: int) -> Iterator[None]:
    """So many candidates beside a token, at the most."""
    usual, leaves.MOST = leaves.MOST, most
    try:
        yield
    finally:
        leaves.MOST = usual


def played(
    costs: Costs, records: Sequence[Record], most: int, branches: int = 1
) -> tuple[float, float, float, float, float]:
    """Tokens/s; bits up, rows, forwards and drafted tokens, of a token of the text each."""
    with at_most(most):
        results = [play(costs, record, "auto", branches=branches) for record in records]
    count = sum(len(one.right) for one in records)
    return (
        rate(results),
        sum(r.uplink_payload_bits for r in results) / count,
        sum(r.rows or 0 for r in results) / count,
        sum(r.rounds for r in results) / count,
        sum(r.drafted for r in results) / count,
    )


def table(found: Iterable[Pair]) -> Table:
    """One row a cell."""
    out = Table("step, draft, RTT, row ms", "tokens/s", "gain", "bits up", "rows", "forwards")
    for one in found:
        costs = one.costs
        out.add_row(
            f"{costs.step_ms:g}, {costs.draft_ms:g}, {costs.rtt_ms:g}, {costs.row_ms:g}",
            *(f"{one.tokens_per_s[0]:.1f} {one.tokens_per_s[1]:.1f}", f"{one.gain:.3f}"),
            *(f"{x[0]:.2f} {x[1]:.2f}" for x in (one.bits, one.rows, one.forwards)),
        )
    return out
