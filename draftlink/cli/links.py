"""``plan`` and ``link``: what a link does to a generation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from draftlink.cli.common import (
    Json,
    Plot,
    RateDown,
    RateUp,
    Rtt,
    app,
    err,
    out,
    write_json,
)


@app.command(epilog="Example: draftlink plan --alpha 0.8 --t-draft 10ms --t-target 45ms --link lte")
def plan(
    alpha: Annotated[float, typer.Option(help="acceptance rate of a drafted token")] = 0.8,
    t_draft: Annotated[str, typer.Option(help="one draft forward")] = "10ms",
    t_target: Annotated[str, typer.Option(help="one target forward, one token")] = "45ms",
    t_verify: Annotated[str | None, typer.Option(help="over a block; as t-target")] = None,
    link: Annotated[
        str, typer.Option(help="link profile; draftlink link --help says what each is")
    ] = "wifi",
    rate_up: RateUp = None,
    rate_down: RateDown = None,
    rtt: Rtt = None,
    vocab: Annotated[int, typer.Option(help="vocabulary size V")] = 32_000,
    k: Annotated[
        int | None,
        typer.Option(help="entries of a row, at most; chosen if not given"),
    ] = None,
    lattice: Annotated[int, typer.Option(help="sum of a row's counts")] = 256,
    coding: Annotated[
        str, typer.Option(help="lattice, fp16, or paper (its bit count)")
    ] = "lattice",
    alpha_at: Annotated[
        list[str] | None, typer.Option(help="K=ALPHA, measured; instead of --k and --alpha")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="the paper's speed-up figure")] = False,
    plot: Plot = None,
    json: Json = None,
) -> None:
    """Draft length, K and expected speed of each mode at stated costs."""
    from draftlink.cli import plan_view as view
    from draftlink.planning import plan as planning
    from draftlink.planning import units

    if paper:
        rows = planning.paper_figure(alpha, lattice)
        out.print(view.paper_table(rows, alpha))
        if plot is not None:
            view.plot_paper(rows, alpha, plot)
        write_json(json, rows)
        return
    if coding not in ("lattice", "fp16", "paper"):
        raise typer.BadParameter(f"{coding!r} is not lattice, fp16 or paper")
    measured = {}
    for each in alpha_at or ():
        try:
            entries, value = each.split("=")
            measured[int(entries)] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{each!r} is not K=ALPHA, such as 16=0.8") from None
    setting = planning.Setting(
        alpha,
        units.seconds(t_draft),
        units.seconds(t_target),
        units.seconds(t_verify or t_target),
        link_profile(link, rate_up, rate_down, rtt),
        vocab,
        1 if k is None else k,
        lattice,
        coding,  # type: ignore[arg-type]
    )
    make = planning.make_at_best if k is None else planning.make
    found = make(setting, measured)
    out.print(view.mode_table(found))
    out.print(view.k_table(found))
    out.print(view.answer(found), highlight=False)
    if plot is not None:
        view.plot_plan(found, plot)
    write_json(json, found)


@app.command(
    epilog="Example: draftlink link lte --listen 127.0.0.1:9000 --to 127.0.0.1:8765 --outage 20-25"
)
def link(
    profile: Annotated[
        str, typer.Argument(help="wifi, lte, 5g, satellite, uav_los, uav_nlos or paper")
    ],
    to: Annotated[str, typer.Option(help="HOST:PORT of the base station")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one")] = "127.0.0.1:0",
    rate_up: RateUp = None,
    rate_down: RateDown = None,
    rtt: Rtt = None,
    jitter: Annotated[str | None, typer.Option(help="mean extra delay each way")] = None,
    loss: Annotated[float | None, typer.Option(help="share of segments lost each way")] = None,
    stall: Annotated[str | None, typer.Option(help="what a loss costs; RTT + 200ms")] = None,
    outage: Annotated[list[str] | None, typer.Option(help="START-END in s, repeatable")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="CSV: time_s,rate or time_s,rate_up,rate_down (bit/s)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of jitter and losses", rich_help_panel="Link")] = 0,
    json: Json = None,
) -> None:
    """A TCP proxy that behaves like a link: rate, delay, losses, outages.

    The profiles, with rate, round trip and lost segments: wifi 50 Mbit/s 5 ms; lte 5 Mbit/s 60 ms
    2%; 5g 50 Mbit/s 15 ms 0.5%; satellite 5 Mbit/s 300 ms; uav_los 20 Mbit/s 10 ms 1%; uav_nlos
    5 Mbit/s 50 ms 3%; paper 50 Mbit/s 0 ms. Each may be changed by the options.
    """
    from draftlink.link import proxy, shaping
    from draftlink.planning import units

    outages = []
    for each in outage or ():
        try:
            start, end = each.split("-")
            outages.append((float(start), float(end)))
        except ValueError:
            raise typer.BadParameter(f"{each!r} is not START-END, such as 20-25") from None
    shaped = shaping.make_link(
        link_profile(profile, rate_up, rate_down, rtt, jitter, loss),
        outages=outages,
        trace=None if trace is None else shaping.read_trace(trace.read_text()),
        stall_s=None if stall is None else units.seconds(stall),
        seed=seed,
    )
    ends = host_and_port(listen), host_and_port(to)
    totals = proxy.serve(
        shaped,
        *ends,
        ready=lambda port: out.say(f"listening on {ends[0][0]}:{port} ({profile}, to {to})"),
        problems=err.say,
    )
    out.print(
        f"{totals.connections} connections, {totals.uplink_bytes} bytes up,"
        f" {totals.downlink_bytes} down"
    )
    write_json(json, totals)


def link_profile(
    name: str,
    rate_up: str | None,
    rate_down: str | None,
    rtt: str | None,
    jitter: str | None = None,
    loss: float | None = None,
) -> Any:
    """The named link profile, with what the command line changes of it."""
    from draftlink.link import shaping
    from draftlink.planning import units

    return shaping.adjusted(
        shaping.profile(name),
        rate_up=None if rate_up is None else units.bits_per_s(rate_up),
        rate_down=None if rate_down is None else units.bits_per_s(rate_down),
        rtt_s=None if rtt is None else units.seconds(rtt),
        jitter_s=None if jitter is None else units.seconds(jitter),
        loss=loss,
    )


def host_and_port(text: str) -> tuple[str, int]:
    """``HOST:PORT``, an IPv6 host in brackets. Raises a usage error for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)
