"""A step as a value: what is done to slots, and then what they are fed; and who runs one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bs_runtime.model.commands import Command, Contents
from bs_runtime.model.kv import Feed


@dataclass(frozen=True)
class Step:
    """``commands``, carried out in their order, and then ``feeds``, each of another slot.

    From its launch until it is collected its slots are in no other step, and nobody but whoever
    runs it changes them.
    """

    commands: Sequence[Command]
    feeds: Sequence[Feed]

    @property
    def slots(self) -> set[Contents]:
        """All that it reads or changes."""
        found: set[Contents] = {feed.slot for feed in self.feeds}
        for command in self.commands:
            found.update(command.slots)
        return found


class Serial:
    """Takes one step at a time, and runs it in the thread that collects it, by ``forward``."""

    in_flight = 1
    branches: bool = False  # whether a feed's block may branch
    _launched: Step | None = None

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Feed many slots at once: see ``Engine.forward``."""
        raise NotImplementedError

    def launch(self, step: Step) -> None:
        """Take a step. Raises RuntimeError where one is in flight."""
        if self._launched is not None:
            raise RuntimeError("one step at a time: collect the one that is in flight")
        self._launched = step

    def collect(self) -> Tensor:
        """Run the step; the rows (Σ rows, V) of its feeds.

        Raises what it fails for; its slots are then as the commands made them, or empty.
        """
        step, self._launched = self._launched, None
        if step is None:
            raise RuntimeError("no step is in flight")
        return self.run(step)

    def run(self, step: Step) -> Tensor:
        """Carry out a step: see ``collect``."""
        try:
            for command in step.commands:
                command.apply()
        except BaseException:
            for slot in step.slots:  # what each holds is not known
                slot.close()
            raise
        return self.forward(step.feeds) if step.feeds else torch.empty(0)
