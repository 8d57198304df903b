"""The plot of ``bench.link``: modes side by side on each link, and what each link is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from draftlink.link.shaping import PROFILES


def explained(name: str) -> str:
    """A link with what it is: round trip, rate up, losses."""
    link = PROFILES[name]
    rate = f"{link.rate_up / 1e6:g} Mbit/s"
    loss = f"\n{link.loss:.1%} lost" if link.loss else ""
    return f"{name}\n{1e3 * link.mean_rtt_s:.0f} ms\n{rate}{loss}"


def plot(summaries: Sequence[dict[str, Any]], modes: Sequence[str], path: Path) -> None:
    """Tokens/s of each mode over the links, one panel for each pace and rule."""
    drawn(summaries, modes).savefig(path)


def drawn(summaries: Sequence[dict[str, Any]], modes: Sequence[str]) -> Any:
    """The figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = sorted({(cell["target_s"], cell["rule"]) for cell in summaries})
    height = (len(panels) + 1) // 2
    figure = Figure(figsize=(12, 4.5 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(height, min(2, len(panels)), squeeze=False)
    for axis, (pace, rule) in zip(axes.flat, panels, strict=False):
        cells = [c for c in summaries if (c["target_s"], c["rule"]) == (pace, rule)]
        cells.sort(key=lambda cell: PROFILES[cell["link"]].mean_rtt_s)
        names = [cell["link"] for cell in cells]
        for place, mode in enumerate(modes):
            # Bars: what lies between two links is no link.
            at = [i + 0.8 * ((place + 0.5) / len(modes) - 0.5) for i in range(len(cells))]
            rates = [cell["tokens_per_s"][mode] for cell in cells]
            axis.bar(at, rates, 0.8 / len(modes), label=mode)
        for i, cell in enumerate(cells):
            label = "ideal run-ahead" if i == 0 else None
            axis.hlines(cell["ideal"], i - 0.4, i + 0.4, "k", "dotted", label=label)
        axis.set_xticks(range(len(cells)), [explained(name) for name in names], fontsize=7)
        axis.set_title(f"{rule}, target paced at {1e3 * pace:.0f} ms")
        axis.set_ylim(bottom=0)
        axis.set_ylabel("tokens/s")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    handles, said = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, said, loc="outside upper center", ncols=len(said))
    return figure
