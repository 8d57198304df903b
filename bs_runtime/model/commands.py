"""What is done to the contents of slots before a step's feeds.

A slot's counts say at once what it holds; its keys and values follow when the step is run that the
commands go with. So whoever plans steps never touches them, and need not be where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Contents(Protocol):
    """A slot, as whoever runs a step sees it: keys and values by index."""

    in_flight: bool

    def move(self, indices: Sequence[int], to: int) -> None:
        """Copy the entries at ``indices`` to stand one behind the other from ``to`` on."""

    def copy(self, source: Any, begin: int, end: int) -> None:
        """Copy another slot's entries from ``begin`` to ``end``, to the same indices."""

    def free(self) -> None:
        """Give all memory back."""

    def close(self) -> None:
        """Empty the slot at once."""


@dataclass(frozen=True)
class Keep:
    """The entries at ``indices`` are a path that is accepted: they come to stand from ``to`` on.

    What stands behind a slot's length is never read, so where nothing is to be moved, as when a
    slot is rolled back, there is no command either.
    """

    slot: Contents
    indices: Sequence[int]
    to: int

    @property
    def slots(self) -> tuple[Contents, ...]:
        """Those that it reads or changes."""
        return (self.slot,)

    def apply(self) -> None:
        """Carry it out."""
        self.slot.move(self.indices, self.to)


@dataclass(frozen=True)
class Copy:
    """What ``source`` has from index ``begin`` to ``end`` is the same text: it need not be fed."""

    slot: Contents
    source: Contents
    begin: int
    end: int

    @property
    def slots(self) -> tuple[Contents, ...]:
        """Those that it reads or changes."""
        return self.slot, self.source

    def apply(self) -> None:
        """Carry it out."""
        self.slot.copy(self.source, self.begin, self.end)


@dataclass(frozen=True)
class Drop:
    """Nothing of a slot is wanted any more: its memory is for others. That never fails."""

    slot: Contents

    @property
    def slots(self) -> tuple[Contents, ...]:
        """Those that it reads or changes."""
        return (self.slot,)

    def apply(self) -> None:
        """Carry it out."""
        self.slot.free()


Command = Keep | Copy | Drop
