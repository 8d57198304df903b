"""Plans as tables and plots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from draftlink.host import files
from draftlink.planning import plan as planning
from draftlink.planning import theory
from draftlink.planning.plan import PaperRow, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"stop-and-wait": "C0", "run-ahead": "C1", "stream": "C2"}
STYLES = {"paper": "-", "fp16": "--", "lattice": ":"}
COUNTS = {
    "paper": "K×16 (as the paper counts)",
    "fp16": "counted in full, fixed width",
    "lattice": "lattice, at most ℓ entries",
}


def mode_table(plan: Plan) -> Table:
    """The three modes side by side."""
    title = f"expected speed at K = {plan.setting.k}, α = {plan.setting.alpha:g}"
    table = Table(title=f"{title}; run-ahead: the bound, nothing queued at the verifier")
    for name in ("mode", "γ or window", "tokens/round", "ms/token", "tokens/s", "÷ stream"):
        table.add_column(name, justify="left" if name == "mode" else "right")
    for mode in plan.modes:
        table.add_row(
            mode.mode,
            "" if mode.gamma is None else str(mode.gamma),
            "" if mode.tokens_per_round is None else f"{mode.tokens_per_round:.2f}",
            f"{1e3 * mode.time_per_token_s:.2f}",
            f"{mode.tokens_per_s:.1f}",
            f"{mode.speedup:.2f}x",
            style="bold" if mode.mode == plan.best else "",
        )
    return table


def answer(plan: Plan) -> str:
    """What to do, in a line of markup: all of it about the plan's own K, the tables' too."""
    k, most = plan.setting.k, plan.suggested_k
    other = "" if k == most else f" (suggested: {most}, {_bits(plan, most):.0f} bits)"
    return (
        f"best: [bold]{plan.best}[/bold]; K: {k}; {plan.bits:.0f} payload bits per drafted"
        f" token{other}; without round trip (the paper's formula) γ* {plan.gamma_without_rtt},"
        f" {plan.speedup_without_rtt:.2f}x"
    )


def _bits(plan: Plan, k: int) -> float:
    return next(row.bits for row in plan.ks if row.k == k)


def k_table(plan: Plan) -> Table:
    """What each K costs."""
    table = Table(title=f"K, {plan.setting.coding} coding, V = {plan.setting.vocab_size}")
    names = ("K", "bits", "uplink ms", "α", "γ*", "wait tok/s", "ahead tok/s", "α to repay")
    for name in names:
        table.add_column(name, justify="right")
    for k in plan.ks:
        table.add_row(
            str(k.k),
            f"{k.bits:.0f}",
            f"{1e3 * k.uplink_s:.3f}",
            f"{k.alpha:.3f}",
            str(k.gamma),
            f"{k.stop_and_wait_tokens_per_s:.1f}",
            f"{k.run_ahead_tokens_per_s:.1f}",
            "none" if k.alpha_to_repay is None else f"{k.alpha_to_repay:.4f}",
            style="bold" if k.k == plan.suggested_k else "",
        )
    return table


def paper_table(rows: list[PaperRow], alpha: float) -> Table:
    """The paper's figure in numbers: L, γ* and S(γ*), for each way of counting bits."""
    table = Table(title=f"TK-SLT's speed-up at α = {alpha:g}: no round trip, 50 Mbit/s, V = 32000")
    for name in ("K", "counted", "bits", "L", "γ*", "S(γ*)"):
        table.add_column(name, justify="left" if name == "counted" else "right")
    for row in rows:
        table.add_row(
            str(row.k),
            COUNTS[row.coding],
            f"{row.bits:.0f}",
            f"{row.cost_ratio:.4f}",
            str(row.gamma),
            f"{row.speedup:.3f}",
            end_section=row.coding == "lattice",
        )
    return table


def plot_plan(plan: Plan, path: Path) -> None:
    """Tokens/s over the round trip and over the draft length. Raises FileError."""
    figure = new_figure()
    left, right = figure.subplots(1, 2)
    setting, costs = plan.setting, plan.costs
    most_s = max(0.1, 2.0 * costs.rtt_s)
    trips = [most_s * i / 200 for i in range(201)]
    found = [planning.modes(setting.alpha, replace(costs, rtt_s=trip)) for trip in trips]
    for i, (mode, colour) in enumerate(COLOURS.items()):
        rates = [modes[i].tokens_per_s for modes in found]
        left.plot([1e3 * trip for trip in trips], rates, color=colour, label=mode)
    lost = " lost" if setting.link.loss else ""
    said = f"this link: {setting.link}{lost}, {1e3 * costs.rtt_s:.0f} ms with all delays"
    left.axvline(1e3 * costs.rtt_s, color="grey", linewidth=0.8, linestyle=":", label=said)
    left.set(xlabel="round trip, ms", ylabel="tokens/s", ylim=(0, None), title="each at its best")
    wait, ahead, stream = plan.modes
    assert wait.gamma is not None
    lengths = range(1, max(16, 2 * wait.gamma) + 1)
    rates = [1.0 / theory.stop_and_wait_time(setting.alpha, g, costs) for g in lengths]
    right.plot(lengths, rates, color=COLOURS["stop-and-wait"], marker=".")
    for level in (ahead, stream):
        right.axhline(level.tokens_per_s, color=COLOURS[level.mode])
    whole_numbers(right)
    right.set(xlabel="draft length γ", ylim=(0, None), title="at the stated costs")
    left.legend(fontsize="small", loc="lower right")
    save(figure, path)


def plot_paper(rows: list[PaperRow], alpha: float, path: Path) -> None:
    """S(γ), a colour for each K, a line style for each way of counting bits. Raises FileError."""
    figure = new_figure()
    axes = figure.subplots()
    colours = {k: f"C{i}" for i, k in enumerate(planning.PAPER_KS)}
    for row in rows:
        label = f"K = {row.k}" if row.coding == "paper" else None
        lengths = range(1, len(row.speedups) + 1)
        axes.plot(lengths, row.speedups, STYLES[row.coding], color=colours[row.k], label=label)
    for coding, style in STYLES.items():
        axes.plot([], [], style, color="grey", label=COUNTS[coding])
    axes.axhline(1.0, color="grey", linewidth=0.8)
    whole_numbers(axes)
    axes.set(xlabel="draft length γ", ylabel="S(γ)", title=f"α = {alpha:g}, no round trip")
    axes.legend(fontsize="small", loc="lower left")
    save(figure, path)


def new_figure(height: float = 4.5) -> Figure:
    """An empty figure that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(9, height), layout="constrained")


def whole_numbers(axes: Axes) -> None:
    """Ticks of a draft length."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def save(figure: Figure, path: Path) -> None:
    """Write the figure, in the form that the ending names. Raises FileError."""
    with files.whole(path) as partial:
        figure.savefig(partial, dpi=150)
