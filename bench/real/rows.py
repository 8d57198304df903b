"""What rows of ``topk`` keep of a draft's acceptance, what they cost to send, and what comes of it.

    python -m bench.real.rows BUNDLE [...] [--model smollm2] [--temperatures 1 0.7]
        [--rows 8,64,3 8,128,6 ...] [--positions 40] [--draft-ms 7] [--target-ms 45]

Σ min(p, q̂) is the acceptance that rows (K, ℓ, tiers) leave, exact and no draw; p is the float32
reference, q̂ what is sent of a bundle's distribution, over the reference's own chat. Bits are those
of one drafted token coded by itself, milliseconds those of its draw and its coding at both ends.

From these the closed forms of ``draftlink.planning`` foretell tokens/s over several links, at the
stated times of a draft forward and a target step, in the better of stop-and-wait and run-ahead. Of
each pair and link the fastest rows are 1, and the others their share of it: rows are chosen by the
least of these shares, over the pretrained pairs and the embedded one (``tinypair`` in the place of
a bundle). Coarser bundles stand for a draft that knows its target less well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from draftlink.link.shaping import PROFILES, LinkProfile
from draftlink.planning import plan
from draftlink.planning.theory import Costs
from draftlink.schemes.topk import TopK

KINDS = ("chat",)
ROWS = (
    "8,64,3", "8,64,5", "8,64,6", "8,128,5", "8,128,6", "8,128,7", "8,256,6", "16,128,5",
    "16,256,5", "16,256,6", "32,512,4", "64,1024,3", "64,1024,4",
)  # fmt: skip
LINKS = {
    "loopback": LinkProfile(1e10, 1e10, 0.0005),
    "wifi": PROFILES["wifi"],
    "lte": PROFILES["lte"],
    "1 Mbit/s": LinkProfile(1e6, 1e6, 0.060),
    "256 kbit/s": LinkProfile(256e3, 256e3, 0.060),
    "64 kbit/s": LinkProfile(64e3, 64e3, 0.100),
}
EMBEDDED = "tinypair"
EMBEDDED_PROMPTS = 8
SEED = 0
Pair = Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]


def scheme_of(text: str) -> TopK:
    """Rows as they are stated, ``K,l,tiers``. Raises ValueError."""
    k, total, tiers = map(int, text.split(","))
    return TopK(k=k, total=total, tiers=tiers)


@dataclass(frozen=True)
class Times:
    """Of a forward each, in seconds; what a draw and its coding take is added."""

    draft_s: float
    target_s: float


@dataclass
class Kept:
    """What one scheme's rows keep and cost, a position at a time."""

    scheme: TopK
    _kept: list[float] = field(default_factory=list)
    _bits: list[int] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)

    def add(self, p: NDArray[np.float64], q: NDArray[np.floating[Any]], ids: IdModel) -> None:
        """A position's distributions (V,), of the target and of the draft."""
        self._kept.append(sparse.expected_acceptance(p, self.scheme.rows(q)))
        key, weight = noise.key_from_seed(SEED, "device"), float(q.sum(dtype=np.float64))
        begun = time.perf_counter()
        drafted = self.scheme.propose(q, key, len(self._kept), weight)
        payload, bits = self.scheme.encode([drafted], ids)
        self.scheme.decode(payload, 1, ids)
        self._seconds.append(time.perf_counter() - begun)
        self._bits.append(bits)

    def summary(self) -> dict[str, Any]:
        """Means, and the most bits of a token."""
        return {
            "k": self.scheme.k, "total": self.scheme.total, "tiers": self.scheme.tiers,
            "overlap": statistics.fmean(self._kept), "bits": statistics.fmean(self._bits),
            "most_bits": max(self._bits), "ms": 1e3 * statistics.fmean(self._seconds),
        }  # fmt: skip


def foretold(row: dict[str, Any], link: LinkProfile, times: Times) -> float:
    """Tokens/s of rows over a link, drafting in the better of the two ways."""
    coding_s = 1e-3 * row["ms"]
    costs = Costs(
        draft_s=times.draft_s + coding_s,
        target_s=times.target_s,
        verify_s=times.target_s,
        rtt_s=link.mean_rtt_s,
        uplink_s=row["bits"] / link.rate_up,
        message_s=8 * plan.MESSAGE_BYTES * (1.0 / link.rate_up + 1.0 / link.rate_down),
    )
    return max(
        mode.tokens_per_s for mode in plan.modes(row["overlap"], costs) if mode.mode != "stream"
    )


def shares(told: Sequence[Sequence[dict[str, Any]]], times: Times) -> list[dict[str, list[float]]]:
    """Of each pair and link, each scheme's tokens/s over the most that any of them has."""
    found = []
    for pair in told:
        by_link = {}
        for name, link in LINKS.items():
            rates = [foretold(row, link, times) for row in pair]
            by_link[name] = [rate / max(rates) for rate in rates]
        found.append(by_link)
    return found


def pretrained(folder: Path, bundle: Path, temperature: float, positions: int) -> Pair:
    """A bundle beside the float32 reference that it was made of, over the reference's chat."""
    listed = [text for text in texts.of(folder) if text.kind in KINDS]
    model, _ = texts.load(folder)
    return _along(model, bundle, temperature, listed, positions)


def embedded(temperature: float, positions: int) -> Pair:
    """The embedded pair, over its target's own text."""
    import torch

    import tinypair
    from tinypair.loopback import draft_bundle

    model, tokenizer = texts.load(tinypair.TARGET)
    torch.manual_seed(SEED)
    listed = []
    for prompt in tinypair.prompts(EMBEDDED_PROMPTS):
        given = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            ids = model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=positions,
                do_sample=True, temperature=1.0, top_k=0, pad_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        listed.append(texts.Text("", ids[0].tolist(), given.shape[1]))
    bundle = draft_bundle(Console(stderr=True))
    return _along(model, bundle, temperature, listed, positions)


def _along(
    model: Any, bundle: Path, temperature: float, listed: Iterable[texts.Text], positions: int
) -> Pair:
    draft = Draftlink(bundle, 1).cache()
    for text in listed:
        begun = texts.Text(text.kind, text.ids[: text.begin + positions], text.begin)
        expected = overlap.rows_of(model, begun)
        for target, own in zip(expected, rows(draft, begun.ids, begun.begin), strict=True):
            p = overlap.distribution(target / temperature)
            q = overlap.distribution(own / temperature)[: len(target)]
            yield p, q.astype(np.float32)


def measure(pair: Pair, schemes: Sequence[TopK]) -> tuple[list[float], list[dict[str, Any]]]:
    """Σ min(p, q) of every position, and what each scheme makes of them."""
    found, bounds = [Kept(scheme) for scheme in schemes], []
    for p, q in pair:
        bounds.append(float(np.minimum(p, q).sum()))
        for each in found:
            each.add(p, q, IdModel(len(p)))
    return bounds, [each.summary() for each in found]


def table(
    title: str, told: Sequence[dict[str, Any]], ratios: dict[str, list[float]], times: Times
) -> Table:
    """A row a scheme: what it keeps and costs, and its share of the most tokens/s by link."""
    out = Table(
        "K, ℓ, tiers", "Σ min(p, q̂)", "bits a drafted token", "at most", "ms", *LINKS, title=title
    )
    for index, one in enumerate(told):
        out.add_row(
            f"{one['k']}, {one['total']}, {one['tiers']}", f"{one['overlap']:.4f}",
            f"{one['bits']:.0f}", str(one["most_bits"]), f"{one['ms']:.2f}",
            *(f"{ratios[name][index]:.3f} ({foretold(one, link, times):.1f})"
              for name, link in LINKS.items()),
        )  # fmt: skip
    return out


def main() -> None:
    """Print a table a pair, and for each link the rows with the largest least share."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help=f"or {EMBEDDED}")
    parser.add_argument("--model", default="smollm2", help="smollm2, gemma3, or its folder")
    parser.add_argument("--temperatures", nargs="+", type=float, default=(1.0,))
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="K,l,TIERS")
    parser.add_argument("--positions", type=int, default=40, help="of each text")
    parser.add_argument("--draft-ms", type=float, default=7.0)
    parser.add_argument("--target-ms", type=float, default=45.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    schemes = [scheme_of(text) for text in options.rows]
    times = Times(1e-3 * options.draft_ms, 1e-3 * options.target_ms)
    names, told, bounds = [], [], []
    for bundle in options.bundles:
        for temperature in options.temperatures:
            if bundle == EMBEDDED:
                pair = embedded(temperature, options.positions)
            else:
                folder = reference.folder(options.model)
                pair = pretrained(folder, Path(bundle), temperature, options.positions)
            of_pair, summaries = measure(pair, schemes)
            names.append(f"{Path(bundle).name} at {temperature:g}")
            bounds.append(of_pair)
            told.append(summaries)
    ratios = shares(told, times)
    console = Console(width=None if Console().is_terminal else 170)
    for name, one, by_link, each in zip(names, told, ratios, bounds, strict=True):
        title = f"{name}: {len(each)} positions; Σ min(p, q) {statistics.fmean(each):.4f}"
        console.print(table(title, one, by_link, times))
    least = Table("least share", *LINKS)
    for index, text in enumerate(options.rows):
        worst = [min(by_link[name][index] for by_link in ratios) for name in LINKS]
        least.add_row(text, *(f"{one:.3f}" for one in worst))
    console.print(least)
    if options.json:
        found = [
            {"pair": name, "bound": statistics.fmean(each), "rows": one, "shares": by_link}
            for name, each, one, by_link in zip(names, bounds, told, ratios, strict=True)
        ]
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
