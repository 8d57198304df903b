"""``draftlink bs``: the base station."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from draftlink.cli import values
from draftlink.cli.common import (
    PaceTarget,
    Threads,
    app,
    asked,
    err,
    hold,
    model_path,
    out,
)
from draftlink.cli.models import cached
from draftlink.host.folders import user_path
from draftlink.host.plain import printable

log = logging.getLogger("draftlink.bs")


@app.command(epilog="Example: draftlink bs tinypair --port 8765")
def bs(
    model: Annotated[
        str, typer.Argument(help="target: transformers folder, GGUF file, hub id, or tinypair")
    ],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8765,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, bfloat16, float16, or auto: on a GPU the checkpoint's own, on a CPU"
            " float32 where it fits"
        ),
    ] = "auto",
    context: Annotated[
        int | None,
        typer.Option(min=1, help="tokens of the longest history, where less than the model's"),
    ] = None,
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
    self_signed: Annotated[
        bool,
        typer.Option(
            "--self-signed",
            help="TLS with a certificate of its own; its key is kept, and devices pin it",
        ),
    ] = False,
    qr: Annotated[
        bool,
        typer.Option(
            "--qr", help="show a code that a phone joins by: it has a token of its own, kept"
        ),
    ] = False,
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
            " anew. By default half of what is free once the model is loaded (CUDA: 3/4)",
            callback=values.memory,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="of a token, such as tokens_per_s=500; repeatable")
    ] = None,
    log_format: Annotated[
        str, typer.Option(help="text or json, on stderr", callback=values.one_of("text", "json"))
    ] = "text",
    log_level: Annotated[
        str, typer.Option(help="info or warning", callback=values.one_of("info", "warning"))
    ] = "info",
    threads: Threads = None,
    tariff: Annotated[
        float,
        typer.Option(
            min=0,
            help="tokens that a second of the model is worth, where both ends write: above 0 a"
            " step waits longer for what a device drafts",
        ),
    ] = 0.0,
    look_up: Annotated[
        bool,
        typer.Option(
            help="look up in prompt and text what may come next, and check it in the same step"
        ),
    ] = True,
    stop_s: Annotated[
        float, typer.Option(min=0, help="seconds that rounds in flight get when it is stopped")
    ] = 10.0,
    offer: Annotated[
        Path | None,
        typer.Option(
            help="draft bundle that devices may take from here, by `draftlink pull URL`",
            callback=cached,
        ),
    ] = None,
    pace_target: PaceTarget = None,
) -> None:
    """Run the base station: the target model behind a WebSocket. docs/operating.md says more."""
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    if self_signed and tls_cert is not None:
        raise typer.BadParameter("--self-signed and --tls-cert are both given; leave one")
    if err.is_terminal:  # what the hub sends, and what is read, take minutes
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"
    source = asked(model_path(model))
    from bs_runtime.engine.slots import Slots
    from bs_runtime.model.target import Target
    from bs_runtime.operations import certificate, limits, logs
    from bs_runtime.serving import auth, listener, server
    from bs_runtime.serving import join as joining
    from bs_runtime.serving.app import create_app
    from bs_runtime.serving.offer import Offered
    from bs_runtime.serving.tickets import Sealer
    from draftlink.host.address import reached_at
    from draftlink.planning import units

    names, seen = (host, *(host_name or ())), reached_at(host)
    if self_signed:
        folder = _state(certificate.CERTIFICATE).parent
        tls_cert, tls_key = certificate.own(folder, (seen, *names))
    tls = None if tls_cert is None or tls_key is None else server.tls_context(tls_cert, tls_key)
    server.check_exposure(
        host, tokens=qr or tokens is not None, tls=tls is not None, insecure=insecure
    )
    allowed = (limits.Limits() if qr or tokens else limits.OPEN).with_(limit or [])
    known = None if tokens is None else auth.load_tokens(tokens, allowed)
    pin = None if tls_cert is None else certificate.pin(tls_cert)
    logs.setup(log_format, log_level)  # type: ignore[arg-type]
    kept = user_path("XDG_STATE_HOME", ".local/state", "ticket.key")
    sealer = Sealer.by_default(kept) if ticket_key is None else Sealer.from_file(ticket_key)
    offered = None if offer is None else Offered(offer)
    bound = listener.listen(host, port)
    port, s = bound.getsockname()[1], "" if tls is None else "s"
    invited = None
    if qr:
        own = joining.token(_state(joining.TOKEN))
        known = auth.joined(own, allowed, known)
        called = host_name[0] if host_name else seen
        invited = joining.invite(f"ws{s}://{called}:{port}", own, pin)
    station = create_app(
        sealer=sealer,
        tokens=known,
        limits=allowed,
        sessions=sessions,
        slots=None if kv_bytes is None else Slots(units.memory(kv_bytes)),
        threads=threads,
        tariff=tariff,
        look_up=look_up,
        names=names,
        offer=offered,
        join=invited,
        pin=pin,
    )

    def load() -> Target:
        log.info("loading %s (%s, %s)", printable(model), device, dtype)
        target = Target.load(source, device=device, dtype=dtype, context=context)
        if offered is not None:
            offered.check(target.tokenizer_hash)
        if pace_target is not None:
            hold(target, pace_target)
            target.time()
        return target

    def announce(target: Target) -> None:
        where = f"[{host}]" if ":" in host else host
        out.say(f"listening on ws{s}://{where}:{port} ({printable(target.name)})")
        out.say(f"  live page: http{s}://{seen}:{port}/")
        token = () if known is None else ("DRAFTLINK_TOKEN=TOKEN",)
        pinned = () if pin is None else (f"--pin {pin}",)
        device = ("draftlink device BUNDLE", f"--bs ws{s}://{seen}:{port}", *pinned)
        out.copied(*token, *device, '"Once upon a time"')
        if invited is not None:
            _show(joining.terminal(invited), _state(joining.TOKEN))

    server.serve(station, load, announce, bound, tls=tls, stop_s=stop_s)


def _state(name: str) -> Path:
    """The path of what is kept between two starts. Raises ValueError where there is no home."""
    path = user_path("XDG_STATE_HOME", ".local/state", name)
    if path is None:
        raise ValueError("there is no home directory to keep a key in; set XDG_STATE_HOME")
    return path


def _show(code: str, token: Path) -> None:
    """The code on a terminal; a file or a journal that stdout may be would keep its token."""
    if sys.stdout.isatty():
        print(f"\n{code}\n\n  to join, read it with a phone's camera; who sees it can", flush=True)
    print(f"  the live page shows the code to who gives it the token in {token}", flush=True)
