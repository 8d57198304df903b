"""A draft bundle on disk: manifest, graph, tokenizer. All of it is a stranger's until checked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from tokenizers import Tokenizer

from device_runtime.model.costs import Costs, Kernel
from device_runtime.templates.form import Form
from device_runtime.templates.template import Template
from draftlink.distribution.sampling import Sampling
from draftlink.host.plain import printable
from draftlink.protocol.validate import MAX_CONTEXT, MAX_EOS, MAX_VOCAB

FORMAT = 1
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
MAX_MANIFEST = 1 << 20  # bytes

# What a manifest may say: no more than any model has, so that nothing absurd is reckoned with.
Name = Annotated[str, Meta(max_length=500)]
Id = Annotated[int, Meta(ge=0, lt=MAX_VOCAB)]
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,3}$")]
Size = Annotated[int, Meta(ge=1, le=1 << 16)]


AGAIN = "export it again with `draftlink export`"


class BundleError(ValueError):
    """The bundle cannot be used; the text says why, and what to do, in one line."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class File(msgspec.Struct, frozen=True):
    """A file of the bundle."""

    sha256: Name
    bytes: Annotated[int, Meta(ge=0)]


class Check(msgspec.Struct, frozen=True):
    """How the exported draft compares with PyTorch in float32, over ``positions`` of text."""

    passed: bool
    positions: int
    max_logit_difference: float
    top1_agreement: float
    overlap: float  # mean sum of min(p, q) at temperature 1
    rollback_difference: float  # largest logit difference after a rollback, same chunking
    text: str  # what it was checked on: "built-in", "its own" or the file's name
    overlap_error: float = 0.0  # standard
    # With a target: the same sum against it, of the float32 draft and of this one.
    float_acceptance: float | None = None
    acceptance: float | None = None
    acceptance_error: float = 0.0


class KernelCount(msgspec.Struct, frozen=True):
    """How many products have one kernel."""

    kernel: Kernel
    count: Annotated[int, Meta(ge=1)]


class Trial(msgspec.Struct, frozen=True):
    """A point of the front that the rounding was chosen from."""

    overlap: float  # against float32, or against the target where there was one
    overlap_error: float
    seconds: float  # a token, reckoned by the costs
    bytes: Annotated[int, Meta(ge=0)]  # of the products
    kernels: Annotated[list[KernelCount], Meta(max_length=100)]


class Quantization(msgspec.Struct, frozen=True):
    """How the weights were rounded, and by what costs it was chosen."""

    kernels: Annotated[list[KernelCount], Meta(max_length=100)]
    front: Annotated[list[Trial], Meta(max_length=100)]
    costs: Costs | None  # None where nothing was chosen by them


class Manifest(msgspec.Struct, frozen=True):
    """What the device must know before it loads the graph."""

    format: int
    model: Name
    architecture: Name
    graph: Literal["shared", "portable", "static"]
    precision: Literal["fp32", "int8", "int4", "mixed"]
    vocab_size: Annotated[int, Meta(ge=1, le=MAX_VOCAB)]
    context: Annotated[int, Meta(ge=1, lt=MAX_CONTEXT)]
    layers: Size
    kv_heads: Size
    head_dim: Size
    tokenizer_hash: Name
    bos_token_id: Id | None
    eos_token_ids: Annotated[list[Id], Meta(max_length=MAX_EOS)]
    versions: Annotated[dict[Name, Name], Meta(max_length=100)]
    files: Annotated[dict[Name, File], Meta(max_length=1000)]
    check: Check | None
    # Of a static graph: tokens that each file feeds, the first in GRAPH.
    buckets: Annotated[list[Annotated[int, Meta(ge=1, le=4096)]], Meta(max_length=16)] = []
    # How a chat is written (Jinja), and how the model's own files suggest to sample it.
    chat_template: Annotated[str, Meta(max_length=1 << 19)] | None = None
    sampling: Sampling | None = None
    quantization: Quantization | None = None
    # Texts of tokens that a template names, such as eos_token.
    tokens: Annotated[dict[Name, Name], Meta(max_length=100)] = {}
    # The first onnxruntime that computes this graph as it is meant; an older one loads it, too.
    least_onnxruntime: Version | None = None
    # Of the shared graph: tokens need not follow one another, each says what it sees.
    branches: bool = False
    # A chat for clients that run no template, where it says what the template says.
    chat: Form | None = None


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

    def stamps(self) -> list[tuple[int, int, int]] | None:
        """By what the system knows its files; None where one is gone."""
        try:
            found = [(self.path / name).stat() for name in sorted(self.manifest.files)]
        except OSError:
            return None
        return [(file.st_ino, file.st_mtime_ns, file.st_size) for file in found]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises BundleError."""
        path = self.path / TOKENIZER
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers has no exceptions of its own
            raise BundleError(f"{path} is no tokenizer ({error}); {AGAIN}") from None

    def tokens(self) -> dict[str, str]:
        """The tokens that a chat template may name, such as ``eos_token``. Raises BundleError."""
        manifest, tokenizer = self.manifest, self.tokenizer()
        ids = {"bos_token": manifest.bos_token_id}
        ids["eos_token"] = manifest.eos_token_ids[0] if manifest.eos_token_ids else None
        known = {name: tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}
        return known | manifest.tokens

    def template(self) -> Template | None:
        """How a chat is written; None where the model does not say. Raises BundleError."""
        source = self.manifest.chat_template
        return None if source is None else Template(source, self.tokens())


def bucket_file(count: int) -> str:
    """The file of the static graph that feeds ``count`` tokens."""
    return GRAPH if count == 1 else GRAPH.replace(".onnx", f"-{count}.onnx")


def digest(path: Path) -> File:
    """A file's checksum and size."""
    with path.open("rb") as file:
        return File(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def load_bundle(path: Path) -> Bundle:
    """Read and verify a bundle folder. Raises BundleError."""
    try:
        if not path.exists():
            raise BundleError(
                f"there is no folder {path}, and no bundle of that name is kept here; `draftlink"
                " export` makes one, `draftlink list` says what is kept"
            )
        if not path.is_dir() or not (path / MANIFEST).exists():
            raise BundleError(
                f"{path} is not a draft bundle (no {MANIFEST}); make one with `draftlink export`"
            )
        manifest = read_manifest(path)
        _verify(path, manifest)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error})") from None
    return Bundle(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a folder. Raises BundleError, OSError."""
    _own(path, MANIFEST)
    if (path / MANIFEST).stat().st_size > MAX_MANIFEST:
        raise BundleError(f"{path / MANIFEST} cannot be read (over {MAX_MANIFEST} bytes); {AGAIN}")
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} cannot be read ({error}); {AGAIN}") from None
    if manifest.format != FORMAT:
        raise BundleError(f"{path} has format {manifest.format}, this is {FORMAT}; {AGAIN}")
    if manifest.sampling is not None:
        try:
            manifest.sampling.check()
        except ValueError as error:
            raise BundleError(f"{path / MANIFEST} cannot be read ({error}); {AGAIN}") from None
    if manifest.branches and manifest.graph != "shared":
        raise BundleError(f"{path} has branches in a {manifest.graph} graph; {AGAIN}")
    if manifest.check is None or not manifest.check.passed:
        raise BundleError(f"{path} has no passed check against PyTorch; {AGAIN}")
    return manifest


def _verify(path: Path, manifest: Manifest) -> None:
    """Whether the files are those of the manifest. Raises BundleError, OSError."""
    for name in (GRAPH, TOKENIZER, *map(bucket_file, manifest.buckets)):
        if name not in manifest.files:
            raise BundleError(f"the manifest of {path} does not list {name}; {AGAIN}")
    for name, file in manifest.files.items():
        _own(path, name)
        # Its size first: a file of another one need not be read to its end.
        if (path / name).stat().st_size != file.bytes or digest(path / name) != file:
            raise BundleError(f"{path / name} is corrupt (its checksum differs); {AGAIN}")


def _own(path: Path, name: str) -> None:
    """Raises BundleError unless this is a file in the bundle's own folder, and no link."""
    if Path(name).name != name or not (path / name).is_file():
        raise BundleError(f"{path} lacks {name}; {AGAIN}")
    if (path / name).is_symlink():
        raise BundleError(
            f"{path / name} is a link; a bundle holds its files itself, copy it there"
        )
