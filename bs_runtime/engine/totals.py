"""What a scheduler has done since it was made."""

from __future__ import annotations

from dataclasses import dataclass

from bs_runtime.engine.flight import Batch


@dataclass
class Totals:
    """Counts of steps; the mean batch size is rounds / steps."""

    steps: int = 0
    rounds: int = 0  # that took part in a step, once for each step
    tokens: int = 0
    busy_s: float = 0.0

    def add(self, batch: Batch, seconds: float) -> None:
        """A step has ended."""
        self.steps += 1
        self.rounds += len(batch)
        self.tokens += sum(count for _, count in batch)
        self.busy_s += seconds
