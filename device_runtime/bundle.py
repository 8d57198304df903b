"""A draft bundle on disk: manifest, graph, tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

FORMAT = 1
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"


class BundleError(ValueError):
    """The bundle cannot be used; the text says why, and what to do."""


class File(msgspec.Struct, frozen=True):
    """A file of the bundle."""

    sha256: str
    bytes: int


class Check(msgspec.Struct, frozen=True):
    """How the exported draft compares with PyTorch in float32, over ``positions`` of text."""

    passed: bool
    positions: int
    max_logit_difference: float
    top1_agreement: float
    overlap: float  # mean sum of min(p, q) at temperature 1
    rollback_difference: float  # largest logit difference after a rollback, same chunking
    text: str  # what it was checked on: "built-in" or the file's name


class Manifest(msgspec.Struct, frozen=True):
    """What the device must know before it loads the graph."""

    format: int
    model: str
    architecture: str
    graph: Literal["shared", "portable", "static"]
    precision: Literal["fp32", "int8", "int4"]
    vocab_size: int
    context: int
    layers: int
    kv_heads: int
    head_dim: int
    tokenizer_hash: str
    bos_token_id: int | None
    eos_token_ids: list[int]
    versions: dict[str, str]
    files: dict[str, File]
    check: Check | None
    buckets: list[int] = []  # of a static graph: tokens that each file feeds, the first in GRAPH


class Bundle:
    """A bundle that may be used: its files are whole, its check against PyTorch passed."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    def bucket(self, count: int) -> Path:
        """The ONNX file that feeds ``count`` tokens, of a static graph."""
        return self.path / bucket_file(count)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json."""
        return self.path / TOKENIZER


def bucket_file(count: int) -> str:
    """The file of the static graph that feeds ``count`` tokens."""
    return GRAPH if count == 1 else GRAPH.replace(".onnx", f"-{count}.onnx")


def digest(path: Path) -> File:
    """A file's checksum and size."""
    with path.open("rb") as file:
        return File(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def load_bundle(path: Path) -> Bundle:
    """Read and verify a bundle folder. Raises BundleError."""
    again = "export it again with `draftlink export`"
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{path} is not a draft bundle (no {MANIFEST}); make one with `draftlink export`"
        ) from None
    except msgspec.DecodeError as error:
        raise BundleError(f"{path / MANIFEST} cannot be read ({error}); {again}") from None
    if manifest.format != FORMAT:
        raise BundleError(f"{path} has format {manifest.format}, this is {FORMAT}; {again}")
    if manifest.check is None or not manifest.check.passed:
        raise BundleError(f"{path} has no passed check against PyTorch; {again}")
    for name in (GRAPH, TOKENIZER, *map(bucket_file, manifest.buckets)):
        if name not in manifest.files:
            raise BundleError(f"the manifest of {path} does not list {name}; {again}")
    for name, file in manifest.files.items():
        if Path(name).name != name or not (path / name).is_file():
            raise BundleError(f"{path} lacks {name}; {again}")
        if digest(path / name) != file:
            raise BundleError(f"{path / name} is corrupt (its checksum differs); {again}")
    return Bundle(path, manifest)
