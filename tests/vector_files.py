"""A file of golden vectors, each of which no rounding could turn into another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from draftlink.protocol import frames
from tests.window_estimates import Ties

NEAREST = 1e-6  # to a tie, where another library's last bits might decide
Vector = dict[str, Any]


def ties(replay: Callable[[Vector], object], vector: Vector) -> float:
    """How near to a tie a comparison comes in a vector, by a second reader."""
    Ties.least = 1.0
    replay(vector)
    return Ties.least


def write(
    path: Path,
    head: dict[str, Any],
    names: Iterable[str],
    vector_of: Callable[[str], Vector],
    whole_ties: Callable[[Vector], float],
) -> None:
    """Write the vectors behind what they share. Raises SystemExit for one too near to a tie."""
    vectors = []
    for name in names:
        vector = vector_of(name)
        least = whole_ties(vector)
        print(f"{name}: {len(vector['steps'])} steps, nearest tie {least:.2g}")
        if least < NEAREST:
            raise SystemExit(f"{name}: a comparison comes within {least} of a tie; change its seed")
        vectors.append(vector)

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    said = compact({"version": frames.VERSION, **head}).removesuffix("}")
    lines = ",\n".join(map(compact, vectors))
    path.write_text(f'{said},"vectors":[\n{lines}\n]}}\n')
    print(path.stat().st_size, "bytes")
