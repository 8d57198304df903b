"""What siblings bring ``topk``: tokens a round of a tree and of a chain with as many rows.

    python -m bench.siblings [--temperatures 1 0.7] [--texts 8] [--rounds 8] [--rows 32]
    python -m bench.siblings --bundle DRAFT [--model smollm2]

At rounds along the target's own texts a chain and a tree are drawn, from the same numbers where
both have a proposal, and the target is asked behind each of them: how many tokens each would write
is then exact, and nothing is drawn to judge them. ``forwards`` are the draft's, one for each
proposal that has a child; ``bits`` those of a round, by the real coder. A ``tree`` grows for the
most tokens by rows, a ``wide`` one by time, where a draft forward costs more than a row of the
target. The smaller trees are what the rule grows first, as chains are. By a fourth of the texts it
learns what chances there are, and they are not counted.

Below that the closed forms: the most tokens/s over a link of a chain and of a tree, each of its
best size, in stop-and-wait, and the bound of run-ahead, at the stated times of a draft forward, a
target step and one more row of it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import tinypair
from bench.real import reference, texts
from bench.real.rows import LINKS
from bench.siblings.trees import Chances, Tree, accepted, grow
from bs_runtime.model.block import ROOT as END
from bs_runtime.model.kv import Feed
from bs_runtime.model.target import Target
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution import noise, sampling
from draftlink.distribution.sampling import Sampling
from draftlink.planning import plan, theory
from draftlink.planning.theory import Costs
from draftlink.schemes import topk
from draftlink.schemes.topk import TopK
from tinypair.loopback import draft_bundle

KINDS = ("chain", "tree", "wide")
WARM = 4  # one of so many texts is not counted: the chances are learned there
STRIDE = 8  # tokens of text from one round to the next
Row = NDArray[np.float64]


@dataclass
class Kind:
    """What chains, or trees, came to: a list a text, of rounds, each by the number of rows."""

    tokens: list[list[NDArray[np.float64]]] = field(default_factory=list)
    forwards: list[NDArray[np.float64]] = field(default_factory=list)
    bits: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, tree: Tree, chances: Sequence[float]) -> None:
        """A round of the last text."""
        self.tokens[-1].append(1.0 + np.cumsum(chances))
        self.forwards.append(np.array(tree.forwards(), dtype=float))
        self.bits.append(np.cumsum(tree.bits))

    def means(self) -> dict[str, list[float]]:
        """By the number of rows, from 1 on."""
        rounds = [each for text in self.tokens for each in text]
        told = {"tokens": rounds, "forwards": self.forwards, "bits": self.bits}
        return {name: np.mean(each, axis=0).tolist() for name, each in told.items()}


class Behind:
    """The draft's law behind any path of a text: what its cache has of it is kept."""

    def __init__(self, model: DraftModel, params: Sampling, size: int) -> None:
        self._model, self._params, self._size = model, params, size
        self._fed: list[int] = []

    def law(self, text: list[int], path: list[int]) -> Row:
        """(V,)."""
        ids, same = text + path, 0
        for ours, theirs in zip(self._fed, ids[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        self._model.rollback(same)
        # A token at a time from the text's last on: another chunking rounds otherwise, and chain
        # and tree would draw from other rows where they have the same tokens.
        if same < len(text) - 1:
            self._model.forward(ids[same : len(text) - 1])
        for token in ids[max(same, len(text) - 1) :]:
            row = self._model.forward([token])
        self._fed = ids
        q = sampling.distribution(row[: self._size], self._params, ids)
        return np.pad(q, (0, self._size - len(q)))


@dataclass(frozen=True)
class Pair:
    """A target and its draft, and prompts."""

    name: str
    target: Target
    draft: DraftModel
    prompts: list[list[int]]


def rounds(
    pair: Pair, params: Sampling, scheme: TopK, each: int, most: int, forward: float
) -> tuple[dict[str, Kind], float]:
    """All kinds, of ``most`` rows, along the target's texts; a chain's acceptance rate.

    ``forward``: what a draft forward costs, in rows.
    """
    found, chances = {name: Kind() for name in KINDS}, {name: Chances() for name in KINDS}
    target, draft = pair.target, Behind(pair.draft, params, pair.target.vocab_size)
    key, rng = noise.key_from_seed(0, "device"), np.random.default_rng(0)
    judged = np.zeros(2)
    for number, prompt in enumerate(pair.prompts):
        counted = number >= len(pair.prompts) // WARM
        for kind in found.values():
            kind.tokens += [[]] if counted else []
        for ids in _written(target, prompt, params, each, rng):
            at = len(ids) + 10_000 * number
            for name, kind in found.items():
                tree = grow(
                    partial(draft.law, ids), scheme, chances[name], most, key, at,
                    siblings=name != "chain", forward=forward if name == "wide" else 0.0,
                )  # fmt: skip
                laws = _laws(target, ids, tree, params)
                stood = accepted(tree, laws, chances[name])
                if counted:
                    kind.add(tree, stood)
                if counted and name == "chain":
                    judged += sum(stood), 1.0 + sum(stood[:-1])
    return found, float(judged[0] / judged[1])


def _written(
    target: Target, prompt: list[int], params: Sampling, each: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """A text of the target's at the beginning of each round; ``STRIDE`` tokens lie between."""
    slot, ids, unfed = target.open(), list(prompt), list(prompt)
    for _ in range(each):
        yield list(ids)
        for _ in range(STRIDE):
            p = sampling.distribution(slot.forward(unfed, last=True).numpy()[0], params, ids)
            unfed = [int(rng.choice(len(p), p=p))]
            ids += unfed


def _laws(target: Target, ids: list[int], tree: Tree, params: Sampling) -> list[Row]:
    """The target's law at the end of a text, and behind each proposal: one forward of a tree."""
    slot = target.open()
    slot.forward(ids[:-1], last=True)
    block = [ids[-1], *(one.token for one in tree.drafted)]
    parents = [END, *(parent + 1 for parent in tree.parents)]
    logits = target.forward([Feed(slot, block, len(block), parents)]).numpy()
    paths = [[], *(tree.path(node) for node in range(len(tree.parents)))]
    return [
        sampling.distribution(row, params, [*ids, *path])
        for row, path in zip(logits, paths, strict=True)
    ]


def gains(found: dict[str, Kind], kind: str, rows: int) -> tuple[float, float]:
    """Its tokens a round over a chain's, less 1, and the standard error over texts."""
    tree, chain = (
        np.array([np.sum([each[rows - 1] for each in text]) for text in found[name].tokens])
        for name in (kind, "chain")
    )
    ratio = tree.sum() / chain.sum()
    error = math.sqrt(len(tree) / (len(tree) - 1) * ((tree - ratio * chain) ** 2).sum())
    return float(ratio - 1.0), float(error / chain.sum())


@dataclass(frozen=True)
class Times:
    """In seconds: a draft forward, a target step of one row, and each more row."""

    draft_s: float
    target_s: float
    row_s: float


def fastest(means: dict[str, list[float]], costs: Costs, row_s: float) -> tuple[float, int]:
    """The most tokens/s of stop-and-wait, and with how many rows. ``uplink_s`` is of one bit."""
    rates = [
        tokens / (forwards * costs.draft_s + bits * costs.uplink_s + costs.fixed_s + n * row_s)
        for n, (tokens, forwards, bits) in enumerate(zip(*means.values(), strict=True), 1)
    ]
    best = int(np.argmax(rates))
    return rates[best], best + 1


def foretold(
    told: dict[str, dict[str, list[float]]], alpha: float, times: Times
) -> dict[str, dict[str, Any]]:
    """By link: tokens/s of stop-and-wait by each kind, with its rows; of run-ahead."""
    found = {}
    for name, link in LINKS.items():
        costs = Costs(
            times.draft_s, times.target_s, times.target_s, link.mean_rtt_s, 1.0 / link.rate_up,
            8 * plan.MESSAGE_BYTES * (1.0 / link.rate_up + 1.0 / link.rate_down),
        )  # fmt: skip
        here: dict[str, Any] = {kind: fastest(told[kind], costs, times.row_s) for kind in KINDS}
        token = Costs(
            times.draft_s, times.target_s, times.target_s + times.row_s, link.mean_rtt_s,
            told["chain"]["bits"][0] / link.rate_up, costs.message_s,
        )  # fmt: skip
        found[name] = {**here, "run-ahead": 1.0 / theory.run_ahead_time(alpha, token)}
    return found


def opened(options: argparse.Namespace, console: Console) -> Pair:
    """The pair that is asked for."""
    if options.bundle is None:
        bundle = load_bundle(draft_bundle(console))
        words = bundle.tokenizer()
        prompts = [words.encode(text).ids for text in tinypair.prompts(options.texts)]
        return Pair("embedded pair", Target.load(tinypair.TARGET), DraftModel(bundle), prompts)
    folder = reference.folder(options.model)
    listed = [text for text in texts.of(folder) if text.kind == "chat"][: options.texts]
    draft = DraftModel(load_bundle(options.bundle), threads=torch.get_num_threads())
    prompts = [text.ids[: text.begin] for text in listed]
    return Pair(options.bundle.name, Target.load(folder), draft, prompts)


def report(
    console: Console, title: str, found: dict[str, Kind], alpha: float, times: Times
) -> dict[str, Any]:
    """The two tables of one temperature; what they are made of."""
    told = {name: kind.means() for name, kind in found.items()}
    most = len(told["chain"]["tokens"])
    sizes = [n for n in (4, 8, 16, 32, 64) if n <= most]
    heads = (f"{kind}: tokens, forwards, bits" for kind in KINDS)
    table = Table("rows", *heads, *(f"{kind} brings" for kind in KINDS[1:]), title=title)
    gained = {kind: {n: gains(found, kind, n) for n in sizes} for kind in KINDS[1:]}
    for n in sizes:
        cells = ("{:.2f}  {:.0f}  {:,.0f}".format(*(each[n - 1] for each in told[kind].values()))
                 for kind in KINDS)  # fmt: skip
        brings = ("{:+.1%} ± {:.1%}".format(*of[n]) for of in gained.values())
        table.add_row(str(n), *cells, *brings)
    console.print(table)
    links = foretold(told, alpha, times)
    rates = Table("link", *(f"{kind} (rows)" for kind in KINDS), "run-ahead", "siblings / chain",
                  title=f"tokens/s foretold, α {alpha:.3f}")  # fmt: skip
    for name, here in links.items():
        best = max(here[kind][0] for kind in KINDS[1:])
        rates.add_row(name, *("{:.1f} ({})".format(*here[kind]) for kind in KINDS),
                      f"{here['run-ahead']:.1f}", f"{best / here['chain'][0]:.3f}")  # fmt: skip
    console.print(rates)
    return {"alpha": alpha, "kinds": told, "gains": gained, "links": links}


def main() -> None:
    """Print two tables a temperature."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="a draft of --model, for the embedded pair's")
    parser.add_argument("--model", default="smollm2", help="smollm2, gemma3, or its folder")
    parser.add_argument("--temperatures", nargs="+", type=float, default=(1.0, 0.7))
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8, help="of a text")
    parser.add_argument("--rows", type=int, default=32, help="of a round, at most 63")
    parser.add_argument("--draft-ms", type=float, default=7.0)
    parser.add_argument("--target-ms", type=float, default=45.0)
    parser.add_argument("--row-ms", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 150)
    pair = opened(options, console)
    times = Times(1e-3 * options.draft_ms, 1e-3 * options.target_ms, 1e-3 * options.row_ms)
    told = {}
    for temperature in options.temperatures:
        params = Sampling(temperature)
        forward = times.draft_s / times.row_s
        found, alpha = rounds(pair, params, topk.usual(), options.rounds, options.rows, forward)
        title = f"{pair.name}, temperature {temperature:g}, {options.rounds} × {len(pair.prompts)}"
        told[f"{temperature:g}"] = report(console, title, found, alpha, times)
    if options.json:
        options.json.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
