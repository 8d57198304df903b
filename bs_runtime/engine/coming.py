"""What comes again and again of a device that writes, too: how long it takes, and how much."""

from __future__ import annotations

from dataclasses import dataclass

LEARN = 0.2  # weight of the newest arrival or step


@dataclass
class Usual:
    """A running mean of something measured."""

    mean: float = 0.0
    count: int = 0

    def add(self, sample: float) -> None:
        """Something was."""
        self.count += 1
        self.mean += max(LEARN, 1.0 / self.count) * (sample - self.mean)


@dataclass(frozen=True)
class Flow:
    """Proposals of a path that come on and on, beside those ``held``: ``first`` tokens in
    ``first_s``, and ``each`` every ``every_s`` from then on."""

    held: int
    first_s: float
    first: int
    each: int
    every_s: float
    used: int  # tokens of them that the text has by now,
    alive: float  # and how likely those are the same

    def come(self, at_s: float) -> int:
        """Tokens of the path that are there by then."""
        if at_s < self.first_s:
            return self.held
        return self.held + self.first + self.each * int((at_s - self.first_s) / self.every_s)
