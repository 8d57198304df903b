"""What speed costs: tokens/s against the base station's time and the drafts of a token.

Over the two prices: what a second of the base station's model is worth, in tokens (its tariff), and
what a drafted token must save (the device's ``draft_price``). Beside them the modes that are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.both import many
from bench.both.cells import FIXED, GAMMAS, Costs
from bench.plots import labels
from bench.virtual.record import Record
from device_runtime.result import Mode

COSTS = (Costs(20.0, 4.0, 15.0, row_ms=0.5), Costs(50.0, 4.0, 60.0, row_ms=1.0))
TARIFFS = (0.0, 3.0, 10.0, 20.0, 30.0)
PRICES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
# What speed is held against, of each token of a text, and how a panel calls it.
FIELDS = {
    "station_ms": "ms of the base station's model a token",
    "drafted": "drafted tokens a token",
}


@dataclass(frozen=True)
class Point:
    """A mode or a pair of prices; ``station_ms`` and ``drafted`` are of a token."""

    costs: Costs
    name: str
    tokens_per_s: float
    station_ms: float
    drafted: float


def points(records: Sequence[Record]) -> Iterator[Point]:
    """All of them, at each of ``COSTS``."""
    for costs in COSTS:
        for gamma in GAMMAS:
            yield _point(costs, records, f"γ = {gamma}", "stop-and-wait", gamma=gamma)
        for mode in FIXED:
            yield _point(costs, records, mode, mode)
        for tariff in TARIFFS:
            for price in PRICES:
                dear = replace(costs, tariff=tariff)
                yield _point(dear, records, f"auto {tariff:g}", "auto", draft_price=price)


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
    figure = drawn(found)
    figure.savefig(path)


def drawn(found: Sequence[Point]) -> Any:
    """The figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(one.costs for one in found))
    figure = Figure(figsize=(11, 4.4 * len(settings)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = []
    for row, costs in zip(figure.subplots(len(settings), 2, squeeze=False), settings, strict=True):
        ours = [one for one in found if one.costs == costs]
        panels += [(axis, ours, field) for axis, field in zip(row, FIELDS, strict=True)]
    for axis, ours, field in panels:
        _panel(axis, ours, field)
    told = ", ".join(map(str, PRICES))
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8,
        title=f"auto: a line is a tariff; along it a draft's price rises with the dots: {told}",
    )  # fmt: skip
    for axis, ours, field in panels:
        places = [(getattr(one, field), one.tokens_per_s) for one in ours]
        named = [(*place, one.name) for place, one in zip(places, ours, strict=True)]
        fixed = [each for each in named if not each[2].startswith("auto")]
        labels.beside(axis, fixed, places)
    return figure


def _panel(axis: Any, ours: Sequence[Point], field: str) -> None:
    """``auto`` as a line for each tariff, the fixed modes as triangles."""
    costs = ours[0].costs
    axis.set_title(
        f"step {costs.step_ms:g} ms, row {costs.row_ms:g}, draft {costs.draft_ms:g}, round trip"
        f" {costs.rtt_ms:g}"
    )
    axis.set(xlabel=FIELDS[field], ylabel="tokens/s")
    axis.margins(0.08)
    for name in dict.fromkeys(one.name for one in ours):
        points = [one for one in ours if one.name == name]
        xs, ys = [getattr(one, field) for one in points], [one.tokens_per_s for one in points]
        if not name.startswith("auto"):
            axis.plot(xs, ys, "k^", ms=6)
            continue
        (line,) = axis.plot(xs, ys, lw=1, label=f"tariff {name[5:]} tokens a second")
        sizes = [10 + 12 * at for at in range(len(xs))]
        axis.scatter(xs, ys, sizes, color=line.get_color(), zorder=2)
