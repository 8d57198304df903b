"""What the pool knows of a slot that is filled: what that cost, and what it has been worth."""

from __future__ import annotations

from dataclasses import dataclass

from bs_runtime.engine.generation import Generation
from bs_runtime.engine.prefixes import Entry


@dataclass(eq=False)
class Place:
    """A slot that is filled, or about to be."""

    entry: Entry
    generation: Generation
    tenant: str
    cost: int  # tokens that it was filled with
    bytes: int = 0  # that it holds; of the step's, the most that they need
    under_way: bool = False  # a round of it
    round_tokens: int = 0  # of its last round
    worth: int = 0  # tokens of the rounds that have ended since
    last: int = 0  # how many rounds of all had ended when its last one did

    @property
    def idle(self) -> bool:
        """Whether it may be emptied: no round of it is under way, and nobody copies from it."""
        return not self.under_way and not self.entry.slot.in_flight

    @property
    def grows(self) -> bool:
        """Whether it may have to hold more before its generation ends."""
        one = self.generation
        return not one.ended and self.entry.slot.bytes_for(one.longest) > self.bytes

    @property
    def turn_over(self) -> bool:
        """Whether its rounds have been worth what filling it cost.

        So filling slots again takes no more of the model's time than the rounds do.
        """
        return self.worth >= self.cost
