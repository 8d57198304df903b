"""What rows of ``topk`` keep of a real model's draft, and what they cost to send.

    python -m bench.real.rows BUNDLE [--model smollm2] [--rows 8,64,3 8,64,5] [--positions 40]

Σ min(p, q̂) is the acceptance that rows (K, ℓ, tiers) leave, exact and no draw; p is the float32
reference, q̂ what is sent of the bundle's distribution, over the reference's own chat at temperature
1. Bits are those of one drafted token coded by itself, and milliseconds those of its draw.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.real import overlap, reference, texts
from bench.runtimes import Draftlink, rows
from draftlink.coding.ids import IdModel
from draftlink.distribution import noise, sparse
from draftlink.schemes.topk import TopK

KINDS = ("chat",)
ROWS = ("8,64,3", "8,64,4", "8,64,5", "8,64,6", "16,128,5", "16,256,3", "16,256,5", "64,1024,3")
SEED = 0


def scheme_of(text: str) -> TopK:
    """Rows as they are stated, ``K,l,tiers``. Raises ValueError."""
    k, total, tiers = map(int, text.split(","))
    return TopK(k=k, total=total, tiers=tiers)


class Kept:
    """What one scheme's rows keep and cost, a position at a time."""

    def __init__(self, scheme: TopK) -> None:
        self.scheme = scheme
        self._kept: list[float] = []
        self._bits: list[int] = []
        self._seconds: list[float] = []
        self._key = noise.key_from_seed(SEED, "device")

    def add(self, p: NDArray[np.float64], q: NDArray[np.float64], ids: IdModel) -> None:
        """A position's distributions (V,), of the target and of the draft."""
        self._kept.append(sparse.expected_acceptance(p, self.scheme.rows(q)))
        begun = time.perf_counter()
        drafted = self.scheme.propose(q, self._key, len(self._kept))
        self._seconds.append(time.perf_counter() - begun)
        self._bits.append(self.scheme.encode([drafted], ids)[1])

    def summary(self) -> dict[str, Any]:
        """Means, and the most bits of a token."""
        return {
            "k": self.scheme.k, "total": self.scheme.total, "tiers": self.scheme.tiers,
            "overlap": statistics.fmean(self._kept), "bits": statistics.fmean(self._bits),
            "most_bits": max(self._bits), "ms": 1e3 * statistics.median(self._seconds),
        }  # fmt: skip


def measure(
    folder: Path, bundle: Path, schemes: list[TopK], positions: int
) -> tuple[list[float], list[Kept]]:
    """Σ min(p, q) of every position, and what each scheme makes of it."""
    model, _ = texts.load(folder)
    draft = Draftlink(bundle, 1).cache()
    found, bounds = [Kept(scheme) for scheme in schemes], []
    for text in texts.of(folder):
        if text.kind not in KINDS:
            continue
        begun = texts.Text(text.kind, text.ids[: text.begin + positions], text.begin)
        expected = overlap.rows_of(model, begun)
        for target, own in zip(expected, rows(draft, begun.ids, begun.begin), strict=True):
            p, q = overlap.distribution(target), overlap.distribution(own)[: len(target)]
            bounds.append(float(np.minimum(p, q).sum()))
            for each in found:
                each.add(p, q, IdModel(len(p)))
    return bounds, found


def main() -> None:
    """Print a line a scheme."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--model", default="smollm2", help="smollm2, gemma3, or its folder")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="K,l,TIERS")
    parser.add_argument("--positions", type=int, default=40, help="of each text")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    schemes = [scheme_of(text) for text in options.rows]
    folder = reference.folder(options.model)
    bounds, found = measure(folder, options.bundle, schemes, options.positions)
    told = [each.summary() for each in found]
    title = f"{len(bounds)} positions; Σ min(p, q) {statistics.fmean(bounds):.4f}"
    table = Table(
        "K, ℓ, tiers", "Σ min(p, q̂)", "bits a drafted token", "at most", "ms a draw", title=title
    )
    for one in told:
        table.add_row(
            f"{one['k']}, {one['total']}, {one['tiers']}", f"{one['overlap']:.4f}",
            f"{one['bits']:.0f}", str(one["most_bits"]), f"{one['ms']:.2f}",
        )  # fmt: skip
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"bound": statistics.fmean(bounds), "rows": told}))


if __name__ == "__main__":
    main()
