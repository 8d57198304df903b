"""Models as arguments: a path, or the name of something in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from draftlink.host import cache


def cached(path: Path | None) -> Path | None:
    """A bundle's folder: as it is, or where nothing is there the one of that name in the cache."""
    if path is None or path.exists():
        return path
    entry = cache.find(str(path))
    return entry.path if entry is not None and entry.kind == "bundle" else path


def cached_model(model: str) -> str:
    """A model: as it is, or what ``draftlink pull`` has brought of that id."""
    if Path(model).exists():
        return model
    entry = cache.find(model)
    return str(entry.path) if entry is not None and entry.kind == "model" else model


BundlePath = Annotated[
    Path,
    typer.Argument(
        help="draft bundle: a folder, or its name in the cache (draftlink list)", callback=cached
    ),
]
