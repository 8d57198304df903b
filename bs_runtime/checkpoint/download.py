"""A model of the Hugging Face hub, whole, in a folder of its own.

``huggingface_hub`` does the work: it checks what comes, and goes on where it broke off. Here it is
decided what is wanted, how much room that takes, and that a folder is whole or not there.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from bs_runtime.checkpoint import hub
from bs_runtime.checkpoint.errors import CheckpointError
from draftlink.planning.units import binary

# What transformers reads of a model; of weights one format is enough, and this one cannot run code.
WANTED: Final = ("*.json", "*.model", "*.txt", "*.jinja", "*.safetensors")
LOOK_S: Final = 0.25  # between two looks at how much has come
_OWN: Final = ".cache"  # the library's notes of what it has begun

Told = Callable[[str, int, int], None]  # a name, of how many bytes, and how many of it are here


def fetch(model: str, place: Path, told: Told = lambda name, size, have: None) -> Path:
    """The model's folder at ``place``, where nothing may be. Raises CheckpointError.

    Where the hub does not answer that is known after ``hub.PATIENCE_S``.
    """
    if place.exists():
        raise CheckpointError(f"{place} is there already; remove it first, or give another folder")
    if not hub.hub_answers(model):
        raise hub.absent(model, "it does not answer")
    partial = place.with_name(f".{place.name}.partial")
    try:
        about = HfApi().model_info(model, files_metadata=True, timeout=hub.PATIENCE_S)
        sizes = {each.rfilename: each.size or 0 for each in about.siblings or ()}
        wanted = {name: size for name, size in sizes.items() if is_wanted(name)}
        if not any(name.endswith(".safetensors") for name in wanted):
            raise hub.absent(model, "it has no *.safetensors")
        partial.mkdir(parents=True, exist_ok=True)
        _room(partial, sum(wanted.values()))
        with _watched(model, partial, sum(wanted.values()), told):
            for name in sorted(wanted, key=lambda name: wanted[name]):
                hf_hub_download(model, name, revision=about.sha, local_dir=partial)
    except HfHubHTTPError as error:
        raise hub.absent(model, str(error).splitlines()[0]) from None
    except CheckpointError:
        raise
    except Exception as error:  # each HTTP client below has its own
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{model} has not come whole from the hub ({why}); pull again to go on"
        ) from None
    shutil.rmtree(partial / _OWN, ignore_errors=True)
    partial.rename(place)
    return place


def is_wanted(name: str) -> bool:
    """Whether a file of a repository is fetched: of its own folder, no hidden one."""
    plain = "/" not in name and "\\" not in name and not name.startswith(".")
    return plain and any(fnmatch(name, pattern) for pattern in WANTED)


def _room(partial: Path, wanted: int) -> None:
    """Raises CheckpointError where the disk has no room for what is still to come."""
    free, here = shutil.disk_usage(partial).free, _size(partial)
    if wanted - here > free:
        raise CheckpointError(
            f"{partial} has no room: {binary(wanted - here)} are to come, {binary(free)} are free"
        )


@contextmanager
def _watched(model: str, partial: Path, wanted: int, told: Told) -> Iterator[None]:
    """During the block ``told`` hears, from a thread, how much is here."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            told(model, wanted, min(_size(partial), wanted))

    told(model, wanted, min(_size(partial), wanted))
    thread = threading.Thread(target=watch, name="pull", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _size(folder: Path) -> int:
    """Bytes of what is in a folder; a file may go while it is looked at."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
