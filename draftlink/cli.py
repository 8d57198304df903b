"""The command line. Each command imports what it needs, so that a device needs no torch."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    help="Lossless distributed speculative decoding: draft on the device, verify at the base "
    "station.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

COLOURS = {"draft": "green", "correction": "yellow", "bonus": "cyan", "stream": "default"}

Json = Annotated[Path | None, typer.Option("--json", help="Write machine-readable results here.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Seed = Annotated[int | None, typer.Option(help="Makes the text reproducible.")]
RateUp = Annotated[str | None, typer.Option(help="instead of the profile's, such as 5M")]
RateDown = Annotated[str | None, typer.Option(help="instead of the profile's, such as 5M")]
Rtt = Annotated[str | None, typer.Option(help="instead of the profile's, such as 60ms")]
Threads = Annotated[int, typer.Option(help="Threads of the draft model.")]


def model_path(model: str) -> str:
    """``tinypair`` is the embedded target; anything else stands for itself."""
    if model == "tinypair":
        import tinypair

        return str(tinypair.TARGET)
    return model


@app.command(epilog="Example: draftlink export ./Qwen2.5-0.5B -o ./qwen-draft --precision int4")
def export(
    model: Annotated[
        str, typer.Argument(help="transformers folder or hub id; tinypair: its draft")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="bundle folder to write")],
    precision: Annotated[str, typer.Option(help="int8, int4 or fp32")] = "int8",
    graph: Annotated[
        str, typer.Option(help="shared: free rollback; portable: standard operators")
    ] = "shared",
    context: Annotated[int | None, typer.Option(help="tokens in the KV cache")] = None,
    text: Annotated[Path | None, typer.Option(help="text file to check on")] = None,
    json: Json = None,
) -> None:
    """Export a draft model to a checked, quantized ONNX bundle."""
    import tinypair
    from export.bundle import export_bundle

    if precision not in ("int8", "int4", "fp32"):
        raise typer.BadParameter(f"{precision!r} is not int8, int4 or fp32")
    if graph not in ("shared", "portable"):
        raise typer.BadParameter(f"{graph!r} is not shared or portable")
    source = str(tinypair.DRAFT) if model == "tinypair" else model
    with err.status("exporting") as status:
        bundle = export_bundle(
            source,
            output,
            precision,  # type: ignore[arg-type]
            graph=graph,  # type: ignore[arg-type]
            context=context,
            text=text,
            progress=status.update,
        )
    check = bundle.manifest.check
    assert check is not None
    size = sum(file.bytes for file in bundle.manifest.files.values())
    out.print(
        f"{output}: {precision}, {graph} graph, {size / 1e6:.1f} MB; against PyTorch over"
        f" {check.positions} positions: overlap {check.overlap:.4f}, top-1 agreement"
        f" {check.top1_agreement:.1%}, largest logit difference {check.max_logit_difference:.2g},"
        " rollback exact"
    )
    write_json(json, bundle.manifest)


@app.command(epilog="Example: draftlink bs tinypair --port 8765")
def bs(
    model: Annotated[str, typer.Argument(help="target: transformers folder, hub id, or tinypair")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8765,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
) -> None:
    """Run the base station: the target model behind a WebSocket."""
    from bs_runtime import server
    from bs_runtime.target import Target

    bound = server.listen(host, port)
    target = Target.load(model_path(model), device=device, dtype=dtype)
    print(f"listening on ws://{host}:{bound.getsockname()[1]} ({target.name})", flush=True)
    server.serve(target, bound)


@app.command(epilog='Example: draftlink device ./draft --bs ws://127.0.0.1:8765 "Once upon a time"')
def device(
    bundle: Annotated[Path, typer.Argument(help="draft bundle")],
    prompt: Annotated[str, typer.Argument(help="the text to go on from")],
    url: Annotated[str, typer.Option("--bs", help="base station")] = "ws://127.0.0.1:8765",
    mode: Annotated[str, typer.Option(help="stop-and-wait or stream")] = "stop-and-wait",
    scheme: Annotated[str, typer.Option(help="topk, dense, split or coupled")] = "topk",
    k: Annotated[int, typer.Option(help="topk, split: entries of a row, at most")] = 16,
    lattice: Annotated[int, typer.Option(help="topk, split: sum of a row's counts")] = 256,
    coding: Annotated[str, typer.Option(help="topk: lattice or fp16")] = "lattice",
    mass: Annotated[float, typer.Option(help="topk: as few entries as hold this mass")] = 1.0,
    learn_temperature: Annotated[
        bool, typer.Option("--learn-temperature", help="fit the draft's temperature to verdicts")
    ] = False,
    gamma: Annotated[int | None, typer.Option(help="draft length; measured if not given")] = None,
    temperature: Temperature = 0.8,
    top_k: Annotated[int, typer.Option(help="0 is off")] = 0,
    top_p: Annotated[float, typer.Option(help="1 is off")] = 1.0,
    max_tokens: Annotated[int, typer.Option()] = 128,
    stop: Annotated[list[str] | None, typer.Option(help="end before this text")] = None,
    seed: Seed = None,
    provider: Annotated[str, typer.Option(help="ONNX Runtime execution provider")] = "cpu",
    threads: Threads = 1,
    json: Json = None,
) -> None:
    """Generate a text on the device with a base station's help."""
    from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
    from draftlink.schemes import AnyScheme

    if mode not in ("stop-and-wait", "stream"):
        raise typer.BadParameter(f"{mode!r} is not stop-and-wait or stream")
    if coding not in ("lattice", "fp16"):
        raise typer.BadParameter(f"{coding!r} is not lattice or fp16")
    known: dict[str, AnyScheme] = {
        "topk": TopK(k, lattice, coding, mass),  # type: ignore[arg-type]
        "dense": Dense(),
        "split": Split(k, lattice),
        "coupled": Coupled(),
    }
    if scheme not in known:
        raise typer.BadParameter(f"{scheme!r} is not one of {', '.join(known)}")

    async def run() -> Any:
        async with Device(bundle, url, provider=provider, threads=threads) as opened:
            generation = opened.generate(
                prompt,
                max_tokens=max_tokens,
                sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
                scheme=known[scheme],
                mode=mode,  # type: ignore[arg-type]
                gamma=gamma,
                stop=tuple(stop or ()),
                seed=seed,
                learn_temperature=learn_temperature,
            )
            return await show(prompt, generation)

    result = asyncio.run(run())
    err.print(
        f"[dim]{result.tokens_per_s:.0f} tokens/s, {result.accepted} of {result.drafted} drafted"
        f" tokens accepted, {result.uplink_bytes} bytes up, {result.downlink_bytes} down[/dim]"
    )
    write_json(json, result)


@app.command(epilog='Example: draftlink demo --prompt "Once upon a time" --temperature 0.8')
def demo(
    prompt: Annotated[str, typer.Option(help="the text to go on from")] = (
        "One day, a little girl named Lily found a"
    ),
    temperature: Temperature = 0.8,
    max_tokens: Annotated[int, typer.Option()] = 128,
    seed: Seed = None,
    gamma: Annotated[int | None, typer.Option(help="draft length; measured if not given")] = None,
    bench: Annotated[bool, typer.Option("--bench", help="the 10 listed prompts, compared")] = False,
    json: Json = None,
) -> None:
    """Both sides on loopback with the embedded pair: text, then the numbers."""
    from draftlink import demo as loopback

    if bench:
        write_json(json, loopback.bench(out, err, gamma))
        return
    write_json(json, loopback.demo(out, err, prompt, temperature, max_tokens, seed, gamma))


@app.command(epilog="Example: draftlink compare --temperature 0.7 --plot schemes.png")
def compare(
    target: Annotated[str, typer.Option(help="transformers folder, hub id, or tinypair")] = (
        "tinypair"
    ),
    bundle: Annotated[Path | None, typer.Option(help="its draft; tinypair's own if none")] = None,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    prompts: Annotated[int, typer.Option(min=1, help="how many of the listed prompts")] = 10,
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="seeds per prompt")] = 1,
    gamma: Annotated[int, typer.Option(help="draft length")] = 4,
    k: Annotated[
        list[int] | None, typer.Option(help="K of topk, more than once for a sweep")
    ] = None,
    lattice: Annotated[list[int] | None, typer.Option(help="l of topk, likewise")] = None,
    plot: Annotated[Path | None, typer.Option(help="bits against acceptance, PNG or SVG")] = None,
    json: Json = None,
) -> None:
    """The schemes side by side on the same prompts: acceptance, bits, tokens/s."""
    from draftlink import compare as comparison
    from draftlink.demo import draft_bundle

    if bundle is None and target != "tinypair":
        raise typer.BadParameter("name the target's draft with --bundle")
    summary = comparison.compare(
        out,
        err,
        target=target,
        bundle=bundle or draft_bundle(err),
        prompts=comparison.listed_prompts(prompts),
        temperature=temperature,
        max_tokens=max_tokens,
        repeats=repeats,
        gamma=gamma,
        ks=k or (8, 16, 32, 64),
        totals=lattice or (256,),
        plot=plot,
    )
    write_json(json, summary)


@app.command(epilog="Example: draftlink plan --alpha 0.8 --t-draft 10ms --t-target 45ms --link lte")
def plan(
    alpha: Annotated[float, typer.Option(help="acceptance rate of a drafted token")] = 0.8,
    t_draft: Annotated[str, typer.Option(help="one draft forward")] = "10ms",
    t_target: Annotated[str, typer.Option(help="one target forward, one token")] = "45ms",
    t_verify: Annotated[str | None, typer.Option(help="over a block; as t-target")] = None,
    link: Annotated[str, typer.Option(help="link profile, see draftlink link")] = "wifi",
    rate_up: RateUp = None,
    rate_down: RateDown = None,
    rtt: Rtt = None,
    vocab: Annotated[int, typer.Option(help="vocabulary size V")] = 32_000,
    k: Annotated[int, typer.Option(help="entries of a row that are sent, at most")] = 16,
    lattice: Annotated[int, typer.Option(help="sum of a row's counts")] = 256,
    coding: Annotated[
        str, typer.Option(help="lattice, fp16, or paper (its bit count)")
    ] = "lattice",
    alpha_at: Annotated[
        list[str] | None, typer.Option(help="K=ALPHA, measured; K is chosen among these")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="the paper's speed-up figure")] = False,
    plot: Annotated[Path | None, typer.Option(help="write a .png or .svg")] = None,
    json: Json = None,
) -> None:
    """Draft length, K and expected speed of each mode at stated costs."""
    from draftlink import plan as planning
    from draftlink import plan_view as view
    from draftlink import units

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
    found = planning.make(
        planning.Setting(
            alpha,
            units.seconds(t_draft),
            units.seconds(t_target),
            units.seconds(t_verify or t_target),
            link_profile(link, rate_up, rate_down, rtt),
            vocab,
            k,
            lattice,
            coding,  # type: ignore[arg-type]
        ),
        measured,
    )
    out.print(view.mode_table(found))
    out.print(view.k_table(found))
    out.print(
        f"best: [bold]{found.best}[/bold]; K: {found.suggested_k}; {found.bits:.0f} payload bits"
        f" per drafted token; without round trip (the paper's formula) γ*"
        f" {found.gamma_without_rtt}, {found.speedup_without_rtt:.2f}x",
        highlight=False,
    )
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
    seed: Annotated[int, typer.Option(help="of jitter and losses")] = 0,
    json: Json = None,
) -> None:
    """A TCP proxy that behaves like a link: rate, delay, losses, outages."""
    from draftlink import proxy, shaping, units

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
        ready=lambda port: print(
            f"listening on {ends[0][0]}:{port} ({profile}, to {to})", flush=True
        ),
        problems=lambda line: err.print(escape(line), soft_wrap=True),
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
    from draftlink import shaping, units

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


async def show(prompt: str, generation: Any) -> Any:
    """Print a generation as it comes, coloured by who wrote each token; its result."""
    out.print(f"[dim]{escape(prompt)}[/dim]", end="", highlight=False)
    try:
        async for token in generation:
            colour = COLOURS[token.kind]
            out.print(f"[{colour}]{escape(token.text)}[/]", end="", highlight=False, soft_wrap=True)
    finally:
        out.print()
    return generation.result


def write_json(path: Path | None, value: Any) -> None:
    """Write a result to ``path``, where one is given."""
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def main() -> None:
    """Run a command: exit code 0, 1 (failed, one line that says what to do) or 2 (usage)."""
    # Both libraries talk on stderr by default; a command's own lines are the interface.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        err.print(f"[red]error:[/red] {escape(str(error) or type(error).__name__)}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
