"""What speed costs: tokens/s against the base station's time and the drafts of a token.

Over the two prices: what a second of the base station's model is worth, in tokens (its tariff), and
what a drafted token must save (the device's ``draft_price``); with a candidate beside each token,
and without. Beside them the modes that are fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.both import leaves, many
from bench.both.cells import FIXED, GAMMAS, Costs
from bench.virtual.record import Record
from device_runtime.result import Mode

COSTS = (Costs(20.0, 4.0, 15.0, row_ms=0.5), Costs(50.0, 4.0, 60.0, row_ms=1.0))
TARIFFS = (0.0, 3.0, 10.0, 20.0, 30.0)
AUTO, LEAVES = "auto, tariff ", "with candidates, tariff "
PRICES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Point:
    """A mode or a pair of prices; ``station_ms`` and ``drafted`` are of a token."""

    costs: Costs
    name: str
    tokens_per_s: float
    station_ms: float
    drafted: float


def points(records: Sequence[Record]) -> Iterator[Point]:
    """All of them, at each of ``COSTS``; of records that have second candidates."""
    for costs in COSTS:
        for gamma in GAMMAS:
            yield _point(costs, records, f"γ = {gamma}", "stop-and-wait", gamma=gamma)
        for mode in FIXED:
            yield _point(costs, records, mode, mode)
        for most, tariff, price in itertools.product((0, 1), TARIFFS, PRICES):
            dear = replace(costs, tariff=tariff)
            name = f"{LEAVES if most else AUTO}{tariff:g}"
            with leaves.at_most(most):
                yield _point(dear, records, name, "auto", draft_price=price)


def _point(costs: Costs, records: Sequence[Record], name: str, mode: Mode, **options: Any) -> Point:
    loads = [many.play(costs, [one], mode, rtts_ms=(costs.rtt_ms,), **options) for one in records]
    count = len(loads)
    seconds = sum(1.0 / load.tokens_per_s for load in loads) / count
    forwards = sum(load.forwards for load in loads) / count
    rows = sum(load.rows for load in loads) / count
    station_ms = forwards * costs.step_ms + (rows - forwards) * costs.row_ms
    return Point(
        replace(costs, tariff=0.0), name, 1.0 / seconds, station_ms,
        sum(load.drafted for load in loads) / count,
    )  # fmt: skip


def plot(found: Sequence[Point], path: Path) -> None:
    """A row of panels for each of ``COSTS``: against the base station's time, and the drafts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(COSTS), 2, figsize=(11, 4.2 * len(COSTS)), squeeze=False)
    for row, costs in zip(axes, COSTS, strict=True):
        for axis, field in zip(row, ("station_ms", "drafted"), strict=True):
            names = dict.fromkeys(one.name for one in found)
            for name in names:
                ours = [one for one in found if one.costs == costs and one.name == name]
                xs = [getattr(one, field) for one in ours]
                ys = [one.tokens_per_s for one in ours]
                line = name.startswith((AUTO, LEAVES))
                shape = "o-" if name.startswith(AUTO) else "s--" if line else "k^"
                color = f"C{TARIFFS.index(float(name.split()[-1]))}" if line else None
                axis.plot(xs, ys, shape, ms=4 if line else 6, color=color,
                          label=name if line else None)  # fmt: skip
                if not line:
                    axis.annotate(name, (xs[0], ys[0]), fontsize=7, xytext=(3, 3),
                                  textcoords="offset points")  # fmt: skip
            axis.set_title(
                f"step {costs.step_ms:g} ms, row {costs.row_ms:g}, draft {costs.draft_ms:g},"
                f" RTT {costs.rtt_ms:g}"
            )
            axis.set_ylabel("tokens/s")
        row[0].set_xlabel("base station ms a token")
        row[1].set_xlabel("drafted tokens a token")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
