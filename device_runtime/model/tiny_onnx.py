"""A graph of equal products, as ONNX's bytes: a device has no ``onnx`` to make one with.

By the wire format (protobuf.dev/programming-guides/encoding); onnx.proto has the fields' numbers.
"""

from __future__ import annotations

FLOAT, UINT8 = 1, 2  # TensorProto's types
INT_ATTRIBUTE = 2


def varint(value: int) -> bytes:
    """A number of at least 0."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def field(number: int, value: int | str | bytes) -> bytes:
    """A number, a text or a message in its field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
    """A TensorProto."""
    dims = b"".join(field(1, size) for size in shape)
    return dims + field(2, kind) + field(8, name) + field(9, data)


def value(name: str, shape: tuple[int, ...]) -> bytes:
    """A ValueInfoProto of float32."""
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def node(kind: str, inputs: list[str], output: str, domain: str = "", **options: int) -> bytes:
    """A NodeProto."""
    made = b"".join(field(1, name) for name in inputs)
    made += field(2, output) + field(3, output) + field(4, kind)
    for name, number in options.items():
        made += field(5, field(1, name) + field(3, number) + field(20, INT_ATTRIBUTE))
    return made + (field(7, domain) if domain else b"")


def model(nodes: list[bytes], tensors: list[bytes], given: list[bytes], out: list[bytes]) -> bytes:
    """A ModelProto with the operators of opset 20 and of com.microsoft."""
    graph = b"".join(field(1, one) for one in nodes) + field(2, "costs")
    graph += b"".join(field(5, one) for one in tensors)
    graph += b"".join(field(11, one) for one in given) + b"".join(field(12, one) for one in out)
    opsets = field(8, field(1, "") + field(2, 20)) + field(
        8, field(1, "com.microsoft") + field(2, 1)
    )
    return field(1, 10) + field(7, graph) + opsets
