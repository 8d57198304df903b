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
    k: Annotated[int, typer.Option(help="entries of a row that are sent, at most")] = 16,
    lattice: Annotated[int, typer.Option(help="sum of a row's counts")] = 256,
    coding: Annotated[str, typer.Option(help="lattice or fp16")] = "lattice",
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
    from device_runtime.device import Device, Sampling, TopK

    if mode not in ("stop-and-wait", "stream"):
        raise typer.BadParameter(f"{mode!r} is not stop-and-wait or stream")
    if coding not in ("lattice", "fp16"):
        raise typer.BadParameter(f"{coding!r} is not lattice or fp16")

    async def run() -> Any:
        async with Device(bundle, url, provider=provider, threads=threads) as opened:
            generation = opened.generate(
                prompt,
                max_tokens=max_tokens,
                sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
                scheme=TopK(k, lattice, coding),  # type: ignore[arg-type]
                mode=mode,  # type: ignore[arg-type]
                gamma=gamma,
                stop=tuple(stop or ()),
                seed=seed,
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
