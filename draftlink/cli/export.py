"""``draftlink export``: a checkpoint into a draft bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from draftlink.cli import export_view, values
from draftlink.cli.common import (
    Folder,
    Json,
    app,
    asked,
    draft_path,
    err,
    model_path,
    out,
    write_json,
)
from draftlink.cli.consoles import Console


@app.command(epilog="Example: draftlink export ./Qwen2.5-0.5B -o ./qwen-draft")
def export(
    model: Annotated[
        str, typer.Argument(help="transformers folder, GGUF file or hub id; tinypair: its draft")
    ],
    output: Folder,
    precision: Annotated[
        str,
        typer.Option(
            help="auto: the fastest that loses little; or int8, int4, fp32",
            callback=values.one_of("auto", "int8", "int4", "fp32"),
        ),
    ] = "auto",
    graph: Annotated[
        str,
        typer.Option(
            help="shared: free rollback; portable: standard operators",
            callback=values.one_of("shared", "portable"),
        ),
    ] = "shared",
    context: Annotated[int | None, typer.Option(help="tokens in the KV cache")] = None,
    text: Annotated[Path | None, typer.Option(help="text file to check on")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="model to draft for, of the same tokenizer: auto is the fastest with it"),
    ] = None,
    t_target: Annotated[
        str,
        typer.Option(
            help="auto with --target: one target forward, one token", callback=values.seconds
        ),
    ] = "45ms",
    link: Annotated[
        str, typer.Option(help="auto with --target: link profile", callback=values.profile)
    ] = "wifi",
    costs: Annotated[
        Path | None,
        typer.Option(
            help="auto: the device's (draftlink device --measure-costs); else measured here"
        ),
    ] = None,
    effort: Annotated[
        str, typer.Option(help="auto: low or normal", callback=values.one_of("low", "normal"))
    ] = "normal",
    npu: Annotated[
        bool, typer.Option("--npu", help="static shapes, int8 QDQ; needs --calibrate")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="--npu: text file that value ranges are measured on")
    ] = None,
    branches: Annotated[
        bool, typer.Option("--branches", help="a graph that can draft several paths at once")
    ] = False,
    json: Json = None,
) -> None:
    """Export a draft model to a checked, quantized ONNX bundle."""
    source = asked(draft_path(model))
    accepted_by = None if target is None else asked(model_path(target))
    from export.bundle import export_bundle

    _usage(precision, graph, npu, calibrate)
    with _bar() as progress:
        bundle = export_bundle(
            source,
            output,
            "int8" if npu else precision,  # type: ignore[arg-type]
            graph="static" if npu else graph,  # type: ignore[arg-type]
            context=context,
            branches=branches,
            text=text,
            calibrate=calibrate,
            target=accepted_by,
            asked=_asked(effort, costs, t_target, link),
            progress=progress,
        )
    for line in export_view.lines(output, bundle.manifest, precision):
        out.say(line)
    write_json(json, bundle.manifest)


def _usage(precision: str, graph: str, npu: bool, calibrate: Path | None) -> None:
    """Raise a usage error for options that cannot be, or not together."""
    if npu and (graph != "shared" or precision not in ("auto", "int8")):
        raise typer.BadParameter("--npu has its own graph, in int8; leave --graph and --precision")
    if npu != (calibrate is not None):
        raise typer.BadParameter("--npu and --calibrate FILE go together")


def _asked(effort: str, costs: Path | None, t_target: str, link: str) -> Any:
    """What a rounding is chosen by. Raises a usage error, ValueError."""
    from dataclasses import replace

    from device_runtime.model import costs as table
    from draftlink.link import shaping
    from draftlink.planning import units
    from export.choose import SETTING, Asked

    took = units.seconds(t_target)
    setting = replace(SETTING, target_s=took, verify_s=took, link=shaping.profile(link))
    return Asked(effort, None if costs is None else table.read(costs), setting)  # type: ignore


@contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    """A progress bar; what it is given are the export's steps."""
    from export.stage import share

    columns = (
        SpinnerColumn(), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    # To a file a bar would be an empty line.
    hidden = not err.is_terminal
    # Of its own: while a graph is traced, stderr is nobody's.
    console = Console(file=err.file)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("exporting", total=1.0)
        reached = 0.0

        def show(step: str) -> None:
            nonlocal reached
            reached = max(reached, share(step))
            bar.update(task, completed=reached, description=Text(step).markup)

        yield show
