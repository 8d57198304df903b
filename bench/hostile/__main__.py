"""The command: a row for each attack."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench.hostile
from bench.hostile.attacks import attacks
from bench.hostile.measuring import Outcome, measure
from tinypair.loopback import draft_bundle

COLUMNS = (
    "attack",
    "its cores",
    "p50 ms",
    "p99 ms",
    "p99 / control",
    "tokens/s",
    "callback ms",
    "lost",
    "log MB/min",
    "memory",
    "greeted s",
    "SIGTERM",
    "bounds",
)


def row(outcome: Outcome) -> list[str]:
    """A line of the table."""
    faults = outcome.faults()
    greeted = max(outcome.greeted_s.values(), default=None)
    return [
        outcome.name,
        f"{outcome.attacker_cores:.2f}",
        "{:.1f} -> {:.1f}".format(*outcome.p50_ms),
        "{:.1f} -> {:.1f}".format(*outcome.p99_ms),
        f"{outcome.ratio:.2f}",
        f"{outcome.rate:.2f}",
        f"{outcome.callback['callback_ms']:.1f}",
        str(outcome.lost),
        f"{outcome.log_mb:.2f}",
        f"{100 * outcome.growth:+.1f}%",
        "" if greeted is None else f"{greeted:.2f}",
        str(outcome.exit_code),
        "[red]" + ", ".join(faults) if faults else "hold",
    ]


def main() -> None:
    """Print the rows; exit code 1 where a bound does not hold."""
    known = attacks()
    parser = argparse.ArgumentParser(description=(bench.hostile.__doc__ or "").split("\n")[0])
    parser.add_argument("attack", nargs="*", help=f"of {', '.join(known)}; all if none is given")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each, and of its control")
    parser.add_argument("--json", type=Path, help="everything that was measured")
    given = parser.parse_args()
    if unknown := sorted(set(given.attack) - set(known)):
        parser.error(f"no attack {', '.join(unknown)}; there are {', '.join(known)}")
    err = Console(stderr=True)
    bundle = draft_bundle(err)
    outcomes = []
    for name in given.attack or known:
        outcome = asyncio.run(measure(name, known[name], bundle, given.seconds))
        outcomes.append(outcome)
        err.print("  ".join(row(outcome)), highlight=False, soft_wrap=True)
        if outcome.callback["callback_ms"] > 20.0:
            err.print(
                f"    {outcome.callback}",
                markup=False,
                emoji=False,
                highlight=False,
                soft_wrap=True,
            )
    table = Table(*COLUMNS)
    for outcome in outcomes:
        table.add_row(*row(outcome))
    out = Console(width=None if sys.stdout.isatty() else 200)
    cores = len(os.sched_getaffinity(0))
    out.print(table)
    out.print(f"{cores} cores; beside the control -> beside the attack; tokens/s: attack / control")
    if given.json:
        found = [asdict(one) | {"faults": one.faults()} for one in outcomes]
        given.json.write_text(json.dumps(found, indent=1))
    sys.exit(any(one.faults() for one in outcomes))


if __name__ == "__main__":
    main()
