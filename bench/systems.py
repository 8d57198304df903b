"""Against other systems in the same harness, and stop-and-wait against its formula.

    python -m bench.systems

Virtual time, paced, the embedded pair (see ``bench.link``). TK-SLT as published: stop-and-wait,
``topk`` with K = 320 in FP16, its own γ*, which knows no round trip. DSSD: stop-and-wait,
``split``, γ from the measured costs. Against them ``auto`` with ``coupled`` and with the default
``topk``; and the server that speculates by itself: no device, the base station streams and checks
what it looks up in prompt and text, beside a stream without. For ``topk`` the texts of two modes
differ: their ratio has a 95% interval over prompts.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from typing import Any

import tinypair
from bench.link import DRAFT_S, Bench
from device_runtime.device import Coupled, Result, Sampling, Split, TopK
from device_runtime.result import alpha
from draftlink.link.shaping import PROFILES
from draftlink.planning import theory
from draftlink.schemes import topk

TARGET_S = 0.045
PROMPTS, TOKENS = 4, 128
SAMPLING = Sampling(temperature=0.8)
PAPER_K = 320
T_975 = 2.365  # Student's, 7 degrees of freedom


def rate(results: Sequence[Result]) -> float:
    """Tokens/s of all together."""
    tokens = sum(len(result.tokens) for result in results)
    return tokens / sum(len(result.tokens) / result.tokens_per_s for result in results)


class Systems:
    """Runs over all prompts."""

    def __init__(self, prompts: Sequence[str], tokens: int) -> None:
        self._bench = Bench()
        self._prompts = prompts
        self._tokens = tokens

    def run(self, link: str, **options: Any) -> list[Result]:
        """A result for each prompt."""
        return [
            self._bench.write(
                PROFILES[link], TARGET_S, prompt, self._tokens, number, sampling=SAMPLING,
                seed=number, **options,
            )
            for number, prompt in enumerate(self._prompts)
        ]  # fmt: skip

    def compare(self) -> None:
        """One line for each link."""
        published = {"scheme": TopK(k=PAPER_K, coding="fp16"), "mode": "stop-and-wait"}
        found = alpha(self.run("paper", gamma=5, **published))
        print(f"TK-SLT's acceptance {found:.3f}; tokens/s, and how many times as many as theirs")
        print("link       TK-SLT (γ*)    DSSD  auto coupled  /TK-SLT  /DSSD  auto topk  /TK-SLT"
              "  stream  look-up")  # fmt: skip
        for link, shape in PROFILES.items():
            # Its own count: K FP16 values, no indices.
            ratio = (DRAFT_S + 16 * PAPER_K / shape.rate_up) / TARGET_S
            gamma = theory.optimal_draft_length(found, ratio)
            paper = rate(self.run(link, gamma=gamma, **published))
            dssd = rate(self.run(link, scheme=Split(pairs=0), mode="stop-and-wait"))
            ours = rate(self.run(link, scheme=Coupled(), mode="auto"))
            rows = rate(self.run(link, scheme=topk.usual(), mode="auto"))
            alone = rate(self.run(link, scheme=Coupled(), mode="stream"))
            server = rate(self.run(link, scheme=Coupled(), mode="stream", look_up=True))
            print(
                f"{link:10} {paper:6.1f} ({gamma})   {dssd:6.1f}   {ours:9.1f}"
                f"  {ours / paper:10.2f}"
                f" {ours / dssd:7.2f} {rows:10.1f} {rows / paper:8.2f}"
                f" {alone:7.1f} {server:8.1f}"
            )

    def formula(self) -> None:
        """Stop-and-wait, foretold from acceptance and costs."""
        print("\nstop-and-wait, coupled: tokens/s foretold by (1 − α^(γ+1)) / (1 − α) / round,")
        print("with the share of rounds that reach each position in its place, and measured")
        for link in ("wifi", "satellite"):
            for gamma in (3, 5, 8):
                results = self.run(link, scheme=Coupled(), mode="stop-and-wait", gamma=gamma)
                rounds = sum(result.rounds for result in results)
                stood = [0] * gamma
                for result in results:
                    for place, count in enumerate(result.accept_histogram):
                        stood[place] += count
                here = alpha(results)
                round_s = gamma * DRAFT_S + PROFILES[link].rtt_s + TARGET_S
                iid = theory.expected_tokens(here, gamma) / round_s
                by_place = (1.0 + sum(stood) / rounds) / round_s
                measured = rate(results)
                steps = [b / a for a, b in zip([rounds, *stood[:-1]], stood, strict=True)]
                print(
                    f"{link:10} γ={gamma} α={here:.3f} foretold {iid:5.2f} ({iid / measured:.3f}),"
                    f" by position {by_place:5.2f} ({by_place / measured:.3f}), measured"
                    f" {measured:5.2f}; acceptance by position"
                    f" {' '.join(f'{step:.2f}' for step in steps)}"
                )

    def interval(self, link: str) -> None:
        """Run-ahead over stop-and-wait, ``topk``: the mean ratio over prompts, 95% interval."""
        waits = {
            gamma: self.run(link, scheme=topk.usual(), mode="stop-and-wait", gamma=gamma)
            for gamma in (3, 4, 5, 6, 8)
        }
        best = max(waits, key=lambda gamma: rate(waits[gamma]))
        ahead = self.run(link, scheme=topk.usual(), mode="run-ahead")
        logs = [
            math.log(a.tokens_per_s / w.tokens_per_s)
            for a, w in zip(ahead, waits[best], strict=True)
        ]
        mean = statistics.fmean(logs)
        half = T_975 * statistics.stdev(logs) / math.sqrt(len(logs))
        print(
            f"{link}: topk run-ahead / stop-and-wait (γ={best}) {math.exp(mean):.3f},"
            f" {math.exp(mean - half):.3f} to {math.exp(mean + half):.3f}"
        )


def main() -> None:
    """Print all three."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    few = Systems(tinypair.prompts(PROMPTS), TOKENS)
    few.compare()
    few.formula()
    print()
    many = Systems(tinypair.prompts(8), 256)
    for link in ("wifi", "lte"):
        many.interval(link)


if __name__ == "__main__":
    main()
