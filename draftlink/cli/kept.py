"""``draftlink list``, ``show`` and ``rm``: what is in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from draftlink.cli import show_view
from draftlink.cli.common import Json, app, err, out, write_json
from draftlink.cli.models import BundlePath
from draftlink.host import cache


@app.command("list", epilog="Example: draftlink list")
def list_(json: Json = None) -> None:
    """List the bundles and models in the cache."""
    from draftlink.planning.units import binary

    found = cache.entries()
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "name", "size"):
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    rows = []
    for entry in found:
        size = entry.bytes
        table.add_row(entry.kind, Text(entry.name), binary(size))
        rows.append(
            {"kind": entry.kind, "name": entry.name, "bytes": size, "path": str(entry.path)}
        )
    if found:
        out.print(table)
    else:
        err.say(f"nothing is kept in {cache.home()}; `draftlink pull` brings something", "dim")
    write_json(json, rows)


@app.command(epilog="Example: draftlink show smollm2-draft")
def show(bundle: BundlePath, json: Json = None) -> None:
    """Say what a bundle is and how good: its check, its front, sizes, tokenizer, context."""
    from device_runtime.model.bundle import load_bundle

    loaded = load_bundle(bundle)
    for line in show_view.lines(loaded.path, loaded.manifest):
        out.say(line, under=show_view.INDENT)
    table = show_view.front(loaded.manifest)
    if table is not None:
        out.print(table)
    told: dict[str, Any] = msgspec.to_builtins(loaded.manifest)
    write_json(json, {"path": str(loaded.path), **told})


@app.command(epilog="Example: draftlink rm smollm2-draft --yes")
def rm(
    names: Annotated[list[str], typer.Argument(help="names in the cache, as draftlink list has")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Remove bundles and models from the cache; nothing that lies elsewhere."""
    from draftlink.planning.units import binary

    found = []
    for name in names:
        entry = cache.find(name)
        if entry is None:
            elsewhere = "; it is a path, which this does not touch" if Path(name).exists() else ""
            raise ValueError(f"nothing in the cache is called {name!r}{elsewhere}")
        found.append(entry)
    for entry in found:
        size = entry.bytes
        if not yes and not typer.confirm(f"Remove {entry.name} ({binary(size)})?", err=True):
            continue
        cache.remove(entry)
        err.say(f"removed {entry.name}, {binary(size)}", "dim")
