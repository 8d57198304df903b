"""Reads proposals with the standard library and ``docs/protocol.md``: see ``golden_reader``."""

from __future__ import annotations

from typing import Any

from tests.golden_reader import Model, Prior, Reader, varints


def read_propose(
    data: bytes, vocab_size: int, text: list[int], earlier: list[int]
) -> dict[str, Any]:
    """Section 3.6, and its payload (9.5), whichever scheme.

    ``text``: as far as the reader has it, which may be farther than the path's base; ``earlier``:
    the tokens of the path before these.
    """
    assert data[0] == 5 and data[1] < 8
    names = ["path", "base", *["above"] * (data[1] >> 1 & 1), *["first"] * (data[1] >> 2), "length"]
    values, at = varints(data, len(names))
    numbers = {"above": 0, "first": 0, **dict(zip(names, values, strict=True))}
    path, base, length = numbers["path"], numbers["base"], numbers["length"]
    assert numbers["first"] == len(earlier) and 0 not in values[2:]
    source = Reader(data[at:])
    model = Model([*text[:base], *earlier], Prior(vocab_size))
    tokens = [model.read(source) for _ in range(length)]
    source.finish()
    return {
        "path": path,
        "base": base,
        "known": base + numbers["above"],
        "first": numbers["first"],
        "length": length,
        "goes_on": bool(data[1] & 1),
        "tokens": tokens,
    }
