"""``draftlink export``: a checkpoint into a draft bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from draftlink.cli.common import (
    Json,
    app,
    asked,
    draft_path,
    err,
    model_path,
    out,
    write_json,
)


@app.command(epilog="Example: draftlink export ./Qwen2.5-0.5B -o ./qwen-draft --precision int4")
def export(
    model: Annotated[
        str, typer.Argument(help="transformers folder, GGUF file or hub id; tinypair: its draft")
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
    source = asked(draft_path(model))
    from export.bundle import export_bundle

    if precision not in ("int8", "int4", "fp32"):
        raise typer.BadParameter(f"{precision!r} is not int8, int4 or fp32")
    if graph not in ("shared", "portable"):
        raise typer.BadParameter(f"{graph!r} is not shared or portable")
    if npu and (graph, precision) != ("shared", "int8"):
        raise typer.BadParameter("--npu has its own graph, in int8; leave --graph and --precision")
    if npu != (calibrate is not None):
        raise typer.BadParameter("--npu and --calibrate FILE go together")
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
