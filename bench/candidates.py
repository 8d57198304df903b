"""How often the text's token is among the draft's first arrivals under the shared noise.

    python -m bench.candidates [--texts 16] [--tokens 200]
    python -m bench.candidates BUNDLE... [--model smollm2] [--positions 40]

The draft's m first arrivals at a position, in the race whose winner under the target's row is the
text's own token (``coupled``, temperature 1), are m candidates that are sent by their ids alone.
Seen is the share of positions at which the text's token is among them, each with the right prefix;
``at least`` is the bound of arXiv 2504.15475 over the same rows, exact for one. ``Σ min(p, q)`` is
what no single draft can exceed. Last: how well the ratio of the second arrival's time to that of
the first tells whether the first is right, by tenths of that ratio.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import tinypair
from bench.real import overlap, reference, texts
from bench.runtimes import Draftlink, rows
from bs_runtime.model.target import Target
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution import noise
from draftlink.distribution.gumbel import first_arrivals, pick_many
from draftlink.planning import theory
from tinypair.loopback import draft_bundle

MOST = 4
BATCH = 32
Pair = tuple[int, NDArray[np.float64], NDArray[np.float64]]  # position, p, q


class Seen:
    """What one draft's candidates came to."""

    def __init__(self, seed: int) -> None:
        self._key = noise.key_from_seed(seed, "coupled")
        self.among = np.zeros(MOST)
        self.bounds = np.zeros(MOST)
        self.best = 0.0
        self.positions = 0
        self.ratios: list[float] = []
        self.right: list[bool] = []

    def add(self, pairs: Iterable[Pair]) -> None:
        """Positions with the target's row and the draft's, each (V,)."""
        held = list(pairs)
        for begin in range(0, len(held), BATCH):
            at, ps, qs = zip(*held[begin : begin + BATCH], strict=True)
            p, q, keys = np.stack(ps), np.stack(qs), [self._key] * len(at)
            token = pick_many(keys, at, p)
            ids, times = first_arrivals(keys, at, q, MOST)
            self.among += np.cumsum(ids == token[:, None], axis=1).sum(axis=0)
            self.positions += len(at)
            self.ratios += np.log(times[:, 1] / times[:, 0]).tolist()
            self.right += (ids[:, 0] == token).tolist()
            for mine, theirs in zip(p, q, strict=True):
                self.best += theory.best_acceptance(mine, theirs)
                self.bounds += [
                    theory.candidates_acceptance_bound(mine, theirs, m + 1) for m in range(MOST)
                ]

    def calibration(self) -> list[tuple[float, float]]:
        """By tenths of the ratio: what a logistic fit to it predicts, and what was seen."""
        x, y = np.array(self.ratios), np.array(self.right, dtype=float)
        finite = np.isfinite(x)
        x, y = x[finite], y[finite]
        a, b = 0.0, 1.0
        for _ in range(50):  # Newton's method for a + b log(t2 / t1)
            chance = 1.0 / (1.0 + np.exp(-(a + b * x)))
            weight = chance * (1.0 - chance) + 1e-9
            h = np.array([[weight.sum(), (weight * x).sum()],
                          [(weight * x).sum(), (weight * x * x).sum()]])  # fmt: skip
            step = np.linalg.solve(h, [(y - chance).sum(), ((y - chance) * x).sum()])
            a, b = a + step[0], b + step[1]
        chance = 1.0 / (1.0 + np.exp(-(a + b * x)))
        tenths = np.array_split(np.argsort(x), 10)
        return [(float(chance[t].mean()), float(y[t].mean())) for t in tenths]

    def summary(self, name: str) -> dict[str, Any]:
        """Shares of the positions."""
        n = self.positions
        return {
            "draft": name, "positions": n, "overlap": self.best / n,
            "seen": (self.among / n).tolist(), "at_least": (self.bounds / n).tolist(),
            "calibration": self.calibration(),
        }  # fmt: skip


def of_the_pair(number: int, tokens: int) -> Iterator[tuple[str, Seen]]:
    """The embedded pair's own text."""
    target, seen = Target.load(str(tinypair.TARGET)), Seen(0)
    bundle = load_bundle(draft_bundle(Console(stderr=True)))
    draft, tokenizer = DraftModel(bundle), bundle.tokenizer()
    key = noise.key_from_seed(0, "coupled")
    slot = target.open()
    for prompt in tinypair.prompts(number):
        ids = tokenizer.encode(prompt).ids
        slot.rollback(0)
        draft.rollback(0)
        unfed, found = ids, list[Pair]()
        for _ in range(tokens):
            p, q = (
                overlap.distribution(row)
                for row in (slot.forward(unfed).numpy()[-1], draft.forward(unfed))
            )
            found.append((len(ids), p, q[: len(p)]))
            unfed = [int(pick_many([key], [len(ids)], p[None])[0])]
            ids = [*ids, *unfed]
        seen.add(found)
    yield "embedded pair", seen


def of_bundles(model: str, bundles: list[Path], positions: int) -> Iterator[tuple[str, Seen]]:
    """A real model's own text; its noise is drawn anew, and the text is only the history."""
    folder = reference.folder(model)
    reader, _ = texts.load(folder)
    written = [t for t in texts.of(folder) if t.kind == "chat"]
    cut = [texts.Text(t.kind, t.ids[: t.begin + positions], t.begin) for t in written]
    expected = [[overlap.distribution(row) for row in overlap.rows_of(reader, t)] for t in cut]
    for bundle in bundles:
        seen, draft = Seen(0), Draftlink(bundle, 1).cache()
        for number, (text, ps) in enumerate(zip(cut, expected, strict=True)):
            qs = rows(draft, text.ids, text.begin)
            at = range(number * 10_000, number * 10_000 + len(ps))
            seen.add(
                (place, p, overlap.distribution(q)[: len(p)])
                for place, p, q in zip(at, ps, qs, strict=True)
            )
        yield bundle.name, seen


def main() -> None:
    """Print a line a draft."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--model", default="smollm2", help="smollm2, gemma3, or its folder")
    parser.add_argument("--positions", type=int, default=40, help="of each text of a real model")
    parser.add_argument("--texts", type=int, default=16, help="of the embedded pair")
    parser.add_argument("--tokens", type=int, default=200, help="of each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = (
        of_bundles(options.model, options.bundles, options.positions)
        if options.bundles
        else of_the_pair(options.texts, options.tokens)
    )
    told = [seen.summary(name) for name, seen in found]
    counts = [str(m + 1) for m in range(MOST)]
    table = Table(
        "draft",
        "positions",
        "Σ min(p, q)",
        "",
        *counts,
        title="candidates a position",
        min_width=90,
    )
    for one in told:
        head = (one["draft"], str(one["positions"]), f"{one['overlap']:.3f}")
        table.add_row(*head, "seen", *(f"{share:.3f}" for share in one["seen"]))
        table.add_row("", "", "", "at least", *(f"{share:.3f}" for share in one["at_least"]))
        told_of = ", ".join(f"{a:.2f} {b:.2f}" for a, b in one["calibration"])
        Console().print(f"{one['draft']}: predicted, seen by tenths: {told_of}", soft_wrap=True)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
