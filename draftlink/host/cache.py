"""What is kept here under a name: draft bundles, and models of the hub. One folder has them all.

``DRAFTLINK_HOME`` names it, else it is draftlink's in the user's cache (XDG_CACHE_HOME). Bundles
lie in ``bundles/NAME``, a hub's models in ``hub/OWNER--NAME``; a name that begins with a dot is
that of a download that is not whole yet.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from draftlink.host.folders import user_path
from draftlink.host.offered import is_name

Kind = Literal["bundle", "model", "unfinished"]
VARIABLE: Final = "DRAFTLINK_HOME"
BUNDLES: Final = "bundles"
HUB: Final = "hub"
_BETWEEN: Final = "--"  # of a model's owner and its name, which is no part of either at the hub


@dataclass(frozen=True)
class Entry:
    """Something in the cache. ``name``: by which commands take it."""

    kind: Kind
    name: str
    path: Path

    @property
    def bytes(self) -> int:
        """Of its files together."""
        return size(self.path)


def home() -> Path:
    """The cache's folder, which need not be there. Raises ValueError where there can be none."""
    stated = os.environ.get(VARIABLE)
    if stated:
        if not os.path.isabs(stated):
            raise ValueError(f"{VARIABLE} is {stated!r}: give the whole path, from the root on")
        return Path(stated)
    found = user_path("XDG_CACHE_HOME", ".cache", "")
    if found is None:
        raise ValueError(f"there is no folder to keep models in; set {VARIABLE} to one")
    return found


def bundle(name: str) -> Path:
    """Where the bundle of a name lies, or would. Raises ValueError for what can name none."""
    if not is_name(name):
        raise ValueError(
            f"{name!r} cannot name a bundle: letters, digits, and -._ behind the first, at most 100"
        )
    return home() / BUNDLES / name


def hub_model(model: str) -> Path:
    """Where a hub's model lies, or would. Raises ValueError for what can be no id of one."""
    parts = model.split("/")
    if len(parts) > 2 or not all(is_name(part) and _BETWEEN not in part for part in parts):
        raise ValueError(f"{model!r} is no id of a model at the hub, such as Qwen/Qwen2.5-0.5B")
    return home() / HUB / _BETWEEN.join(parts)


def entries() -> list[Entry]:
    """All that is kept here, by name. Raises ValueError where there can be no cache."""
    found = []
    for path in _folders(home() / BUNDLES):
        kind: Kind = "unfinished" if path.name.startswith(".") else "bundle"
        found.append(Entry(kind, path.name, path))
    for path in _folders(home() / HUB):
        kind = "unfinished" if path.name.startswith(".") else "model"
        found.append(Entry(kind, path.name.replace(_BETWEEN, "/", 1), path))
    return sorted(found, key=lambda entry: (entry.kind, entry.name))


def find(name: str) -> Entry | None:
    """What is kept under a name, if anything is."""
    try:
        return next((entry for entry in entries() if entry.name == name), None)
    except ValueError:
        return None


def remove(entry: Entry) -> None:
    """Delete it. Of a link only the link goes: what it leads to is not of the cache.

    Raises ValueError for what is not in the cache, OSError.
    """
    if entry.path.parent not in (home() / BUNDLES, home() / HUB):
        raise ValueError(f"{entry.path} is not in the cache")
    if entry.path.is_symlink():
        entry.path.unlink()
    else:
        shutil.rmtree(entry.path)


def size(folder: Path) -> int:
    """Bytes of a folder's files; links count for nothing."""
    files = (each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
    return sum(each.stat().st_size for each in files)


def _folders(within: Path) -> Iterator[Path]:
    """Those in a folder; none where it is not there, or nobody may look: nothing is kept then."""
    try:
        yield from (path for path in within.iterdir() if path.is_dir())
    except OSError:
        return
