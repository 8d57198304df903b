"""``draftlink pull``: a bundle from a base station, or a model from the hub, into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from draftlink.cli import common
from draftlink.cli.common import app, err, out
from draftlink.host import cache


@app.command(epilog="Example: draftlink pull wss://base-station:8765 --token TOKEN")
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="wss://HOST:PORT of a base station that runs with --offer, or a model's id at the"
            " Hugging Face hub"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="folder to make, instead of one in the cache"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="name in the cache; the base station's own if not given")
    ] = None,
    token: common.Token = None,
    ca: common.Ca = None,
    insecure: common.Insecure = False,
    pin: common.Pin = None,
    json: common.Json = None,
) -> None:
    """Fetch a draft bundle from a base station, or a model from the hub.

    Checked by its checksums, and gone on with where it broke off: run it again.
    """
    if output is not None and name is not None:
        raise typer.BadParameter("--output and --name are both given; leave one")
    if "://" in source:
        place = _from_station(source, output, name, token, ca, insecure, pin)
        kind = "bundle"
    else:
        if name is not None:
            raise typer.BadParameter("--name is a bundle's; a hub's model keeps its own")
        place = _from_hub(source, output)
        kind = "model"
    # A path to be copied, or read by a script: whole, whatever the width.
    out.print(str(place), soft_wrap=True, markup=False, emoji=False, highlight=False)
    common.write_json(json, {"kind": kind, "path": str(place), "bytes": cache.size(place)})


def _from_station(
    url: str,
    output: Path | None,
    name: str | None,
    token: str | None,
    ca: Path | None,
    insecure: bool,
    pin: str | None,
) -> Path:
    """The folder of the bundle that is offered. Raises what ``pull`` does, ValueError."""
    from device_runtime import pull as pulling
    from device_runtime.model.bundle import load_bundle
    from device_runtime.transport.fetch import Station
    from draftlink.host.offered import MANIFEST
    from draftlink.planning.units import binary

    station = Station(url, token=token, ca=ca, insecure=insecure, pin=pin)
    with err.status("asking what is offered"):
        offer = pulling.ask(station)
    place = cache.bundle(name or offer.name) if output is None else output
    if place.exists():
        from device_runtime.model.bundle import digest

        manifest = place / MANIFEST
        if manifest.is_file() and digest(manifest).sha256 == offer.files[MANIFEST].sha256:
            return load_bundle(place).path  # it is here, and whole
        instead = "--name NAME or --output FOLDER" if output is None else "another folder"
        raise ValueError(
            f"{place} is there, and is not what is offered; give {instead}, or remove it first"
        )
    err.say(f"{offer.name}: {len(offer.files)} files, {binary(offer.bytes)}", "dim")
    with _bar() as told:
        return pulling.pull(station, offer, place, told).path


def _from_hub(model: str, output: Path | None) -> Path:
    """The folder of a hub's model. Raises CheckpointError, ValueError, OSError."""
    place = cache.hub_model(model) if output is None else output
    from bs_runtime.checkpoint import download

    if output is None and place.exists():
        return place
    with _bar() as told:
        return download.fetch(model, place, told)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each file; it is told a file's name, its size, and how much of it is here."""
    columns = (
        TextColumn("{task.description}"), BarColumn(16), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )  # fmt: skip
    # To a file a bar would be an empty line.
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def told(name: str, size: int, have: int) -> None:
            if name not in tasks:
                shown = name if len(name) <= 24 else f"{name[:21]}..."
                tasks[name] = bar.add_task(Text(shown).markup, total=size)
            bar.update(tasks[name], completed=have)

        yield told
