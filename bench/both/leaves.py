"""Candidates beside proposed tokens, on against off: tokens/s, and what they cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.both import texts
from bench.both.cells import Costs, play, rate
from bench.virtual.record import Record
from device_runtime.device import Result
from device_runtime.drafting import leaves

SHARES = (0.0, 0.025)  # of a step, that a row takes beyond the first


@dataclass(frozen=True)
class Pair:
    """A cell without and with candidates; bits up, rows and forwards are those of a token.

    ``gain``: with them over without, ``error``: its standard error, of so many ``texts``.
    """

    costs: Costs
    texts: int
    gain: float
    error: float
    tokens_per_s: tuple[float, float]
    bits: tuple[float, float]
    rows: tuple[float, float]
    forwards: tuple[float, float]


def pairs(each: Iterable[Costs], records: Sequence[Record]) -> Iterator[Pair]:
    """Each cell, with one candidate beside a token at the most. The text is the same."""
    for costs in each:
        each_way = played(costs, records, ((0, 1), (1, 1)))
        found = [counts(results)[:4] for results in each_way]
        yield Pair(costs, len(each_way[0]), *texts.gain(*each_way), *zip(*found, strict=True))


@contextlib.contextmanager
def at_most(most: int) -> Iterator[None]:
    """So many candidates beside a token, at the most."""
    usual, leaves.MOST = leaves.MOST, most
    try:
        yield
    finally:
        leaves.MOST = usual


def played(
    costs: Costs, records: Sequence[Record], kinds: Iterable[tuple[int, int]]
) -> list[list[Result]]:
    """What became of texts with so many candidates beside a token at the most, and so many
    branches; of as many of the records as tell (``texts``)."""

    def way(most: int, branches: int) -> texts.Way:
        def one(record: Record) -> Result:
            with at_most(most):
                return play(costs, record, "auto", branches=branches)

        return one

    return texts.played(records, [way(*kind) for kind in kinds])


def counts(results: Sequence[Result]) -> tuple[float, float, float, float, float]:
    """Tokens/s; bits up, rows, forwards and drafted tokens, of a token of the text each."""
    count = sum(len(r.tokens) for r in results)
    return (
        rate(results),
        sum(r.uplink_payload_bits for r in results) / count,
        sum(r.rows or 0 for r in results) / count,
        sum(r.rounds for r in results) / count,
        sum(r.drafted for r in results) / count,
    )


def table(found: Iterable[Pair]) -> Table:
    """One row a cell."""
    out = Table(
        "step, draft, RTT, row ms", "tokens/s", "gain", "texts", "bits up", "rows", "forwards"
    )
    for one in found:
        costs = one.costs
        out.add_row(
            f"{costs.step_ms:g}, {costs.draft_ms:g}, {costs.rtt_ms:g}, {costs.row_ms:g}",
            *(
                f"{one.tokens_per_s[0]:.1f} {one.tokens_per_s[1]:.1f}",
                f"{one.gain:.3f} ± {one.error:.3f}",
            ),
            str(one.texts),
            *(f"{x[0]:.2f} {x[1]:.2f}" for x in (one.bits, one.rows, one.forwards)),
        )
    return out
