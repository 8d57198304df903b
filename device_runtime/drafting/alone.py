"""What the draft has shown while nothing was heard of the base station: provisional tokens.

When they are shown is decided by ``offline``, which does not see the ids; here are the ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.drafter import Proposal


class Alone:
    """Provisional tokens behind the history, in the order in which they were shown.

    ``after_s``: seconds without a word, although one is due, after which the draft goes on.
    """

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self._shown: list[Proposal] = []

    @property
    def tokens(self) -> list[int]:
        """The provisional tokens that may still be accepted."""
        return [proposal.drafted.token for proposal in self._shown]

    def show(self, proposals: Sequence[Proposal]) -> list[int]:
        """These are shown, behind what has been; their tokens."""
        self._shown += proposals
        return [proposal.drafted.token for proposal in proposals]

    def meet(self, ids: Sequence[int]) -> tuple[int, bool]:
        """The history goes on with ``ids``: how many were shown, and if the next one refutes it.

        What was shown behind another token is taken back.
        """
        for place, token in enumerate(ids):
            if not self._shown:
                return place, False
            if self._shown[0].drafted.token != token:
                self._shown.clear()
                return place, True
            del self._shown[0]
        return len(ids), False

    def known(self, first: int, count: int) -> list[Proposal]:
        """Up to ``count`` of what is shown, from number ``first`` on."""
        return self._shown[first : first + count]
