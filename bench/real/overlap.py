"""How much of its reference a draft says: Σ min(p, q) at temperature 1, with its standard error.

    python -m bench.real.overlap BUNDLE [BUNDLE ...] --model smollm2 [--short] [--json FILE]

Σ min(p, q) is the best acceptance that any lossless scheme gets of a draft token by itself. A token
is fed at a time, as when drafting. Positions of one text are alike, so the standard error is over
texts: of the ratio Σ overlap / Σ positions, each text a sample.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.real import reference, texts
from bench.real.texts import Text
from bench.runtimes import Draftlink, Row, rows

SHORT = {"each": 2, "tokens": 32}


@dataclass(frozen=True)
class Overlap:
    """Mean Σ min(p, q) over ``positions``, its standard error, and the mean by kind of text."""

    mean: float
    error: float
    positions: int
    kinds: dict[str, float]

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.error:.4f}"


def distribution(logits: Row) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    found: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return found


def of_rows(reference_rows: Iterable[Row], rows: Iterable[Row]) -> list[float]:
    """Σ min(p, q) of each position, from the logits of both."""
    return [
        float(np.minimum(distribution(one), distribution(other)).sum())
        for one, other in zip(reference_rows, rows, strict=True)
    ]


def rows_of(model: Any, text: Text) -> NDArray[np.float32]:
    """A reference's logits before each of a text's own tokens, (positions, V)."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([text.ids[:-1]])).logits[0, text.begin - 1 :]
    found: NDArray[np.float32] = logits.float().numpy()
    return found


def summary(each: Sequence[tuple[str, Sequence[float]]]) -> Overlap:
    """Of every text its kind and Σ min(p, q) by position. Raises ValueError for fewer than two."""
    if len(each) < 2:
        raise ValueError("a standard error over texts needs two texts")
    sums = np.array([sum(values) for _, values in each])
    counts = np.array([len(values) for _, values in each])
    mean = float(sums.sum() / counts.sum())
    spread = float(((sums - mean * counts) ** 2).sum()) * len(each) / (len(each) - 1)
    kinds = {
        kind: float(np.mean([value for name, values in each if name == kind for value in values]))
        for kind in dict.fromkeys(kind for kind, _ in each)
    }
    return Overlap(mean, math.sqrt(spread) / int(counts.sum()), int(counts.sum()), kinds)


def main() -> None:
    """Print a line a bundle."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--model", default="smollm2", help="smollm2, gemma3, or its folder")
    parser.add_argument("--short", action="store_true", help="few positions: a trial")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    folder = reference.folder(options.model)
    listed = texts.of(folder, **(SHORT if options.short else {}))
    model, _ = texts.load(folder)
    found: dict[str, list[tuple[str, list[float]]]] = {str(path): [] for path in options.bundles}
    drafts = {str(path): Draftlink(path, 1).cache() for path in options.bundles}
    for number, text in enumerate(listed):
        with console.status(f"text {number + 1} of {len(listed)}"):
            expected = rows_of(model, text)
            for name, draft in drafts.items():
                own = rows(draft, text.ids, text.begin)
                found[name].append((text.kind, of_rows(expected, own)))
    table = Table("bundle", "Σ min(p, q)", *texts.KINDS)
    told = {name: summary(each) for name, each in found.items()}
    for name, one in told.items():
        table.add_row(name, str(one), *(f"{one.kinds[kind]:.3f}" for kind in texts.KINDS))
    console.print(table)
    console.print(f"{next(iter(told.values())).positions} positions of {len(listed)} texts")
    if options.json:
        options.json.write_text(json.dumps({k: asdict(v) for k, v in told.items()}, indent=2))


if __name__ == "__main__":
    main()
