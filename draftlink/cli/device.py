"""``draftlink device``: a text, with a base station's help."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from draftlink.cli import common, prompts, values
from draftlink.cli.common import (
    STDOUT,
    AsTarget,
    Json,
    PaceDraft,
    Seed,
    Threads,
    app,
    err,
    write_json,
)
from draftlink.cli.models import BundlePath
from draftlink.cli.output import lines, show
from draftlink.host import files


def _measure(path: Path | None) -> None:
    """Measure what products cost on this device, into a file, and end. Raises FileError."""
    if path is None:
        return
    from device_runtime.model import costs, measure

    files.check(path)
    with err.status("measuring what products cost here"):
        found = measure.measure()
    costs.write(found, path)
    err.print(f"[dim]{len(found.products)} products with {found.threads} threads[/dim]")
    raise typer.Exit


@app.command(epilog='Example: draftlink device ./draft --bs ws://127.0.0.1:8765 "Once upon a time"')
def device(
    ctx: typer.Context,
    bundle: BundlePath,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="the text to go on from; from stdin if it is - or not given", callback=common.utf8
        ),
    ] = None,
    url: common.Bs = common.HERE,
    mode: values.Mode = "auto",
    scheme: Annotated[
        str,
        typer.Option(
            help="topk, dense, split or coupled",
            callback=values.one_of("topk", "dense", "split", "coupled"),
        ),
    ] = "topk",
    k: Annotated[int | None, typer.Option(help="topk, split: entries of a row, at most")] = None,
    lattice: Annotated[int | None, typer.Option(help="topk, split: sum of a row's counts")] = None,
    tiers: Annotated[
        int | None, typer.Option(help="topk: nested rows, at most; 1 cuts off")
    ] = None,
    coding: Annotated[
        str, typer.Option(help="topk: lattice or fp16", callback=values.one_of("lattice", "fp16"))
    ] = "lattice",
    mass: Annotated[float, typer.Option(help="topk: as few entries as hold this mass")] = 1.0,
    learn_temperature: Annotated[
        bool, typer.Option("--learn-temperature", help="fit the draft's temperature to verdicts")
    ] = False,
    gamma: Annotated[int | None, typer.Option(help="draft length; measured if not given")] = None,
    draft_price: Annotated[
        float | None,
        typer.Option(
            help="text that a drafted token must save, in tokens, where both ends write: 0.02 if"
            " not given; 0.1 spares the battery"
        ),
    ] = None,
    branches: Annotated[
        int | None,
        typer.Option(
            help="paths that are drafted at once, where both ends write: 1 to 8, of a bundle that"
            " was exported with --branches; 2 of such a one if not given"
        ),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; 0.8 if not given")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off, as if not given")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off, as if not given")] = None,
    sampling: AsTarget = None,
    max_tokens: Annotated[int, typer.Option(help="of the text, at most")] = 128,
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
            " would write, until it is checked; such as 2s",
            callback=values.seconds,
        ),
    ] = None,
    token: common.Token = None,
    ca: common.Ca = None,
    insecure: common.Insecure = False,
    pin: common.Pin = None,
    provider: common.Provider = "cpu",
    threads: Threads = None,
    pace_draft: PaceDraft = None,
    measure_costs: Annotated[
        Path | None,
        typer.Option(
            help="measure this device's products for `draftlink export --costs FILE`, and end",
            callback=_measure,
            is_eager=True,
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="read the prompt from this file")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="the prompt is a user's turn: apply the chat template")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="the text, and nothing else")
    ] = False,
    stream_json: Annotated[
        bool, typer.Option("--stream-json", help="a line of JSON for each token, and the result")
    ] = False,
    logprobs: Annotated[
        int | None,
        typer.Option(
            help="with --stream-json or --json: each token's log-probability, and those of so many"
            " of the likeliest ids (0 to 20)"
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Generate a text on the device with a base station's help."""
    from device_runtime.device import Coupled, Dense, Sampling, Split
    from device_runtime.model.bundle import load_bundle
    from draftlink.planning import units
    from draftlink.schemes import AnyScheme, topk

    given = {name: v for name, v in (("k", k), ("total", lattice)) if v is not None}
    known: dict[str, AnyScheme] = {
        "topk": msgspec.structs.replace(topk.usual(k, lattice, tiers), coding=coding, mass=mass),
        "dense": Dense(),
        "split": Split(**given),
        "coupled": Coupled(),
    }
    if logprobs is not None and not (stream_json or json):
        raise typer.BadParameter("--logprobs are told in --stream-json and --json: give one")
    if stream_json and json == STDOUT:
        raise typer.BadParameter("--stream-json has the result, too; leave out --json -")
    text = prompts.prompt(prompt, file)
    if chat:
        text = prompts.chatted(load_bundle(bundle), text)

    async def run() -> Any:
        opened = common.opened(ctx, bundle)
        async with opened:
            generation = opened.generate(
                opened.tokenizer.encode(text, add_special_tokens=False).ids if chat else text,
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
                draft_price=draft_price,
                branches=branches,
                stop=tuple(stop or ()),
                seed=seed,
                learn_temperature=learn_temperature,
                logprobs=logprobs,
                offline_after_s=None if offline_after is None else units.seconds(offline_after),
            )
            if stream_json:
                return await lines(generation)
            if json == STDOUT:
                async for _ in generation:
                    pass
                return generation.result
            return await show("" if quiet or chat else text, generation, opened.own)

    result = asyncio.run(run())
    if not (quiet or stream_json):
        err.say(
            f"{result.tokens_per_s:.0f} tokens/s, {result.accepted} of {result.drafted} drafted"
            f" tokens accepted, {result.uplink_bytes} bytes up, {result.downlink_bytes} down",
            "dim",
        )
        err.say(result.summary, "dim")
    write_json(json, result)
