"""Reads log-probabilities with the standard library and ``docs/protocol.md``: see
``golden_reader``."""

from __future__ import annotations

from typing import Any

from tests.golden_reader import varints

VERDICT, TOKENS, WRITTEN = 3, 4, 6


def read_told(data: bytes, vocab_size: int, count: int) -> list[dict[str, Any]]:
    """Sections 3.4, 3.5 and 3.7, and the block at their end (5.7): of each token what is said."""
    kind, flags = data[0], data[1]
    assert flags & 16
    if kind == VERDICT:
        numbers, at = varints(data, 5 + (flags >> 1 & 1))
        tokens = numbers[2] + (flags >> 1 & 1)
    elif kind == TOKENS:
        numbers, at = varints(data, 3)
        tokens = numbers[-1]
        _, at = varints(data, 3 + tokens)
    else:
        few, has_count = flags >> 5, flags >> 2 & 1
        fields = 3 + (few == 7) + (flags >> 1 & 1) + has_count
        numbers, at = varints(data, fields)
        accepted = few + (numbers[1] if few == 7 else 0)
        tokens = numbers[-1] if has_count else accepted + 1
        _, at = varints(data, fields + tokens)
    blocks = []
    for flag in (4 * (kind == VERDICT), 8 * (kind != TOKENS), 16):
        if flags & flag:
            size, begin = number(data, at)
            assert size > 0
            at = begin + size
            blocks.append(data[begin:at])
    assert at == len(data)
    return read_block(blocks[-1], tokens, vocab_size, count)


def read_surprisals(data: bytes) -> list[float]:
    """Sections 3.5 and 5.6: of each token of Tokens, in bits."""
    assert data[0] == TOKENS and data[1] & 32
    numbers, at = varints(data, 3)
    _, at = varints(data, 3 + numbers[-1])
    if data[1] & 16:
        size, at = number(data, at)
        at += size
    size, at = number(data, at)
    assert size == numbers[-1] and at + size == len(data)
    return [each / 8 for each in data[at:]]


def read_block(block: bytes, tokens: int, vocab_size: int, count: int) -> list[dict[str, Any]]:
    """Section 5.7."""
    told, at = [], 0
    for _ in range(tokens):
        own, at = number(block, at)
        top, units = [], 0
        for _ in range(min(count, vocab_size)):
            token, at = number(block, at)
            more, at = number(block, at)
            units += more
            assert token < vocab_size and token not in {each for each, _ in top}
            assert units < 1 << 32
            top.append([token, units])
        told.append({"own": own, "top": top})
    assert at == len(block)
    return told


def number(data: bytes, at: int) -> tuple[int, int]:
    """Section 3.2, and where it ends."""
    begin, value = at, 0
    while True:
        value |= (data[at] & 0x7F) << 7 * (at - begin)
        at += 1
        if data[at - 1] < 0x80:
            break
    assert value < 1 << 32 and (data[at - 1] or at == begin + 1)
    return value, at
