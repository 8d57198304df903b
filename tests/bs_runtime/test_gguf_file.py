"""A GGUF file is a stranger's: what it counts and points at is checked before anything is made."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_file import is_gguf, open_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def made(
    *fields: bytes, tensors: tuple[bytes, ...] = (), data: bytes = b"", version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:  # fmt: skip
    tensor_count, key_count = counts or (len(tensors), len(fields))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count)
    head += b"".join(fields) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + data


HUGE = 1 << 60
BROKEN = {
    "is empty": b"",
    "is not a GGUF file": b"PK\3\4" + bytes(100),
    "is cut off within its version": b"GGUF\3",
    "GGUF version 1": made(version=1),
    "the other byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    f"says that it has {HUGE} keys": made(counts=(0, HUGE)),
    f"says that it has {HUGE} tensors": made(counts=(HUGE, 0)),
    "is cut off within a key's name": made(counts=(0, 1))[:24],
    "in a key's name, where": made(struct.pack("<Q", HUGE) + b"abc"),
    "has what is no UTF-8 in a key's name": made(struct.pack("<Q", 2) + b"\xff\xfe"),
    "has a twice": made(field("a", 7, b"\1"), field("a", 7, b"\0")),
    "of the unknown type 77 in a": made(field("a", 77, b"\1")),
    "bytes in a, where": made(field("a", 8, struct.pack("<Q", HUGE))),
    "entries in a, where": made(field("a", 9, array(0, HUGE))),
    "is cut off within a": made(field("a", 9, array(12, 1 << 20))),
    "has an array of type 9 in a": made(field("a", 9, array(9, 1, array(0, 1, b"\1")))),
    "is cut off within b": made(field("b", 9, array(8, 1 << 20))),
    "has 5 axes in w": made(tensors=(tensor("w", (1, 1, 1, 1, 1)),), data=bytes(32)),
    "has 0 axes in w": made(tensors=(tensor("w", ()),), data=bytes(32)),
    "in quantization type 9999": made(tensors=(tensor("w", (8,), 9999),), data=bytes(32)),
    "that cannot be: (4294967296, 4294967296)": made(
        tensors=(tensor("w", (1 << 32, 1 << 32)),), data=bytes(32)
    ),
    "that cannot be: (0,)": made(tensors=(tensor("w", (0,)),), data=bytes(32)),
    "that cannot be: (33,) in Q8_0": made(tensors=(tensor("w", (33,), 8),), data=bytes(64)),
    "has the tensor w twice": made(
        tensors=(tensor("w", (8,)), tensor("w", (8,), 0, 32)), data=bytes(64)
    ),
    "has the tensor w outside of its bytes": made(tensors=(tensor("w", (9,)),), data=bytes(32)),
    "tensor v outside": made(tensors=(tensor("v", (8,), 0, HUGE),), data=bytes(32)),
    "tensor u outside": made(tensors=(tensor("u", (4,), 0, 16),), data=bytes(64)),
    "has the tensor x within another": made(
        tensors=(tensor("w", (16,)), tensor("x", (8,), 0, 32)), data=bytes(64)
    ),
    "general.alignment that is no power of two": made(
        field("general.alignment", 4, struct.pack("<I", 24))
    ),
}


@pytest.mark.parametrize("why", BROKEN)
def test_what_cannot_be_is_refused_in_a_line_and_before_anything_is_made(why, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(BROKEN[why])
    open_gguf_once(tmp_path)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        open_gguf(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert why in str(caught.value) and "\n" not in str(caught.value)
    assert most < 1 << 20


def open_gguf_once(folder: Path) -> None:
    """What is imported on the way is not the file's."""
    (folder / "fine").write_bytes(made(tensors=(tensor("w", (8,)),), data=bytes(32)))
    open_gguf(folder / "fine")


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(77)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_add_bos_token(True)
    writer.add_token_list(["a", "é", "😀"])
    writer.add_token_scores([0.5, -1.0, 2.0])
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer.add_tensor("w", weights)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("q", gguf.quantize(np.ones((4, 64), np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(path)
    assert is_gguf(path) and not is_gguf(tmp_path)
    assert file.text("general.architecture") == "llama"
    assert file.integer("llama.context_length") == 77
    assert file.number("llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert file.flag("tokenizer.ggml.add_bos_token") is True
    assert file.texts("tokenizer.ggml.tokens") == ["a", "é", "😀"]
    assert file.numbers("tokenizer.ggml.scores", 3).tolist() == [0.5, -1.0, 2.0]
    assert file.text("absent") is file.integer("absent") is file.texts("absent") is None
    stored = file.tensors["w"]
    assert (stored.shape, stored.kind) == ((2, 3), "F32")
    assert path.read_bytes()[stored.begin :][: stored.size] == weights.tobytes()
    assert (file.tensors["q"].shape, file.tensors["q"].kind) == ((4, 64), "Q8_0")
    for ask in (
        lambda: file.text("llama.context_length"),
        lambda: file.integer("general.architecture"),
        lambda: file.integer("llama.context_length", most=77),
        lambda: file.number("general.architecture"),
        lambda: file.flag("llama.context_length"),
        lambda: file.numbers("tokenizer.ggml.scores", 4),
        lambda: file.numbers("tokenizer.ggml.tokens", 3),
    ):
        with pytest.raises(CheckpointError):
            ask()


def test_whatever_is_changed_or_cut_off_is_read_or_refused(tmp_path):
    """No other error, and no more memory than the file's size asks for."""
    rng = random.Random(3)
    whole = made(
        field("general.architecture", 8, text("llama")),
        field("a", 9, array(8, 3, text("x") + text("yy") + text("zzz"))),
        field("b", 9, array(6, 4, bytes(16))),
        field("c", 12, bytes(8)),
        tensors=(tensor("w", (8, 2)), tensor("v", (32,), 8, 64)),
        data=bytes(128),
    )
    path, refused = tmp_path / "x.gguf", 0
    open_gguf_once(tmp_path)
    tracemalloc.start()
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(whole) - 128)] = rng.choice(
                (0, 1, 0x7F, 0xFF, rng.randrange(256))
            )
        del changed[rng.choice((len(changed), rng.randrange(len(changed)))) :]
        path.write_bytes(changed)
        try:
            open_gguf(path)
        except CheckpointError as error:
            refused += "\n" not in str(error)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 1500 and most < 4 << 20
