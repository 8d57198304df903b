"""What comes down for a rejection of ``split``: pairs of the target, and more where all miss.

    python -m bench.recovery [--model FOLDER] [--bundle DRAFT] [--prompts 8] [--tokens 64]
                             [--k 64] [--total 1024] [--temperature 1.0] [--better 0]
                             [--json FILE] [--sockets]

The text is the target's own draw; at each of its positions q̂ is the draft's row, and a rejection
has the probability that ``split`` gives it, A = Σ max(0, p − q̂): nothing is drawn to reject. The
share of corrections that n pairs miss is exact: Σ A · (1 − A)ⁿ / Σ A. Bits are those of blocks that
are drawn and packed at every position, weighted by A, and what an exchange more brings, weighted by
how often it comes; with the frames that carry them. "rule" is the number that the base station
sends at first by the rate of rejections here.

``--better``: a draft that is right more often than the one there is: its law is a mixture of the
target's, with this share, and its own: of what is rejected at a position that share no longer is.
At --better 0.88 --k 2048 --total 65536 the embedded pair's is accepted 97 times of a hundred.

``--sockets``: the embedded pair over sockets instead, by rows and by pairs: what the ledger has of
verdicts, for each rejection.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import tinypair
from bs_runtime.model.target import Target
from bs_runtime.verify.job import Job
from bs_runtime.verify.recovery import packed
from device_runtime.device import Device
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution import noise, sampling, sparse
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import Sampling
from draftlink.host import children
from draftlink.link.ledger import total
from draftlink.protocol import frames
from draftlink.schemes import split
from draftlink.schemes.split import Split
from tinypair.loopback import base_station, draft_bundle

COUNTS = (8, 16, 32, 64, 128, 256)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Position:
    """How likely it is that a drafted token is rejected here, and bits of what may then come."""

    rejected: float
    first: dict[int, int]  # by the number of pairs that come at first: of their verdict,
    rest: dict[int, int]  # and of the others', with the draft that asks for them
    row: int  # of the row, with the draft that asks for it


@dataclass(frozen=True)
class Line:
    """Of one number of pairs: the share of corrections that they miss, and bits for each."""

    pairs: int
    missed: float
    pairs_bits: float
    all_bits: float


def texts(
    target: Target, draft: DraftModel, prompts: Sequence[list[int]], tokens: int, params: Sampling,
    better: float = 0.0,
) -> Iterator[tuple[Floats, Floats, NDArray[np.float32]]]:  # fmt: skip
    """p and q, (V,), at each position of the target's own texts, and the target's row."""
    slot, rng = target.open(), np.random.default_rng(0)
    for prompt in prompts:
        slot.rollback(0)
        draft.rollback(0)
        past = unfed = prompt
        begins = len(past)
        for _ in range(tokens):
            row = slot.forward(unfed).numpy()[-1]
            p, q = (
                sampling.distribution(logits, params, past, begins)
                for logits in (row, draft.forward(unfed)[: len(row)])
            )
            q = np.pad(q, (0, len(p) - len(q)))
            yield p, better * p + (1.0 - better) * q, row
            token = int(rng.choice(len(p), p=p))
            past, unfed = [*past, token], [token]


def position(p: Floats, q: Floats, row: NDArray[np.float32], scheme: Split, at: int) -> Position:
    """What may come at one position, drawn from numbers of its own."""
    drafted = sparse.lattice(q, scheme.k, scheme.total)
    left = p.copy()
    left[drafted.ids] -= drafted.probabilities()
    rejected = float(np.maximum(left, 0.0).sum())
    key = noise.key_from_seed(0, "bs")
    job = Job((), [0] * at, Sampling(), scheme, key, Purpose.BONUS)
    asks = 8 * len(frames.encode(frames.Draft(at, at, 0, b"", had=scheme.recovers)))

    def verdict(block: bytes) -> int:
        return 8 * len(frames.encode(frames.Verdict(at, at, 2, None, False, 999, 9999, block)))

    mass = torch.from_numpy(p)
    first = {n: verdict(packed(mass, job, at, 0, n)) for n in COUNTS}
    few = np.count_nonzero(p) <= split.FEW  # and is sent whole: nothing is missed
    rest = {
        n: 0 if few or n >= scheme.recovers else asks + verdict(packed(mass, job, at, n, 256))
        for n in COUNTS
    }
    return Position(rejected, first, rest, 0 if few else asks + verdict(split.pack_row(row)))


def lines(positions: Sequence[Position], most: int) -> list[Line]:
    """For each number of pairs at first, of the positions together."""
    a = np.array([one.rejected for one in positions])
    row = np.array([one.row for one in positions])
    whole, lost = a.sum(), a * (1 - a) ** most
    found = []
    for n in COUNTS:
        missed = a * (1 - a) ** n
        first = np.array([one.first[n] for one in positions])
        rest = np.array([one.rest[n] for one in positions])
        bits = (a * first + missed * rest * (n < most) + lost * row).sum() / whole
        share, of_first = (missed * (row > 0)).sum() / whole, (a * first).sum() / whole
        found.append(Line(n, float(share), float(of_first), float(bits)))
    return found


def over_sockets(texts: int, tokens: int, params: Sampling, console: Console) -> Table:
    """Stop-and-wait, γ = 4: bits of all verdicts for each correction, and how often more came."""
    out = Table("", "corrections", "asked again", "bits down for a correction", "for a token")
    bundle = draft_bundle(console)

    async def run(url: str) -> None:
        async with Device(bundle, url) as device:
            for name, pairs in (("rows", 0), ("pairs", split.MOST_PAIRS)):
                results = []
                for seed, prompt in enumerate(tinypair.prompts(texts)):
                    generation = device.generate(
                        prompt, scheme=Split(pairs=pairs), mode="stop-and-wait", gamma=4,
                        sampling=params, seed=seed, max_tokens=tokens, eos_ids=(),
                    )  # fmt: skip
                    async for _ in generation:
                        pass
                    results.append(generation.result)
                corrections = sum(result.kinds.count("correction") for result in results)
                down = 8 * sum(total(r.ledger, "down", "Verdict").frame_bytes for r in results)
                drafts = sum(total(r.ledger, "up", "Draft").frames for r in results)
                asked = drafts - sum(result.rounds for result in results)
                count = sum(len(result.tokens) for result in results)
                out.add_row(
                    name, str(corrections), str(asked), f"{down / corrections:,.0f}",
                    f"{down / count:,.0f}",
                )  # fmt: skip

    with base_station(console) as url:
        children.run(run(url))
    return out


def main() -> None:
    """Print a line for each number of pairs that come at first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=tinypair.TARGET, help="a local folder")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--k", type=int, default=Split().k)
    parser.add_argument("--total", type=int, default=Split().total)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--better", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sockets", action="store_true")
    options = parser.parse_args()
    console, params = Console(), Sampling(options.temperature)
    if options.sockets:
        console.print(over_sockets(options.prompts, options.tokens, params, console))
        return
    bundle = options.bundle or draft_bundle(console)
    loaded = load_bundle(bundle)
    target, draft, words = Target.load(options.model), DraftModel(loaded), loaded.tokenizer()
    scheme = Split(options.k, options.total, split.MOST_PAIRS)
    said = tinypair.prompts(options.prompts)
    prompts = [words.encode(text, add_special_tokens=False).ids for text in said]
    with console.status("writing"):
        found = [
            position(p, q, row, scheme, at)
            for at, (p, q, row) in enumerate(
                texts(target, draft, prompts, options.tokens, params, options.better)
            )
        ]
    told = lines(found, scheme.recovers)
    a = float(np.mean([one.rejected for one in found]))
    rule = split.pairs_at_first(target.vocab_size, a)
    row = sum(one.rejected * one.row for one in found) / sum(one.rejected for one in found)
    table = Table(
        "pairs at first", "missed", "bits of the verdict", "bits for a rejection",
        title=f"{target.name}, V = {target.vocab_size}, {len(found)} positions, α = {1 - a:.3f};"
        f" rule {rule} pairs; a row {row:,.0f} bits",
    )  # fmt: skip
    for line in told:
        table.add_row(
            str(line.pairs),
            f"{line.missed:.4f}",
            f"{line.pairs_bits:,.0f}",
            f"{line.all_bits:,.0f}",
        )
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps({"alpha": 1 - a, "rule": rule, "row_bits": row,
                                            "lines": [asdict(line) for line in told]}))  # fmt: skip


if __name__ == "__main__":
    main()
