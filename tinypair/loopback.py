"""The embedded pair on one machine: its draft's bundle, and a base station as a child process."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

import export
import tinypair
from device_runtime.model.bundle import BundleError, load_bundle
from draftlink.host import children, files
from draftlink.host.folders import user_path
from export.bundle import export_bundle


def draft_bundle(err: Console) -> Path:
    """The embedded draft's int8 bundle, exported on first use and kept in the user's cache.

    By its weights and by what exports them, so that a new exporter's bundle is made anew. Without a
    cache it is kept until this process ends.
    """
    digest = hashlib.sha256((tinypair.DRAFT / "model.safetensors").read_bytes())
    for source in sorted(Path(export.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    name = f"tinypair-int8-{digest.hexdigest()[:12]}"
    kept = user_path("XDG_CACHE_HOME", ".cache", name)
    if kept is not None:
        with suppress(BundleError):
            return load_bundle(kept).path
        with suppress(OSError):  # a home that cannot be written to
            kept.parent.mkdir(parents=True, exist_ok=True)
            with files.locked(kept.with_name(f"{name}.lock")):  # whoever else starts now waits
                return _made(kept, err)
    folder = tempfile.mkdtemp(prefix="draftlink-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _made(Path(folder, name), err)


def _made(path: Path, err: Console) -> Path:
    """The bundle at ``path``, exported if it is not there."""
    try:
        load_bundle(path)
    except BundleError:
        with err.status("exporting the embedded draft (once)"):
            export_bundle(tinypair.DRAFT, path, "int8")
    return path


@contextmanager
def base_station(err: Console, model: str = "tinypair", *options: str) -> Iterator[str]:
    """A base station with a target in a process of its own; its address. For the main thread.

    It ends with the block, also where this process is told to terminate (see ``children.run``).
    """
    command = ["-m", "draftlink.cli", "bs", model, "--port", "0", "--log-level", "warning"]
    with (
        children.terminable(),
        children.child([*command, *options], err.print, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        with err.status("starting the base station"):
            line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError("the base station did not start; its own message is above")
        yield line.split()[2]
