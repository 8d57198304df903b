"""Greedy decoding (temperature 0): ids only, accepted iff equal to the target's arg max."""

from __future__ import annotations

from collections.abc import Sequence

from draftlink.bitcode import BitReader, BitWriter, width_for


def encode(ids: Sequence[int], vocab_size: int) -> tuple[bytes, int]:
    """Ids to a payload: its bytes, and its length in bits before padding."""
    out = BitWriter()
    out.write(list(ids), width_for(vocab_size))
    return out.bytes(), out.bits


def decode(payload: bytes, length: int, vocab_size: int) -> list[int]:
    """The payload of ``length`` ids. Raises ValueError for an id out of range."""
    source = BitReader(payload)
    ids = source.read(length, width_for(vocab_size))
    source.finish()
    if (ids >= vocab_size).any():
        raise ValueError("a drafted id is out of range")
    return [int(i) for i in ids]
