"""``demo`` and ``compare``: both sides on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from draftlink.cli.common import (
    AsTarget,
    Json,
    PaceDraft,
    PaceTarget,
    Plot,
    Seed,
    Temperature,
    app,
    err,
    out,
    utf8,
    write_json,
)


@app.command(epilog='Example: draftlink demo --prompt "Once upon a time" --temperature 0.8')
def demo(
    prompt: Annotated[str, typer.Option(help="the text to go on from", callback=utf8)] = (
        "One day, a little girl named Lily found a"
    ),
    temperature: Temperature = 0.8,
    max_tokens: Annotated[int, typer.Option(help="of the text, at most")] = 128,
    seed: Seed = None,
    gamma: Annotated[int | None, typer.Option(help="draft length; measured if not given")] = None,
    pace_target: PaceTarget = None,
    pace_draft: PaceDraft = None,
    bench: Annotated[bool, typer.Option("--bench", help="the 10 listed prompts, compared")] = False,
    json: Json = None,
) -> None:
    """Both sides on loopback with the embedded pair: text, then the numbers."""
    from draftlink.cli import demo as loopback

    if bench:
        write_json(json, loopback.bench(out, err, gamma))
        return
    paces = (pace_target, pace_draft)
    write_json(json, loopback.demo(out, err, prompt, temperature, max_tokens, seed, gamma, *paces))


@app.command(epilog="Example: draftlink compare --temperature 0.7 --plot schemes.png")
def compare(
    target: Annotated[str, typer.Option(help="transformers folder, hub id, or tinypair")] = (
        "tinypair"
    ),
    bundle: Annotated[Path | None, typer.Option(help="its draft; tinypair's own if none")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.01, help="1 if not given")] = None,
    sampling: AsTarget = None,
    prompts: Annotated[int, typer.Option(min=1, help="how many of the listed prompts")] = 10,
    max_tokens: Annotated[int, typer.Option(min=1, help="of a text, at most")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="seeds per prompt")] = 1,
    gamma: Annotated[int, typer.Option(help="draft length")] = 4,
    k: Annotated[
        list[int] | None, typer.Option(help="K of topk, more than once for a sweep")
    ] = None,
    lattice: Annotated[list[int] | None, typer.Option(help="l of topk, likewise")] = None,
    tiers: Annotated[list[int] | None, typer.Option(help="tiers of topk, likewise")] = None,
    plot: Plot = None,
    json: Json = None,
) -> None:
    """The schemes side by side on the same prompts: acceptance, bits, tokens/s."""
    import tinypair
    from draftlink.cli import compare as comparison
    from tinypair.loopback import draft_bundle

    if bundle is None and target != "tinypair":
        raise typer.BadParameter("name the target's draft with --bundle")
    summary = comparison.compare(
        out,
        err,
        target=target,
        bundle=bundle or draft_bundle(err),
        prompts=tinypair.prompts(prompts),
        temperature=temperature,
        source=sampling,
        max_tokens=max_tokens,
        repeats=repeats,
        gamma=gamma,
        ks=k or (8, 16, 32),
        totals=lattice or (256,),
        tiers=tiers or (1, None),
        plot=plot,
    )
    write_json(json, summary)
