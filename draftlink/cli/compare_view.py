"""What ``draftlink compare`` shows: a table, and a plot of bits against acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from draftlink.cli import plan_view

MARKERS = "osD^v<>PX*ph"


class Row(msgspec.Struct):
    """One scheme's numbers; bits are counted in full, packets under TLS included."""

    name: str
    acceptance: float  # alpha: of what was judged, what equals the text
    expected: float | None  # acceptance, Σ min(p, q̂), on the streamed texts; None for coupled
    bound: float  # Σ min(p, q) there: what no single draft can exceed
    tokens_per_round: float
    draft_share: float  # of the text, what drafts wrote
    forwards_per_token: float  # of the target
    drafted_per_token: float
    payload_bits_per_drafted: float
    bits_up_per_accepted: float
    bits_down_per_accepted: float
    websocket_bits_up_per_accepted: float
    share_of_full_row: float  # payload bits per drafted token over 16 V
    tokens_per_s: float
    draft_temperature: float
    # Of coupled: how often the text's token is at least among 1, 2, 3, 4 candidates.
    candidates: tuple[float, ...] = ()


def table(rows: Sequence[Row], temperature: float) -> Table:
    """A line for each scheme."""
    table = Table(title=f"temperature {temperature:g}; bits with TCP/IP and TLS, estimated")
    for column in (
        "",
        "acceptance",
        "Σ min(p,q̂)",
        "bound Σ min(p,q)",
        "2, 3, 4 candidates, at least",
        "tokens a round",
        "by drafts",
        "forwards a token",
        "drafted a token",
        "payload bits per drafted",
        "bits up per accepted",
        "bits down",
        "share of a row",
        "tokens/s",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        drafts = row.payload_bits_per_drafted > 0
        table.add_row(
            row.name,
            f"{row.acceptance:.3f}" if drafts else "",
            f"{row.expected:.4f}" if row.expected is not None else "",
            f"{row.bound:.4f}" if drafts else "",
            " ".join(f"{share:.3f}" for share in row.candidates[1:]),
            f"{row.tokens_per_round:.2f}" if drafts else "",
            f"{row.draft_share:.0%}" if drafts else "",
            f"{row.forwards_per_token:.2f}",
            f"{row.drafted_per_token:.2f}" if drafts else "",
            f"{row.payload_bits_per_drafted:,.1f}" if drafts else "",
            f"{row.bits_up_per_accepted:,.0f}",
            f"{row.bits_down_per_accepted:,.0f}",
            f"1/{1 / row.share_of_full_row:,.0f}" if drafts else "",
            f"{row.tokens_per_s:.0f}",
        )
    return table


def plot(rows: Sequence[Row], path: Path, temperature: float) -> None:
    """Bits against acceptance, as PNG or SVG by the file's ending. Raises FileError."""
    figure = plan_view.new_figure(5.5)
    axes = figure.subplots()
    shown = [row for row in rows if row.payload_bits_per_drafted > 0]
    for number, row in enumerate(shown):
        # Names beside the points would lie on one another: they stand in a legend.
        marker, colour = MARKERS[number % len(MARKERS)], f"C{number % 10}"
        axes.scatter(
            row.bits_up_per_accepted, row.acceptance, s=45, label=row.name, marker=marker, c=colour
        )
    axes.set_xscale("log")
    axes.set_xlabel("bits up per accepted token (TCP/IP and TLS included)")
    axes.set_ylabel("acceptance")
    axes.set_title(f"temperature {temperature:g}")
    axes.grid(alpha=0.3)
    if shown:
        figure.legend(loc="outside right center", fontsize=7)
    plan_view.save(figure, path)
