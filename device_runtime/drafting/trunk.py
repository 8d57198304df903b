"""The window where both ends write, and what it sees is the trunk of a tree (``tree``)."""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.blocks import Proposed
from device_runtime.drafting.paths import Paths
from device_runtime.drafting.tree import lasts


class Trunk(Paths):
    """``Paths``, but that a path may begin with what had been drafted beside the last one.

    What is decided is decided by a forward of one row: what further rows take is not the trunk's.
    """

    def affords(self, rows: int) -> bool:
        """Whether drafting pays where all forwards have so many rows."""
        return self.worth.pays(self._estimates.acceptance.alpha, lasts(rows))

    def rows_drafted(
        self, now: float, proposed: Sequence[Proposed], waited_s: float, rows: int
    ) -> bool:
        """``drafted``, by a forward of so many rows."""
        assert self._asked_s is not None
        took_s = now - self._asked_s - waited_s
        return self.drafted(now, proposed, waited_s + took_s * (1.0 - 1.0 / lasts(rows)))

    def adopt(self, proposed: Sequence[Proposed], sent: int = 0) -> None:
        """The path behind the text has so many tokens already, or so many more; of those that it
        has now ``sent`` more were proposed."""
        self._chances += [one.chance for one in proposed]
        self._sent += sent
        self._ends = self._ends or any(one.ends for one in proposed)

    def _at_once(self, most: int) -> int:
        """One: what is drafted next depends on what was drafted beside it."""
        return 1
