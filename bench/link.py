"""Every mode over every link, in virtual time, paced: tokens/s, and what theory says.

    python -m bench.link                 every cell; --quick for a small one; --json, --plot

Both ends' own code and the embedded pair's own tokens, over modelled links, on a virtual clock (see
``bench.virtual``); forwards are held to 10 ms (draft) and 45 or 90 ms (target). A cell is a link, a
target's pace and a rule (``coupled`` at temperature 0.8, and greedy); in it 8 prompts are each gone
on with for 256 tokens, by stop-and-wait with each of several draft lengths (the best counts), by
run-ahead, by the target alone and by ``auto``. Estimators start cold. Tokens/s are all tokens over
all time, first tokens included. ``ideal`` is the best that one serial verifier allows run-ahead:
``schedule.ideal_time``, or, where a link loses packets, ``virtual.ideal`` on that link.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import tinypair
from bench.plots import link as link_plot
from bench.virtual import pair
from bench.virtual.ideal import ideal_rate
from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.model.target import Target
from device_runtime.device import Coupled, Result, Sampling
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.link.shaping import PROFILES, LinkProfile, make_link
from draftlink.planning import schedule, theory
from tinypair.loopback import draft_bundle

DRAFT_S = 0.010
PACES = (0.045, 0.090)
PROMPTS, TOKENS = 8, 256
GAMMAS = (3, 4, 5, 6, 8, 10, 13)
LOSSY_SEEDS = 4  # realisations of a link that loses packets, for each prompt
RULES: dict[str, dict[str, Any]] = {
    "coupled": {"scheme": Coupled(), "seed": 0, "sampling": Sampling(temperature=0.8)},
    "greedy": {"sampling": Sampling(temperature=0.0)},
}
FIXED = ("stop-and-wait", "run-ahead", "stream")


@dataclass
class Cell:
    """A link, a pace and a rule: tokens and seconds of each mode, and of each draft length."""

    link: str
    target_s: float
    rule: str
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    ttft_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, result: Result) -> None:
        """A generation in a mode, or of a draft length."""
        judged = result.drafted - result.discarded
        seconds = len(result.tokens) / result.tokens_per_s
        self.tokens[name] = self.tokens.get(name, 0) + len(result.tokens)
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.accepted[name] = self.accepted.get(name, 0) + result.accepted
        self.rejected[name] = self.rejected.get(name, 0) + judged - result.accepted
        self.ttft_s.setdefault(name, []).append(result.ttft_s)

    def rate(self, name: str) -> float:
        """Tokens/s."""
        return self.tokens[name] / self.seconds[name]

    @property
    def gamma(self) -> int:
        """The best fixed draft length of stop-and-wait."""
        lengths = [int(name) for name in self.seconds if name.isdecimal()]
        return min(lengths, key=lambda gamma: self.seconds[str(gamma)])

    @property
    def alpha(self) -> float:
        """Acceptance per judged token, in run-ahead."""
        return self.accepted["run-ahead"] / (
            self.accepted["run-ahead"] + self.rejected["run-ahead"]
        )

    def summary(self) -> dict[str, Any]:
        """The cell's numbers: rates in tokens/s, ratios."""
        costs = theory.Costs(DRAFT_S, self.target_s, self.target_s, PROFILES[self.link].mean_rtt_s)
        rates = {
            "stop-and-wait": self.rate(str(self.gamma)),
            "run-ahead": self.rate("run-ahead"),
            "stream": self.rate("stream"),
            "auto": self.rate("auto"),
        }
        profile = PROFILES[self.link]
        if profile.loss:
            ideal = ideal_rate(profile, self.alpha, costs)
        else:
            ideal = 1.0 / schedule.ideal_time(self.alpha, costs, restart_s=DRAFT_S / 2.0)
        delay = [
            through - alone
            for through, alone in zip(self.ttft_s["auto"], self.ttft_s["stream"], strict=True)
        ]
        return {
            "link": self.link,
            "target_s": self.target_s,
            "rule": self.rule,
            "alpha": self.alpha,
            "gamma": self.gamma,
            "tokens_per_s": rates,
            "renewal_bound": 1.0 / theory.run_ahead_time(self.alpha, costs),
            "ideal": ideal,
            "run_ahead_over_wait": rates["run-ahead"] / rates["stop-and-wait"],
            "run_ahead_over_ideal": rates["run-ahead"] / ideal,
            "auto_over_best": rates["auto"] / max(rates[mode] for mode in FIXED),
            "auto_over_stream": rates["auto"] / rates["stream"],
            "ttft_delay_s": max(delay),
        }


class Bench:
    """The embedded pair, and worlds of it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        bundle = load_bundle(draft_bundle(Console(stderr=True)))
        self.draft = pair.Draft(DraftModel(bundle))
        self.target = pair.Target(Target.load(tinypair.TARGET))
        self.tokenizer = bundle.tokenizer()
        self._context = bundle.manifest.context

    def write(
        self,
        link: LinkProfile,
        target_s: float,
        prompt: str,
        tokens: int,
        link_seed: int,
        *,
        draft_s: float = DRAFT_S,
        look_up: bool = False,
        **options: Any,
    ) -> Result:
        """One generation."""
        world = World(
            self.draft, self.target, self.tokenizer, self._context, draft_s, target_s,
            look_up=look_up,
        )  # fmt: skip

        async def one() -> Result:
            async with world.device(make_link(link, seed=link_seed)) as device:
                generation = device.generate(prompt, max_tokens=tokens, eos_ids=(), **options)
                async for _ in generation:
                    pass
                return generation.result

        return run(one())


def measure(
    bench_: Bench,
    links: Sequence[str],
    paces: Sequence[float],
    rules: Sequence[str],
    prompts: Sequence[str],
    tokens: int,
    gammas: Sequence[int] = GAMMAS,
    note: Callable[[str], None] = lambda line: None,
) -> list[Cell]:
    """Every cell. The text of a prompt must be the same in all of them; raises RuntimeError."""
    cells = {
        (link, pace, rule): Cell(link, pace, rule)
        for link in links
        for pace in paces
        for rule in rules
    }
    for rule in rules:
        for number, prompt in enumerate(prompts):
            texts = set()
            for (link, pace, of), cell in cells.items():
                if of != rule:
                    continue
                runs: list[tuple[str, dict[str, Any]]] = [
                    (str(gamma), {"mode": "stop-and-wait", "gamma": gamma}) for gamma in gammas
                ]
                runs += [(mode, {"mode": mode}) for mode in ("run-ahead", "stream", "auto")]
                seeds = LOSSY_SEEDS if PROFILES[link].loss else 1
                for name, options in runs:
                    for seed in range(seeds * number, seeds * (number + 1)):
                        result = bench_.write(
                            PROFILES[link], pace, prompt, tokens, seed, **options, **RULES[rule]
                        )
                        cell.add(name, result)
                        texts.add(tuple(result.tokens))
            if len(texts) != 1:
                raise RuntimeError(f"{rule}, prompt {number}: {len(texts)} different texts")
            bench_.draft.forget()
            bench_.target.forget()
            note(f"{rule}: prompt {number + 1} of {len(prompts)}")
    return list(cells.values())


def table(summaries: Sequence[dict[str, Any]]) -> Table:
    """One row a cell."""
    out = Table(
        *("link", "target", "rule", "α", "wait (γ)", "run-ahead", "stream", "auto"),
        *("ahead/wait", "ahead/ideal", "ideal", "bound", "auto/best", "TTFT +ms"),
    )
    for cell in summaries:
        rates = cell["tokens_per_s"]
        out.add_row(
            cell["link"],
            f"{1e3 * cell['target_s']:.0f} ms",
            cell["rule"],
            f"{cell['alpha']:.3f}",
            f"{rates['stop-and-wait']:.1f} ({cell['gamma']})",
            *(f"{rates[mode]:.1f}" for mode in ("run-ahead", "stream", "auto")),
            f"{cell['run_ahead_over_wait']:.2f}",
            f"{cell['run_ahead_over_ideal']:.2f}",
            f"{cell['ideal']:.1f}",
            f"{cell['renewal_bound']:.1f}",
            f"{cell['auto_over_best']:.3f}",
            f"{1e3 * cell['ttft_delay_s']:.1f}",
        )
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 links, 2 prompts, 64 tokens")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG or SVG")
    asked = parser.parse_args()
    links: Sequence[str] = ("wifi", "lte") if asked.quick else tuple(PROFILES)
    prompts, tokens = (2, 64) if asked.quick else (PROMPTS, TOKENS)
    cells = measure(
        Bench(),
        links,
        PACES,
        tuple(RULES),
        tinypair.prompts(prompts),
        tokens,
        note=lambda line: Console(stderr=True).print(line),
    )
    summaries = [cell.summary() for cell in cells]
    Console(width=160).print(table(summaries))
    print(
        f"paced; draft {1e3 * DRAFT_S:.0f} ms; {prompts} prompts x {tokens} tokens;"
        f" auto / best: least {min(c['auto_over_best'] for c in summaries):.3f},"
        f" median {statistics.median(c['auto_over_best'] for c in summaries):.3f}"
    )
    if asked.json:
        asked.json.write_text(
            json.dumps({"cells": summaries, "runs": [asdict(cell) for cell in cells]}, indent=1)
        )
    if asked.plot:
        link_plot.plot(summaries, (*FIXED, "auto"), asked.plot)


if __name__ == "__main__":
    main()
