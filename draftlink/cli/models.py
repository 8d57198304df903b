"""``export``, ``bs`` and ``device``: one side each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from draftlink.cli import common
from draftlink.cli.common import (
    AsTarget,
    Json,
    PaceDraft,
    PaceTarget,
    Seed,
    Threads,
    app,
    err,
    hold,
    model_path,
    out,
    write_json,
)
from draftlink.cli.output import show
from draftlink.host.folders import user_path


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
    target: Annotated[
        str | None, typer.Option(help="model to draft for: its tokenizer must be the same")
    ] = None,
    npu: Annotated[
        bool, typer.Option("--npu", help="static shapes, int8 QDQ; needs --calibrate")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="--npu: text file that value ranges are measured on")
    ] = None,
    json: Json = None,
) -> None:
    """Export a draft model to a checked, quantized ONNX bundle."""
    import tinypair
    from export.bundle import export_bundle

    if precision not in ("int8", "int4", "fp32"):
        raise typer.BadParameter(f"{precision!r} is not int8, int4 or fp32")
    if graph not in ("shared", "portable"):
        raise typer.BadParameter(f"{graph!r} is not shared or portable")
    if npu and (graph, precision) != ("shared", "int8"):
        raise typer.BadParameter("--npu has its own graph, in int8; leave --graph and --precision")
    if npu != (calibrate is not None):
        raise typer.BadParameter("--npu and --calibrate FILE go together")
    source = str(tinypair.DRAFT) if model == "tinypair" else model
    with err.status("exporting") as status:
        bundle = export_bundle(
            source,
            output,
            precision,  # type: ignore[arg-type]
            graph="static" if npu else graph,  # type: ignore[arg-type]
            context=context,
            text=text,
            calibrate=calibrate,
            target=None if target is None else model_path(target),
            progress=lambda step: status.update(Text(step)),
        )
    check = bundle.manifest.check
    assert check is not None
    size = sum(file.bytes for file in bundle.manifest.files.values())
    out.print(
        f"{output}: {precision}, {bundle.manifest.graph} graph, {size / 1e6:.1f} MB; against"
        f" PyTorch over {check.positions} positions: overlap {check.overlap:.4f}, top-1 agreement"
        f" {check.top1_agreement:.1%}, largest logit difference {check.max_logit_difference:.2g},"
        " rollback exact",
        soft_wrap=True,
        markup=False,  # the path is the user's
        emoji=False,
    )
    write_json(json, bundle.manifest)


@app.command(epilog="Example: draftlink bs tinypair --port 8765")
def bs(
    model: Annotated[str, typer.Argument(help="target: transformers folder, hub id, or tinypair")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8765,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    ticket_key: Annotated[
        Path | None,
        typer.Option(
            help="File with the key that seals devices' tickets, made if it is not there; with it"
            " they go on where they were after a restart. By default in the state directory."
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="file of bearer tokens, `TOKEN [NAME] [operator] [limit=value ...]`"),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="certificate chain, PEM")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its key, PEM")] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="listen beyond this machine without tokens, or without TLS (a proxy has it)",
        ),
    ] = False,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            help="a name that devices and browsers call it by, beside --host and addresses: others"
            " are refused where there are no --tokens; repeatable"
        ),
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="devices at once")] = 256,
    kv_bytes: Annotated[
        str | None,
        typer.Option(
            help="memory for KV caches, such as 4GiB; conversations that find no room are prefilled"
            " anew. By default half of what is free once the model is loaded (CUDA: 3/4)"
        ),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="of a token, such as tokens_per_s=500; repeatable")
    ] = None,
    log_format: Annotated[str, typer.Option(help="text or json, on stderr")] = "text",
    log_level: Annotated[str, typer.Option(help="info or warning")] = "info",
    threads: Threads = None,
    stop_s: Annotated[
        float, typer.Option(min=0, help="seconds that rounds in flight get when it is stopped")
    ] = 10.0,
    pace_target: PaceTarget = None,
) -> None:
    """Run the base station: the target model behind a WebSocket. docs/operating.md says more."""
    from bs_runtime.engine.slots import Slots
    from bs_runtime.model.target import Target
    from bs_runtime.operations import limits, logs
    from bs_runtime.serving import auth, listener, server
    from bs_runtime.serving.app import create_app
    from bs_runtime.serving.tickets import Sealer
    from draftlink.planning import units

    if log_format not in ("text", "json"):
        raise typer.BadParameter(f"{log_format!r} is not text or json")
    if log_level not in ("info", "warning"):
        raise typer.BadParameter(f"{log_level!r} is not info or warning")
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    tls = None if tls_cert is None or tls_key is None else server.tls_context(tls_cert, tls_key)
    server.check_exposure(host, tokens=tokens is not None, tls=tls is not None, insecure=insecure)
    allowed = (limits.OPEN if tokens is None else limits.Limits()).with_(limit or [])
    known = None if tokens is None else auth.load_tokens(tokens, allowed)
    logs.setup(log_format, log_level)  # type: ignore[arg-type]
    kept = user_path("XDG_STATE_HOME", ".local/state", "ticket.key")
    sealer = Sealer.by_default(kept) if ticket_key is None else Sealer.from_file(ticket_key)
    bound = listener.listen(host, port)
    station = create_app(
        sealer=sealer,
        tokens=known,
        limits=allowed,
        sessions=sessions,
        slots=None if kv_bytes is None else Slots(units.memory(kv_bytes)),
        threads=threads,
        names=(host, *(host_name or ())),
    )

    def load() -> Target:
        target = Target.load(model_path(model), device=device, dtype=dtype)
        hold(target, pace_target)
        return target

    def announce(target: Target) -> None:
        where = f"[{host}]" if ":" in host else host
        address = f"{'ws' if tls is None else 'wss'}://{where}:{bound.getsockname()[1]}"
        print(f"listening on {address} ({target.name})", flush=True)

    server.serve(station, load, announce, bound, tls=tls, stop_s=stop_s)


@app.command(epilog='Example: draftlink device ./draft --bs ws://127.0.0.1:8765 "Once upon a time"')
def device(
    bundle: Annotated[Path, typer.Argument(help="draft bundle")],
    prompt: Annotated[str, typer.Argument(help="the text to go on from", callback=common.utf8)],
    url: Annotated[str, typer.Option("--bs", help="base station")] = "ws://127.0.0.1:8765",
    mode: Annotated[str, typer.Option(help="stop-and-wait, run-ahead, stream or auto")] = "auto",
    scheme: Annotated[str, typer.Option(help="topk, dense, split or coupled")] = "topk",
    k: Annotated[int | None, typer.Option(help="topk, split: entries of a row, at most")] = None,
    lattice: Annotated[int | None, typer.Option(help="topk, split: sum of a row's counts")] = None,
    tiers: Annotated[
        int | None, typer.Option(help="topk: nested rows, at most; 1 cuts off")
    ] = None,
    coding: Annotated[str, typer.Option(help="topk: lattice or fp16")] = "lattice",
    mass: Annotated[float, typer.Option(help="topk: as few entries as hold this mass")] = 1.0,
    learn_temperature: Annotated[
        bool, typer.Option("--learn-temperature", help="fit the draft's temperature to verdicts")
    ] = False,
    gamma: Annotated[int | None, typer.Option(help="draft length; measured if not given")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; 0.8 if not given")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off, as if not given")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off, as if not given")] = None,
    sampling: AsTarget = None,
    max_tokens: Annotated[int, typer.Option()] = 128,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="go on behind the target's end of a text")
    ] = False,
    stop: Annotated[
        list[str] | None, typer.Option(help="end before this text", callback=common.texts)
    ] = None,
    seed: Seed = None,
    offline_after: Annotated[
        str | None,
        typer.Option(
            help="after so long without a word from the base station show what the draft alone"
            " would write, until it is checked; such as 2s"
        ),
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="DRAFTLINK_TOKEN", help="bearer token, if it wants one")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="wss: certificates to trust instead of the system's, PEM")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="send the token in clear over ws:// (a VPN encrypts)"),
    ] = False,
    provider: Annotated[str, typer.Option(help="ONNX Runtime execution provider")] = "cpu",
    threads: Threads = None,
    pace_draft: PaceDraft = None,
    json: Json = None,
) -> None:
    """Generate a text on the device with a base station's help."""
    from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
    from device_runtime.result import MODES
    from draftlink.planning import units
    from draftlink.schemes import AnyScheme

    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is not one of {', '.join(MODES)}")
    if coding not in ("lattice", "fp16"):
        raise typer.BadParameter(f"{coding!r} is not lattice or fp16")
    given = {name: v for name, v in (("k", k), ("total", lattice)) if v is not None}
    nested = {} if tiers is None else {"tiers": tiers}
    known: dict[str, AnyScheme] = {
        "topk": TopK(coding=coding, mass=mass, **given, **nested),  # type: ignore[arg-type]
        "dense": Dense(),
        "split": Split(**given),
        "coupled": Coupled(),
    }
    if scheme not in known:
        raise typer.BadParameter(f"{scheme!r} is not one of {', '.join(known)}")

    async def run() -> Any:
        opened = Device(
            bundle,
            url,
            provider=provider,
            threads=threads,
            token=token,
            ca=ca,
            insecure=insecure,
        )
        hold(opened.model, pace_draft)
        async with opened:
            generation = opened.generate(
                prompt,
                max_tokens=max_tokens,
                sampling=common.sampling(
                    opened.client.welcome,
                    sampling,
                    {"temperature": temperature, "top_k": top_k, "top_p": top_p},
                    Sampling(temperature=0.8),
                ),
                eos_ids=() if ignore_eos else None,
                scheme=known[scheme],
                mode=mode,
                gamma=gamma,
                stop=tuple(stop or ()),
                seed=seed,
                learn_temperature=learn_temperature,
                offline_after_s=None if offline_after is None else units.seconds(offline_after),
            )
            return await show(prompt, generation)

    result = asyncio.run(run())
    err.print(
        f"[dim]{result.tokens_per_s:.0f} tokens/s, {result.accepted} of {result.drafted} drafted"
        f" tokens accepted, {result.uplink_bytes} bytes up, {result.downlink_bytes} down[/dim]"
    )
    write_json(json, result)
