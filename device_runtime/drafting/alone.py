"""Going on alone while nothing is heard of the base station: provisional tokens (``offline``).

They are shown before they are judged, and sent as drafts like any others once the link is back, so
the text that stands in the end is the one that would have been without them.
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
        self.outdated = False  # what is shown is of an epoch that has ended
        self._shown: list[Proposal] = []

    def outdate(self) -> None:
        """An epoch begins, which draws afresh: what is shown may stand, but is not its draft."""
        self.outdated = bool(self._shown)

    @property
    def tokens(self) -> list[int]:
        """The provisional tokens that may still come to stand."""
        return [proposal.drafted.token for proposal in self._shown]

    def show(self, proposals: Sequence[Proposal]) -> list[int]:
        """These are shown, behind what has been; their tokens."""
        self._shown += proposals
        return [proposal.drafted.token for proposal in proposals]

    def stand(self, ids: Sequence[int]) -> int | None:
        """``ids`` stand behind the history; how many of them do so unforeseen by what was shown.

        None if all was foreseen, or nothing shown. What was shown behind another token is taken
        back.
        """
        for place, token in enumerate(ids):
            if not self._shown:
                return None
            if self._shown[0].drafted.token != token:
                self._shown.clear()
                self.outdated = False
                return place
            del self._shown[0]
            self.outdated = self.outdated and bool(self._shown)
        return None

    def known(self, drafted: int, most: int) -> list[Proposal]:
        """Proposals behind ``drafted`` tokens in flight, which need not be drafted once more."""
        return [] if self.outdated else self._shown[drafted : drafted + most]
