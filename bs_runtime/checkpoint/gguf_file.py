"""A GGUF file: its metadata, and where its tensors lie. All of it is a stranger's until checked.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Readers of this format make
what a file's counts ask for: here each count is held against the bytes that are left, and against
what any model has, before anything is made of it, so that whoever reads the file afterwards meets
nothing absurd.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from bs_runtime.checkpoint.errors import CheckpointError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
# More than any model has.
MAX_KEYS: Final = 1 << 12
MAX_TENSORS: Final = 1 << 16
MAX_ENTRIES: Final = 1 << 21  # of an array: merges are the longest
MAX_NAME: Final = 1 << 10  # bytes of a key or a tensor's name
MAX_TEXT: Final = 1 << 20  # bytes of any other string: a chat template
MAX_AXES: Final = 4
MAX_ALIGNMENT: Final = 1 << 16

SCALARS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
TEXT, ARRAY = 8, 9


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: rows first, as PyTorch has them; ``begin`` counts from the file's."""

    shape: tuple[int, ...]
    kind: str  # of quantization, as ggml calls it
    begin: int
    size: int  # bytes


@dataclass(frozen=True)
class GgufFile:
    """A file that has been read as far as its tensors, and found to be consistent."""

    path: Path
    fields: dict[str, Any]  # numbers, texts, lists of texts, arrays of numbers
    tensors: dict[str, Stored]

    def refuse(self, why: str) -> NoReturn:
        """Raise CheckpointError, naming the file."""
        raise CheckpointError(f"{self.path}: {why}")

    def text(self, key: str) -> str | None:
        """The text of a key; None where it is absent. Raises CheckpointError for anything else."""
        found: str | None = self._typed(key, str, "text")
        return found

    def flag(self, key: str) -> bool | None:
        """The truth value of a key, likewise."""
        found: bool | None = self._typed(key, bool, "truth value")
        return found

    def texts(self, key: str) -> list[str] | None:
        """The texts of a key, likewise."""
        found: list[str] | None = self._typed(key, list, "list of texts")
        return found

    def numbers(self, key: str, count: int) -> NDArray[Any] | None:
        """The ``count`` numbers of a key, likewise."""
        found: NDArray[Any] | None = self._typed(key, np.ndarray, "list of numbers")
        if found is not None and len(found) != count:
            self.refuse(f"{key} has {len(found)} numbers, where {count} are needed")
        return found

    def integer(self, key: str, most: int = 1 << 31) -> int | None:
        """The whole number of a key, from 0 to below ``most``, likewise."""
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < most:
            self.refuse(f"{key} is not a whole number from 0 to below {most}")
        return value

    def number(self, key: str) -> float | None:
        """The finite number of a key, likewise."""
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.refuse(f"{key} is not a number")
        if not math.isfinite(value):
            self.refuse(f"{key} is not a finite number")
        return float(value)

    def _typed(self, key: str, kind: type, called: str) -> Any:
        value = self.fields.get(key)
        if value is not None and not isinstance(value, kind):
            self.refuse(f"{key} is not a {called}")
        return value


def is_gguf(path: Path) -> bool:
    """Whether a path leads to a GGUF file, by its first bytes or else by its name."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix == ".gguf"
    except OSError:
        return path.suffix == ".gguf"


def open_gguf(path: Path) -> GgufFile:
    """Read a file's metadata and table of tensors.

    Raises CheckpointError for a file that is none, is cut off, or says what cannot be; and where
    the package that knows its kinds of quantization is missing.
    """
    sizes = _block_sizes()
    try:
        with _mapped(path) as view:
            return _Reader(path, view, sizes).read()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise CheckpointError(f"{path} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()


def _block_sizes() -> dict[int, tuple[str, int, int]]:
    """Of each kind of quantization by its number: its name, the weights of a block, and its bytes.

    Raises CheckpointError where the package that knows them is missing.
    """
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ModuleNotFoundError:
        raise CheckpointError(
            "reading a GGUF file needs gguf: pip install 'draftlink[gguf]'"
        ) from None
    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


class _Reader:
    """What is behind the cursor has been checked."""

    def __init__(
        self, path: Path, view: memoryview, sizes: dict[int, tuple[str, int, int]]
    ) -> None:
        self.path, self.view, self.sizes = path, view, sizes
        self.at = 0

    def read(self) -> GgufFile:
        if self._bytes(len(MAGIC), "its first bytes") != MAGIC:
            self._refuse("is not a GGUF file")
        version = self._number("I", "its version")
        if version not in VERSIONS:
            self._refuse(
                "is a GGUF file of the other byte order, which is not read"
                if version and not version & 0xFFFF
                else f"is GGUF version {version}; versions 2 and 3 are read"
            )
        tensors = self._count("Q", MAX_TENSORS, "tensors")
        keys = self._count("Q", MAX_KEYS, "keys")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            key = self._text(MAX_NAME, "a key's name")
            if key in fields:
                self._refuse(f"has {key} twice")
            fields[key] = self._value(self._number("I", key), key)
        table = [self._entry() for _ in range(tensors)]
        return GgufFile(self.path, fields, self._placed(table, fields))

    def _refuse(self, why: str) -> NoReturn:
        raise CheckpointError(f"{self.path} {why}")

    def _bytes(self, count: int, what: str) -> bytes:
        if count > len(self.view) - self.at:
            self._refuse(f"is cut off within {what}")
        self.at += count
        return bytes(self.view[self.at - count : self.at])

    def _number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}"), what))[0]

    def _count(self, code: str, most: int, what: str) -> int:
        count: int = self._number(code, f"its count of {what}")
        if count > most:
            self._refuse(f"says that it has {count} {what}, where no model has {most}")
        return count

    def _text(self, most: int, what: str) -> str:
        length: int = self._number("Q", what)
        if length > most:
            self._refuse(f"has {length} bytes in {what}, where {most} are the most")
        try:
            return self._bytes(length, what).decode()
        except UnicodeDecodeError:
            self._refuse(f"has what is no UTF-8 in {what}")

    def _value(self, kind: int, key: str) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind], key)
        if kind == TEXT:
            return self._text(MAX_TEXT, key)
        if kind != ARRAY:
            self._refuse(f"has a value of the unknown type {kind} in {key}")
        inner: int = self._number("I", key)
        count = self._count("Q", MAX_ENTRIES, f"entries in {key}")
        if inner == TEXT:
            return [self._text(MAX_TEXT, key) for _ in range(count)]
        if inner not in SCALARS:
            self._refuse(f"has an array of type {inner} in {key}, which is not read")
        kept = np.dtype(SCALARS[inner]).newbyteorder("<")
        return np.frombuffer(self._bytes(count * kept.itemsize, key), kept)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, shape, kind and offset."""
        name = self._text(MAX_NAME, "a tensor's name")
        axes = self._number("I", name)
        if not 1 <= axes <= MAX_AXES:
            self._refuse(f"has {axes} axes in {name}, where 1 to {MAX_AXES} can be")
        shape = tuple(self._number("Q", name) for _ in range(axes))
        return name, shape[::-1], self._number("I", name), self._number("Q", name)

    def _placed(
        self, table: list[tuple[str, tuple[int, ...], int, int]], fields: dict[str, Any]
    ) -> dict[str, Stored]:
        """The tensors, each within the file and apart from the others."""
        step = fields.get("general.alignment", 32)
        if not isinstance(step, int) or not 0 < step <= MAX_ALIGNMENT or step & (step - 1):
            self._refuse("has a general.alignment that is no power of two")
        begin = -(-self.at // step) * step
        found: dict[str, Stored] = {}
        for name, shape, kind, offset in table:
            if name in found:
                self._refuse(f"has the tensor {name} twice")
            called, size = self._size(name, shape, kind)
            if offset % step or begin + offset + size > len(self.view):
                self._refuse(f"has the tensor {name} outside of its bytes: it may be cut off")
            found[name] = Stored(shape, called, begin + offset, size)
        # One that lies in another would be a large model in a small file.
        behind = begin
        for name, stored in sorted(found.items(), key=lambda each: each[1].begin):
            if stored.begin < behind:
                self._refuse(f"has the tensor {name} within another")
            behind = stored.begin + stored.size
        return found

    def _size(self, name: str, shape: tuple[int, ...], kind: int) -> tuple[str, int]:
        """What a tensor's kind is called, and its bytes."""
        if kind not in self.sizes:
            self._refuse(f"has {name} in quantization type {kind}, which is not known here")
        called, weights, size = self.sizes[kind]
        count = math.prod(shape)
        if not count or shape[-1] % weights or count // weights * size > len(self.view):
            self._refuse(f"has a shape of {name} that cannot be: {shape} in {called}")
        return called, count // weights * size
