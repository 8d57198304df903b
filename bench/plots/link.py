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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = sorted({(cell["target_s"], cell["rule"]) for cell in summaries})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.5), squeeze=False)
    for axis, (pace, rule) in zip(axes[0], panels, strict=True):
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
    axes[0][0].set_ylabel("tokens/s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 0.92))
    figure.legend(handles, labels, loc="upper center", ncols=len(labels))
    figure.savefig(path)
    pyplot.close(figure)
