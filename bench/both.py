"""Both ends write, against each mode that is fixed, in virtual time: tokens/s over links and paces.

    python -m bench.both [--quick] [--json FILE]

Both ends' own code and the embedded pair's own tokens on a virtual clock (see ``bench.virtual``),
``coupled`` at temperature 1. A cell is a target's step, a draft's forward and a round trip; in it
each of three prompts is gone on with for 120 tokens, by stop-and-wait with each of several draft
lengths (the best counts), by run-ahead, by the target alone, and by both ends at once, which starts
cold and is told nothing. All write the same text. Beside the rates: the target's forwards and the
tokens drafted for each token of the text. ``--quick``: ten cells, some three minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import tinypair
from bench.link import Bench
from device_runtime.device import Coupled, Result, Sampling
from draftlink.link.shaping import LinkProfile

STEPS_MS, DRAFTS_MS = (8.0, 20.0, 50.0, 100.0), (1.0, 4.0, 10.0, 20.0)
RTTS_MS = (0.5, 2.0, 15.0, 60.0, 150.0)
QUICK = (
    (8.0, 1.0, 0.5), (8.0, 1.0, 15.0), (20.0, 4.0, 2.0), (20.0, 4.0, 15.0), (20.0, 4.0, 60.0),
    (50.0, 4.0, 15.0), (50.0, 4.0, 60.0), (50.0, 10.0, 150.0), (100.0, 10.0, 60.0),
    (20.0, 20.0, 60.0),
)  # fmt: skip
GAMMAS = (2, 3, 4, 6, 8, 12)
PROMPTS, TOKENS = 3, 120
RATE = 1e9  # bit/s: what bytes cost is not the question here


@dataclass(frozen=True)
class Cell:
    """Milliseconds, and tokens/s of each mode; of both ends, counts for each token of the text."""

    step_ms: float
    draft_ms: float
    rtt_ms: float
    tokens_per_s: dict[str, float]
    gamma: int  # stop-and-wait's best
    forwards: float
    drafted: float

    @property
    def of_best(self) -> float:
        """Both ends over the best of the fixed modes."""
        fixed = [rate for mode, rate in self.tokens_per_s.items() if mode != "both"]
        return self.tokens_per_s["both"] / max(fixed)


def measure(bench: Bench, step_ms: float, draft_ms: float, rtt_ms: float) -> Cell:
    """One cell. Raises RuntimeError where two modes write different texts."""
    link = LinkProfile(RATE, RATE, rtt_ms / 1e3)
    found: dict[str, list[Result]] = {}
    runs = [(f"stop-and-wait {gamma}", "stop-and-wait", gamma) for gamma in GAMMAS]
    runs += [(mode, mode, None) for mode in ("run-ahead", "stream", "both")]  # type: ignore[misc]
    for (name, mode, gamma), (seed, prompt) in itertools.product(
        runs, enumerate(tinypair.prompts(PROMPTS))
    ):
        result = bench.write(
            link, step_ms / 1e3, prompt, TOKENS, seed, draft_s=draft_ms / 1e3, mode=mode,
            gamma=gamma, scheme=Coupled(), seed=seed, sampling=Sampling(1.0),
        )  # fmt: skip
        found.setdefault(name, []).append(result)
    if len({tuple(tuple(r.tokens) for r in results) for results in found.values()}) != 1:
        raise RuntimeError(f"different texts at {step_ms}, {draft_ms}, {rtt_ms} ms")
    rates = {name: _rate(results) for name, results in found.items()}
    waits = {gamma: rates.pop(f"stop-and-wait {gamma}") for gamma in GAMMAS}
    gamma = max(waits, key=waits.__getitem__)
    both, count = found["both"], PROMPTS * TOKENS
    return Cell(
        step_ms,
        draft_ms,
        rtt_ms,
        {"stop-and-wait": waits[gamma], **rates},
        gamma,
        sum(r.rounds for r in both) / count,
        sum(r.drafted for r in both) / count,
    )


def _rate(results: Sequence[Result]) -> float:
    tokens = sum(len(r.tokens) for r in results)
    return tokens / sum(len(r.tokens) / r.tokens_per_s for r in results)


def table(cells: Sequence[Cell]) -> Table:
    """One row a cell."""
    modes = ("stop-and-wait", "run-ahead", "stream", "both")
    out = Table("step, draft, RTT ms", *modes, "both / best", "forwards", "drafted a token")
    for cell in cells:
        out.add_row(
            f"{cell.step_ms:g}, {cell.draft_ms:g}, {cell.rtt_ms:g}",
            f"{cell.tokens_per_s['stop-and-wait']:.1f} ({cell.gamma})",
            *(f"{cell.tokens_per_s[mode]:.1f}" for mode in modes[1:]),
            f"{cell.of_best:.3f}",
            f"{cell.forwards:.2f}",
            f"{cell.drafted:.2f}",
        )
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    every = itertools.product(STEPS_MS, DRAFTS_MS, RTTS_MS)
    wanted = QUICK if options.quick else [cell for cell in every if cell[1] <= cell[0]]
    bench, cells, err = Bench(), [], Console(stderr=True)
    for at in wanted:
        cells.append(measure(bench, *at))
        err.print(f"{len(cells)} of {len(wanted)}: {at}, both / best {cells[-1].of_best:.3f}")
    Console(width=140).print(table(cells))
    far = [c.of_best for c in cells if c.rtt_ms >= 15 and c.draft_ms <= c.step_ms / 2]
    print(
        f"{len(cells)} cells: least {min(c.of_best for c in cells):.3f}, geometric mean from 15 ms"
        f" on with a draft of at most half a step {statistics.geometric_mean(far):.3f}"
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")


if __name__ == "__main__":
    main()
