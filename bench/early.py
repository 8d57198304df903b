"""Would preparing corrections pay? An upper bound, in virtual time, paced.

    python -m bench.early

While a verdict is awaited the device could draft behind the likeliest correction: the runner-up at
the position that is least certain. This asks what that could bring at best. Wherever the correction
that comes is one that was guessed, drafting behind it costs nothing, for as many tokens as fit a
round trip and a verification; guessing itself, the second KV cache that it needs and the drafting
that it keeps the device from cost nothing either. ``one`` guesses at the least certain position,
``all`` at every drafted one, which no device could.

So it was not built: the one guess is right for 8% to 16% of run-ahead's corrections, which would
bring it 0.1% to 2.5% at the very best, and run-ahead has no idle time to guess in. Stop-and-wait
would gain 2% to 5%, where run-ahead itself gains 11% and more.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import tinypair
from bench.link import DRAFT_S, RULES, Bench
from bench.virtual.loop import VirtualLoop
from device_runtime.device import Sampling
from draftlink.distribution import noise, sampling
from draftlink.distribution.gumbel import Race
from draftlink.link.shaping import PROFILES

LINKS = ("wifi", "lte", "satellite")
TARGET_S = 0.045
PROMPTS, TOKENS = 6, 192
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("stop-and-wait", {"mode": "stop-and-wait", "gamma": 4}),
    ("stop-and-wait", {"mode": "stop-and-wait", "gamma": 8}),
    ("run-ahead", {"mode": "run-ahead"}),
)

Picks = Callable[[NDArray[np.float32], int], tuple[int, int, float]]


def coupled_picks(row: NDArray[np.float32], position: int) -> tuple[int, int, float]:
    """What the draft proposes at a position, its guess at a correction, and how sure it is."""
    q = sampling.distribution(row, RULES["coupled"]["sampling"], ())
    race = Race(noise.key_from_seed(RULES["coupled"]["seed"], "coupled"))
    first = race.pick(position, q)
    chance, q[first] = float(q[first]), 0.0
    return first, race.pick(position, q), chance


def greedy_picks(row: NDArray[np.float32], _: int) -> tuple[int, int, float]:
    """The same at temperature 0."""
    second, first = np.argsort(row)[-2:].tolist()
    return first, second, float(sampling.distribution(row, Sampling(), ())[first])


class Prescient:
    """A draft whose forwards behind a correction that was guessed take no time."""

    def __init__(self, model: Any, picks: Picks, guesses: int, ready: int) -> None:
        self._model, self._picks = model, picks
        self._guesses = guesses  # positions at which a correction is guessed
        self._ready = ready  # tokens that can be drafted behind it meanwhile
        self._proposed: dict[int, tuple[int, int, float]] = {}  # by position, in this epoch
        self._free = 0
        self.corrections = self.guessed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ids; the last one's logits (V,)."""
        place = self._model.length + len(ids) - 1
        here = self._proposed.get(place)
        if here is not None and here[0] != ids[-1]:
            self._free = 0
            unsure = sorted(self._proposed, key=lambda p: self._proposed[p][2])[: self._guesses]
            self.corrections += 1
            if place in unsure and here[1] == ids[-1]:
                self.guessed += 1
                self._free = self._ready
            self._proposed.clear()
        row: NDArray[np.float32] = self._model.forward(ids)
        self._proposed[place + 1] = self._picks(row, place + 1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.spend(0.0 if self._free else DRAFT_S)
        self._free = max(self._free - 1, 0)
        return row


def main() -> None:
    """Print the bound for each link, rule and way of drafting."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    here = Bench()
    draft = here.draft
    prompts = tinypair.prompts(PROMPTS)
    table = Table("link", "rule", "mode", "tokens/s", "hits, one", "gain", "hits, all", "gain",
                  title=f"paced {1e3 * DRAFT_S:.0f} / {1e3 * TARGET_S:.0f} ms")  # fmt: skip
    for rule, picks in (("coupled", coupled_picks), ("greedy", greedy_picks)):
        for link in LINKS:
            wait_s = PROFILES[link].mean_rtt_s + TARGET_S
            for name, options in WAYS:
                rates, shares = [], []
                for guesses in (0, 1, 64):
                    seconds = corrections = guessed = 0.0
                    for number, prompt in enumerate(prompts):
                        seer = Prescient(draft, picks, guesses, int(wait_s / DRAFT_S))
                        here.draft = seer  # type: ignore[assignment]
                        result = here.write(
                            PROFILES[link], TARGET_S, prompt, TOKENS, number, draft_s=0.0,
                            **options, **RULES[rule],
                        )  # fmt: skip
                        seconds += len(result.tokens) / result.tokens_per_s
                        corrections += seer.corrections
                        guessed += seer.guessed
                    rates.append(PROMPTS * TOKENS / seconds)
                    shares.append(guessed / corrections)
                table.add_row(
                    link, rule, f"{name} {options.get('gamma', '')}", f"{rates[0]:.1f}",
                    f"{shares[1]:.0%}", f"{rates[1] / rates[0] - 1:+.1%}",
                    f"{shares[2]:.0%}", f"{rates[2] / rates[0] - 1:+.1%}",
                )  # fmt: skip
        draft.forget()
        here.target.forget()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
