"""``draftlink chat``: a conversation in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from draftlink.cli import common, prompts
from draftlink.cli.common import AsTarget, PaceDraft, Seed, Threads, app, hold
from draftlink.cli.models import BundlePath


@app.command(epilog="Example: draftlink chat ./draft --bs ws://127.0.0.1:8765")
def chat(
    bundle: BundlePath,
    url: common.Bs = common.HERE,
    system: Annotated[str, typer.Option(help="what stands first", callback=common.utf8)] = "",
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file, instead of the bundle's own")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="stop-and-wait, run-ahead, stream, both or auto")
    ] = "auto",
    scheme: Annotated[
        str, typer.Option(help="coupled (a seed fixes the text) or topk (the paper's)")
    ] = "coupled",
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; 0.8 if not given")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off, as if not given")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off, as if not given")] = None,
    sampling: AsTarget = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="of an answer; as many as there is room for if none")
    ] = None,
    seed: Seed = None,
    token: common.Token = None,
    ca: common.Ca = None,
    insecure: common.Insecure = False,
    pin: common.Pin = None,
    provider: common.Provider = "cpu",
    threads: Threads = None,
    pace_draft: PaceDraft = None,
) -> None:
    """Talk with the target. /help says what may be typed."""
    import asyncio

    from device_runtime.device import Coupled, Device, Sampling
    from device_runtime.model.bundle import load_bundle
    from device_runtime.request import Options
    from device_runtime.result import MODES
    from device_runtime.talk import NO_TEMPLATE, Talk
    from draftlink.cli import chatting
    from draftlink.schemes import topk

    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is not one of {', '.join(MODES)}")
    if scheme not in ("coupled", "topk"):
        raise typer.BadParameter(f"{scheme!r} is not coupled or topk")
    loaded = load_bundle(bundle)
    template = prompts.template(loaded, chat_template)
    if template is None:
        raise ValueError(NO_TEMPLATE + ", by --chat-template")

    async def run() -> None:
        opened = Device(
            loaded,
            url,
            provider=provider,
            threads=threads,
            token=token,
            ca=ca,
            insecure=insecure,
            pin=pin,
        )
        hold(opened.model, pace_draft)
        stated = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        async with opened:
            welcome = opened.client.welcome
            usual = Sampling(temperature=0.8)
            options: Options = {
                "sampling": common.sampling(welcome, sampling, stated, usual),
                "scheme": Coupled() if scheme == "coupled" else topk.usual(),
                "mode": mode,
                "seed": seed,
            }
            if max_tokens is not None:
                options["max_tokens"] = max_tokens
            talk = Talk(opened.own, opened.tokenizer, template, system)
            await chatting.Chatting(talk, opened.own, options).run(welcome.model)

    try:
        template.start()
        asyncio.run(run())
    finally:
        template.close()
