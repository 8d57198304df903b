"""What both ends writing at once costs in bits, beside the mode that it takes the place of.

    python -m bench.bits [--prompts 6] [--tokens 128] [--json FILE]

The embedded pair, ``coupled`` at temperature 0.8; each prompt's text is the same in every mode. On
loopback, over sockets and against stop-and-wait at its own draft length, which may be 1.3 times as
few; over ``lte``, in virtual time (draft 10 ms, target 45 ms; see ``bench.link``) and against
run-ahead, which may be half as many. Bits of both directions for each token of the text: of the
coded payloads, and of everything: frames' heads, WebSocket, TLS and TCP/IP, estimated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tinypair
from bench.link import Bench
from device_runtime.device import Coupled, Device, Result, Sampling
from device_runtime.result import DOWN, UP
from draftlink.host import children
from draftlink.link.ledger import total
from draftlink.link.shaping import PROFILES
from tinypair.loopback import base_station, draft_bundle

TEMPERATURE = 0.8
TARGET_S = 0.045
LOOPBACK, LTE = "loopback", "lte"
AGAINST = {LOOPBACK: ("stop-and-wait", 1.3), LTE: ("run-ahead", 2.0)}
BOTH = "both"


@dataclass(frozen=True)
class Bits:
    """For each token of the text."""

    link: str
    mode: str
    payload_up: float
    payload_down: float
    all_up: float
    all_down: float
    frames_up: float
    frames_down: float

    @property
    def payload(self) -> float:
        """Both directions."""
        return self.payload_up + self.payload_down

    @property
    def all(self) -> float:
        """Both directions."""
        return self.all_up + self.all_down


def counted(link: str, mode: str, results: Sequence[Result]) -> Bits:
    """Over all texts; what begins and ends a generation is in ``all``."""
    tokens = sum(len(result.tokens) for result in results)
    up = [total(r.ledger, "up", *UP) for r in results]
    down = [total(r.ledger, "down", *DOWN) for r in results]
    all_up = [total(r.ledger, "up") for r in results]
    all_down = [total(r.ledger, "down") for r in results]
    return Bits(
        link,
        mode,
        # A frame that comes down is coded by its layout alone: all of it is payload.
        sum(entry.payload_bits for entry in up) / tokens,
        8 * sum(entry.frame_bytes for entry in down) / tokens,
        8 * sum(entry.packet_bytes for entry in all_up) / tokens,
        8 * sum(entry.packet_bytes for entry in all_down) / tokens,
        sum(entry.frames for entry in up) / tokens,
        sum(entry.frames for entry in down) / tokens,
    )


def loopback(prompts: Sequence[str], tokens: int, err: Console) -> dict[str, list[Result]]:
    """Over sockets."""
    bundle = draft_bundle(err)
    modes = AGAINST[LOOPBACK][0], BOTH

    async def run(url: str) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {mode: [] for mode in modes}
        async with Device(bundle, url) as device:
            for seed, prompt in enumerate(prompts):
                for mode in modes:
                    asked: dict[str, Any] = {"mode": mode, "seed": seed, "eos_ids": ()}
                    generation = device.generate(
                        prompt, sampling=Sampling(TEMPERATURE), max_tokens=tokens,
                        scheme=Coupled(), **asked,
                    )  # fmt: skip
                    async for _ in generation:
                        pass
                    found[mode].append(generation.result)
        return found

    with base_station(err) as url:
        return children.run(run(url))


def lte(prompts: Sequence[str], tokens: int) -> dict[str, list[Result]]:
    """In virtual time."""
    bench, found = Bench(), dict[str, list[Result]]()
    for mode in (AGAINST[LTE][0], BOTH):
        found[mode] = [
            bench.write(
                PROFILES[LTE], TARGET_S, prompt, tokens, seed, mode=mode, scheme=Coupled(),
                seed=seed, sampling=Sampling(TEMPERATURE),
            )
            for seed, prompt in enumerate(prompts)
        ]  # fmt: skip
    return found


def table(rows: Sequence[Bits]) -> Table:
    """A line for each link and mode; ratios are those that are asked for."""
    columns = ("payload up", "down", "both", "all up", "down", "both", "frames up", "down")
    out = Table("link", "mode", *columns, title="bits for each token of the text")
    for row in rows:
        base = next(r for r in rows if r.link == row.link and r.mode != BOTH)
        times = [f" ({x / y:.2f}x)" * (row.mode == BOTH) for x, y in (
            (row.payload, base.payload), (row.all, base.all),
        )]  # fmt: skip
        out.add_row(
            row.link,
            row.mode,
            f"{row.payload_up:.1f}",
            f"{row.payload_down:.1f}",
            f"{row.payload:.1f}{times[0]}",
            f"{row.all_up:.0f}",
            f"{row.all_down:.0f}",
            f"{row.all:.0f}{times[1]}",
            f"{row.frames_up:.2f}",
            f"{row.frames_down:.2f}",
        )
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    prompts = tinypair.prompts(asked.prompts)
    found = {
        LOOPBACK: loopback(prompts, asked.tokens, Console(stderr=True)),
        LTE: lte(prompts, asked.tokens),
    }
    for link, modes in found.items():
        texts = {tuple(tuple(r.tokens) for r in results) for results in modes.values()}
        if len(texts) != 1:
            raise RuntimeError(f"{link}: two modes write different texts")
    rows = [counted(link, mode, r) for link, modes in found.items() for mode, r in modes.items()]
    Console(width=150).print(table(rows))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
