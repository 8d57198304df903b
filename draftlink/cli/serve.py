"""``draftlink serve``: an OpenAI-compatible endpoint on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from draftlink.cli import common, prompts
from draftlink.cli.common import PaceDraft, Threads, app, hold, out
from draftlink.cli.models import BundlePath
from draftlink.host.plain import printable


@app.command(epilog="Example: draftlink serve ./draft --bs ws://127.0.0.1:8765")
def serve(
    bundle: BundlePath,
    url: common.Bs = common.HERE,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    name: Annotated[str | None, typer.Option(help="of the model; the target's if none")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="DRAFTLINK_API_KEY", help="that clients have to send")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="origin of pages that may ask; repeatable")
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="a name that clients call this machine by; repeatable"),
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file, instead of the bundle's own")
    ] = None,
    conversations: Annotated[
        int, typer.Option(min=1, help="at once, each with a KV cache of the draft")
    ] = 4,
    scheme: Annotated[
        str, typer.Option(help="coupled (a seed fixes the text) or topk (the paper's)")
    ] = "coupled",
    mode: Annotated[
        str, typer.Option(help="stop-and-wait, run-ahead, stream, both or auto")
    ] = "auto",
    token: common.Token = None,
    ca: common.Ca = None,
    pin: common.Pin = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="send the token in clear over ws://, and listen beyond this machine without a key",
        ),
    ] = False,
    provider: common.Provider = "cpu",
    threads: Threads = None,
    pace_draft: PaceDraft = None,
) -> None:
    """Serve OpenAI's API on this device, with a base station's help."""
    from device_runtime.device import Coupled, Device
    from device_runtime.model.bundle import load_bundle
    from device_runtime.result import MODES
    from device_runtime.serve import server
    from device_runtime.serve.app import Access, create_app
    from device_runtime.serve.service import Choices, Service
    from draftlink.host import children
    from draftlink.host.address import reached_at
    from draftlink.schemes import topk

    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is not one of {', '.join(MODES)}")
    if scheme not in ("coupled", "topk"):
        raise typer.BadParameter(f"{scheme!r} is not coupled or topk")
    server.check_exposure(host, key=api_key is not None, insecure=insecure)
    loaded = load_bundle(bundle)
    template = prompts.template(loaded, chat_template)
    bound = server.listen(host, port)

    async def run() -> None:
        device = Device(
            loaded,
            url,
            provider=provider,
            threads=threads,
            token=token,
            ca=ca,
            insecure=insecure,
            pin=pin,
        )
        hold(device.model, pace_draft)
        choices = Choices(Coupled() if scheme == "coupled" else topk.usual(), mode)
        service = await Service.open(
            device, template, most=conversations, name=name, choices=choices
        )

        def announce() -> None:
            where = f"[{host}]" if ":" in host else host
            port = bound.getsockname()[1]
            out.say(f"serving {printable(service.name)} at http://{where}:{port}/v1")
            seen = f"http://{reached_at(host)}:{port}"
            out.say(f"  a page to try it: {seen}/")
            key = () if api_key is None else ("-H 'Authorization: Bearer KEY'",)
            asks = '{"messages": [{"role": "user", "content": "Hello"}]}'
            out.copied(f"curl {seen}/v1/chat/completions", *key, f"-d '{asks}'")

        access = Access(api_key, tuple(cors or ()), (host, *(host_name or ())))
        try:
            await server.Server(create_app(service, access), announce).serve(sockets=[bound])
        finally:
            await service.close()

    children.run(run())
