"""Where a graph's weights lie: in the graph itself, or in files beside it, and nowhere else.

An ONNX graph may name any file, with an offset and a length, as the place of a tensor. Versions of
onnxruntime follow it out of the folder, or to an address in memory; so every name is looked at
before it opens the graph. The device has no ``onnx``: this reads the few fields that matter from
the wire format (protobuf.dev/programming-guides/encoding; onnx.proto has the fields' numbers).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from device_runtime.model.bundle import AGAIN, BundleError

Bytes = bytes | mmap.mmap

MAX_FIELDS: Final = 5_000_000  # a graph has some thousands; each takes about a microsecond
MAX_PLACE: Final = 4096  # bytes of a key and its value
KEYS: Final = {"location", "offset", "length", "checksum"}
# A node that another process has compiled; it names a file, too, and only NPUs' libraries read it.
CONTEXT: Final = b"EPContext"


class Child(NamedTuple):
    """A field that holds a message in which tensors may be, or one of a tensor's places."""

    message: str
    repeated: bool


# By message and field. ``tests/device_runtime/test_weights.py`` compares it with onnx's own.
MESSAGES: Final = {
    "ModelProto": {
        7: Child("GraphProto", False),
        20: Child("TrainingInfoProto", True),
        25: Child("FunctionProto", True),
    },
    "TrainingInfoProto": {1: Child("GraphProto", False), 2: Child("GraphProto", False)},
    "FunctionProto": {7: Child("NodeProto", True), 11: Child("AttributeProto", True)},
    "GraphProto": {
        1: Child("NodeProto", True),
        5: Child("TensorProto", True),
        15: Child("SparseTensorProto", True),
    },
    "NodeProto": {5: Child("AttributeProto", True)},
    "AttributeProto": {
        5: Child("TensorProto", False),
        6: Child("GraphProto", False),
        10: Child("TensorProto", True),
        11: Child("GraphProto", True),
        22: Child("SparseTensorProto", False),
        23: Child("SparseTensorProto", True),
    },
    "SparseTensorProto": {1: Child("TensorProto", False), 2: Child("TensorProto", False)},
    "TensorProto": {13: Child("StringStringEntryProto", True)},
}
OP_TYPE: Final = ("NodeProto", 4)


def check(graph: Path, files: Mapping[str, int]) -> None:
    """Raises BundleError unless all that a graph names are ``files`` beside it, by name and bytes.

    Each must be of the bundle's manifest, so whole, its own, and no link.
    """
    with graph.open("rb") as file:
        if not graph.stat().st_size:
            return  # which is a graph without anything; onnxruntime says so
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for place in _places(data):
                    _within(place, files)
            except _Malformed as error:
                raise BundleError(f"onnxruntime cannot load {graph}: {error}; {AGAIN}") from None


class _Malformed(Exception):
    """Not a graph that may be opened; the text says why."""


def _within(place: Mapping[str, str], files: Mapping[str, int]) -> None:
    """Whether a tensor's place is in one of ``files``. Raises _Malformed."""
    name = place.get("location", "")
    if Path(name).name != name or name not in files:
        raise _Malformed(f"its weights lie in {name!r}, which is no file of the bundle")
    numbers = [place.get(key, "0") for key in ("offset", "length")]
    if not all(n.isascii() and n.isdecimal() and len(n) < 20 for n in numbers):
        raise _Malformed(f"its weights lie at {numbers} of {name}")
    if sum(map(int, numbers)) > files[name]:
        raise _Malformed(f"its weights lie behind the end of {name}")


def _places(data: Bytes) -> Iterator[dict[str, str]]:
    """The places of all tensors that lie outside the graph. Raises _Malformed.

    Not by recursion: how deep messages lie in one another is the file's to say.
    """
    left = MAX_FIELDS
    todo = [("ModelProto", 0, len(data))]
    while todo:
        message, begin, end = todo.pop()
        known, seen = MESSAGES[message], set()
        place: dict[str, str] = {}
        for field, start, stop in _fields(data, begin, end):
            left -= 1
            if left < 0:
                raise _Malformed(f"it has over {MAX_FIELDS} fields")
            if (message, field) == OP_TYPE and data[start:stop] == CONTEXT:
                raise _Malformed("it has a compiled context, which names files of its own")
            child = known.get(field)
            if child is None:
                continue
            # Of a single message that comes twice, a reader makes one that stands nowhere.
            if not child.repeated and field in seen:
                raise _Malformed(f"its {message} has field {field} twice")
            seen.add(field)
            if child.message != "StringStringEntryProto":
                todo.append((child.message, start, stop))
                continue
            key, value = _entry(data, start, stop)
            if key in place or key not in KEYS:
                raise _Malformed(f"the place of its weights has {key!r}")
            place[key] = value
        if place:
            yield place


def _entry(data: Bytes, begin: int, end: int) -> tuple[str, str]:
    """A key and its value. Raises _Malformed."""
    found = {1: "", 2: ""}
    if end - begin > MAX_PLACE:
        raise _Malformed("the place of its weights is no file's name")
    for field, start, stop in _fields(data, begin, end):
        try:
            found[field] = data[start:stop].decode()
        except UnicodeDecodeError:
            raise _Malformed("the place of its weights is no text") from None
    return found[1], found[2]


def _fields(data: Bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message at ``at`` to ``end``: number, where it begins, where it ends.

    Raises _Malformed for what is no message, and for groups, which no ONNX graph has.
    """
    while at < end:
        tag, at = _varint(data, at, end)
        field, kind = tag >> 3, tag & 7
        if not 0 < field < 1 << 29:
            raise _Malformed("it is no ONNX graph")
        start = at
        if kind == 0:
            _, at = _varint(data, at, end)
        elif kind == 1:
            at += 8
        elif kind == 2:
            size, start = _varint(data, at, end)
            at = start + size
        elif kind == 5:
            at += 4
        else:
            raise _Malformed("it is no ONNX graph")
        if at > end:
            raise _Malformed("it is cut off")
        yield field, start, at


def _varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends. Raises _Malformed."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Malformed("it is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Malformed("it is no ONNX graph")
