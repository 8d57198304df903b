"""Reads candidates with the standard library and ``docs/protocol.md``: see ``golden_reader``."""

from __future__ import annotations

from typing import Any

from tests.golden_reader import Model, Prior, Reader, varints


def read_propose(
    data: bytes, vocab_size: int, text: list[int], earlier: list[int]
) -> dict[str, Any]:
    """Section 3.6 with candidates, and its payload (9.5). ``earlier``: the path before it."""
    assert data[0] == 5 and data[1] < 16
    above, first, leaves = data[1] >> 1 & 1, data[1] >> 2 & 1, data[1] >> 3
    names = ["path", "base", *["above"] * above, *["first"] * first, "length"]
    values, at = varints(data, len(names))
    numbers = {"above": 0, "first": 0, **dict(zip(names, values, strict=True))}
    base, length = numbers["base"], numbers["length"]
    assert numbers["first"] == len(earlier) and 0 not in values[2:] and length <= 64
    beside = [0] * length
    if leaves:
        end = at + (length + 3) // 4
        pairs = [byte >> shift & 3 for byte in data[at:end] for shift in (0, 2, 4, 6)]
        assert len(pairs) >= length and not any(pairs[length:]) and any(pairs)
        beside, at = pairs[:length], end
    source = Reader(data[at:])
    model = Model([*text[:base], *earlier], Prior(vocab_size))
    nodes = [model.read_beside(source, count) for count in beside]
    source.finish()
    return {
        "known": base + numbers["above"],
        "first": numbers["first"],
        "length": length,
        "goes_on": bool(data[1] & 1),
        "nodes": nodes,
    }
