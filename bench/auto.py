"""``auto`` where rows are sent: its tokens/s over those of the best fixed mode, in virtual time.

    python -m bench.auto [PART ...] [--quick] [--tokens 50 100 400] [--json FILE]

Both ends' own code on a virtual clock (``bench.virtual``), ``topk`` with its usual rows, and rows
of the embedded pair's own text, which are the same whoever writes (``bench.virtual.rows``).
``auto`` chooses between stop-and-wait, run-ahead and the target alone; each of these three is
measured too, with the draft lengths that ``auto`` itself would take. A device writes some texts one
after the other: the first is *cold*, the last, behind at least 200 tokens of earlier ones, *warm*.
Rates are of all texts together, so a text that went badly counts.

What a draft says at a position, and whether it is accepted there, is the same in each mode: the
rows are, and both ends' draws are of the position alone. Where each mode had luck of its own, the
best of three would have been the luckiest one, and six texts of 50 tokens say so by 9% or more.
Parts, all but the last if none is named:

    cells    the links of ``bench.link``, two paces of the target, temperatures 1 and 0.7
    odd      a draft slower than the target, and one of which .3 is accepted
    turns    the link, or the draft, becomes another in the middle of each text
    apart    two links that nothing was chosen on: looked at once a change is made, not while it is
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console

import tinypair
from bench.both.cells import TOKENIZER
from bench.real import overlap
from bench.virtual.loop import run
from bench.virtual.record import CONTEXT
from bench.virtual.rows import Draft, Rows, Target
from bench.virtual.world import World
from bs_runtime.model import target as models
from device_runtime.device import Sampling
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.result import Mode
from draftlink.distribution import noise
from draftlink.link.shaping import PROFILES, Link, Shaper, make_link
from draftlink.schemes import topk
from tinypair.loopback import draft_bundle

APART = ("satellite", "uav_nlos")
PACES_S = (0.045, 0.090)
DRAFT_S = 0.010
TEMPERATURES = (1.0, 0.7)
LENGTHS = (50, 100, 400)
PROMPT = 12  # tokens
TEXTS, TEXT = 6, 320  # whose rows are recorded
DEVICES, EARLIER = 12, 200  # of each cell; tokens that a warm one has written before
FIXED: tuple[Mode, ...] = ("stop-and-wait", "run-ahead", "stream")
BARS = (0.9, 0.95)  # cold, warm
PARTS = ("cells", "odd", "turns", "apart")


def recorded(temperature: float) -> Rows:
    """The embedded pair's rows along its target's own text."""
    torch.set_num_threads(1)
    slot = models.Target.load(str(tinypair.TARGET)).open()
    bundle = load_bundle(draft_bundle(Console(stderr=True)))
    draft, tokenizer = DraftModel(bundle), bundle.tokenizer()
    chance = np.random.default_rng(0)
    pairs = []
    for prompt in tinypair.prompts(TEXTS):
        slot.rollback(0)
        draft.rollback(0)
        unfed = tokenizer.encode(prompt).ids
        for _ in range(TEXT):
            p, q = (
                overlap.distribution(np.asarray(row) / temperature)
                for row in (slot.forward(unfed)[-1], draft.forward(unfed))
            )
            pairs.append((p, q[: len(p)]))
            unfed = [int(chance.choice(len(p), p=p))]
    return Rows.of(pairs)


@dataclass(frozen=True)
class Place:
    """A cell: profiles by name, the second one's from the middle of each text on."""

    link: str
    rows: str
    target_s: float
    draft_s: float = DRAFT_S
    then: str = ""

    def __str__(self) -> str:
        link = f"{self.link}, then {self.then}" if self.then else self.link
        return f"{link}; {1e3 * self.target_s:g}, {1e3 * self.draft_s:g} ms; {self.rows}"


class _Turning:
    """A direction that becomes another one where a text has come so far."""

    def __init__(self, first: Shaper, second: Shaper, turned: Callable[[], bool]) -> None:
        self._both, self._turned = (first, second), turned

    def transmit(self, size: int, now: float) -> tuple[float, float]:
        return self._both[self._turned()].transmit(size, now)


def link_of(place: Place, target: Target, tokens: int, seed: int) -> Link:
    """The place's link; where it turns, it does once the target is half through a text."""
    first = make_link(PROFILES[place.link], seed=seed)
    if not place.then:
        return first
    second = make_link(PROFILES[place.then], seed=seed)

    def turned() -> bool:
        return target.longest >= PROMPT + tokens // 2

    both: Any = [
        _Turning(*each, turned) for each in ((first.up, second.up), (first.down, second.down))
    ]
    return Link(*both)


def texts(place: Place, rows: Rows, mode: Mode, tokens: int, number: int) -> list[float]:
    """Seconds of the texts that a device writes one after the other."""
    target = Target(rows)
    draft = Draft(rows)
    world = World(draft, target, TOKENIZER, CONTEXT, place.draft_s, place.target_s, served=True)
    count = 1 + -(-EARLIER // tokens)

    async def all_() -> list[float]:
        found = []
        async with world.device(link_of(place, target, tokens, number)) as device:
            for text in range(count):
                begins = [(number + text * DEVICES) % 64, *range(1, PROMPT)]
                target.longest = 0
                generation = device.generate(
                    begins, max_tokens=tokens, eos_ids=(), mode=mode, scheme=topk.usual(),
                    sampling=Sampling(1.0), seed=number,
                )  # fmt: skip
                async for _ in generation:
                    pass
                found.append(tokens / generation.result.tokens_per_s)
        return found

    with same_draws():
        return run(all_())


def same_draws() -> Any:
    """A device draws the same token at a position in whichever epoch it does: see the module.

    Of no text that somebody reads: how long a token took that was thrown away may tell of it.
    """
    return mock.patch.object(noise, "key_of_epoch", lambda key, position: key)


@dataclass(frozen=True)
class Cell:
    """Seconds of each mode: by device cold, and warm."""

    place: str
    tokens: int
    cold_s: dict[str, list[float]]
    warm_s: dict[str, list[float]]

    def share(self, *, warm: bool) -> float:
        """Tokens/s of ``auto`` over those of the best fixed mode."""
        seconds = self.warm_s if warm else self.cold_s
        return min(sum(seconds[mode]) for mode in FIXED) / sum(seconds["auto"])

    def best(self, *, warm: bool) -> str:
        """The best fixed mode."""
        seconds = self.warm_s if warm else self.cold_s
        return min(FIXED, key=lambda mode: sum(seconds[mode]))

    @property
    def shares(self) -> list[float]:
        """Of each device, cold: over the mode that is the best of the cell."""
        best = self.cold_s[self.best(warm=False)]
        return [mine / auto for mine, auto in zip(best, self.cold_s["auto"], strict=True)]


def measure(place: Place, rows: Rows, tokens: int, devices: int) -> Cell:
    """One cell."""
    cold: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    for mode in (*FIXED, "auto"):
        found = [texts(place, rows, mode, tokens, number) for number in range(devices)]
        cold[mode], warm[mode] = [one[0] for one in found], [one[-1] for one in found]
    return Cell(str(place), tokens, cold, warm)


def places(part: str) -> Iterator[Place]:
    """A part's cells."""
    if part in ("cells", "apart"):
        links = [link for link in PROFILES if (link in APART) == (part == "apart")]
        for link, pace_s, rows in itertools.product(links, PACES_S, ("T 1", "T 0.7")):
            yield Place(link, rows, pace_s)
    elif part == "odd":
        for link in ("wifi", "lte"):
            yield Place(link, "T 1", 0.045, 0.060)
            yield Place(link, "alpha .3", 0.045)
            yield Place(link, "alpha .3", 0.090)
    else:
        for link, then in itertools.permutations(("wifi", "lte"), 2):
            yield Place(link, "T 1", 0.045, then=then)
        for link, rows in itertools.product(("wifi", "lte"), ("T 1, then .3", ".3, then T 1")):
            yield Place(link, rows, 0.045)


def every_rows(tokens: int, good: dict[float, Rows]) -> dict[str, Rows]:
    """All rows by name."""
    usual = good[1.0]
    bad = usual.worse(0.3)
    turn = PROMPT + tokens // 2
    return {
        "T 1": usual, "T 0.7": good[0.7], "alpha .3": bad,
        "T 1, then .3": usual.then(bad, turn, PROMPT + tokens),
        ".3, then T 1": bad.then(usual, turn, PROMPT + tokens),
    }  # fmt: skip


def heading() -> str:
    """What the lines of cells say."""
    rates = "".join(f"{mode + ', cold warm':>26}" for mode in (*FIXED, "auto"))
    return (
        f"{'link; target, draft; rows':<42}{'tokens':>6}{rates}{'cold':>8}{'warm':>8}{'devices':>9}"
    )


def line(cell: Cell) -> str:
    """A cell: tokens/s of each mode, and the shares of ``auto``, starred below the bar."""
    rates = [
        " ".join(f"{cell.tokens * len(s[mode]) / sum(s[mode]):.1f}"
                 for s in (cell.cold_s, cell.warm_s))
        for mode in (*FIXED, "auto")
    ]  # fmt: skip
    shares = [
        f"{'*' if cell.share(warm=warm) < BARS[warm] else ''}{cell.share(warm=warm):.3f}"
        for warm in (False, True)
    ]
    told = "".join(f"{rate:>26}" for rate in rates) + "".join(f"{share:>8}" for share in shares)
    return f"{cell.place:<42}{cell.tokens:>6}{told}{statistics.median(cell.shares):>9.3f}"


def said(cells: Sequence[Cell]) -> str:
    """What all cells come to."""
    told = []
    for name, warm in (("cold", False), ("warm", True)):
        shares = [cell.share(warm=warm) for cell in cells]
        below = sum(share < BARS[warm] for share in shares)
        told.append(
            f"{name} at least {min(shares):.3f}, median {statistics.median(shares):.3f},"
            f" {below} below {BARS[warm]:g}"
        )
    devices = statistics.median(share for cell in cells for share in cell.shares)
    return f"{len(cells)} cells: {'; '.join(told)}; median over devices, cold, {devices:.3f}"


def main() -> None:
    """Print each cell as it is measured, and what a part comes to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="every fourth cell")
    parser.add_argument("--tokens", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--devices", type=int, default=DEVICES, help="that each cell has")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    out = dict[str, Any]()
    good = {temperature: recorded(temperature) for temperature in TEMPERATURES}
    for part in options.parts or PARTS[:-1]:
        print(part, heading(), sep="\n", flush=True)
        cells = list[Cell]()
        for tokens in options.tokens:
            rows = every_rows(tokens, good)
            for one in list(places(part))[:: 4 if options.quick else 1]:
                cells.append(measure(one, rows[one.rows], tokens, options.devices))
                print(line(cells[-1]), flush=True)
                out[part] = [asdict(cell) for cell in cells]
                if options.json:
                    options.json.write_text(json.dumps(out, indent=1) + "\n")
        print(said(cells), flush=True)


if __name__ == "__main__":
    main()
