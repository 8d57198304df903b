"""Reads what branches off by ``docs/protocol.md``: see ``golden_reader``."""

from __future__ import annotations

from typing import Any

from tests.golden_reader import Model, Prior, Reader, varints


def read_propose(
    data: bytes, vocab_size: int, text: list[int], earlier: list[list[int]]
) -> dict[str, Any]:
    """Section 3.6 with branches, and its payload (9.5).

    ``earlier``: of each token proposed before on the path all tokens from its base to it.
    """
    assert data[0] == 5 and data[1] < 32 and not data[1] >> 3 & 1
    names = [
        name for bit, name in ((1, "above"), (2, "first"), (4, "behind")) if data[1] >> bit & 1
    ]
    values, at = varints(data, 3 + len(names))
    order = ["path", "base", *names, "length"]
    numbers = {"above": 0, "first": 0, "behind": 0, **dict(zip(order, values, strict=True))}
    assert numbers["first"] == len(earlier) and 0 not in values[2:]
    parent = numbers["first"] - 1 - numbers["behind"]
    assert parent >= -1
    above = earlier[parent] if parent >= 0 else []
    source = Reader(data[at:])
    model = Model([*text[: numbers["base"]], *above], Prior(vocab_size))
    tokens = [model.read(source) for _ in range(numbers["length"])]
    source.finish()
    return {
        "known": numbers["base"] + numbers["above"],
        "first": numbers["first"],
        "behind": numbers["behind"],
        "goes_on": bool(data[1] & 1),
        "tokens": tokens,
    }
