"""When the draft goes on alone although the base station is silent: provisional tokens.

They are shown before they are judged, and sent as drafts like any others once the link is back, so
the text that remains is the one that would have been without them. No clock, no ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.actions import Guess, Show


class Offline:
    """Provisional tokens behind the history, in the order in which they were shown.

    ``after_s`` is how many seconds without a word, although one is due, the device waits; None is
    for ever.
    """

    def __init__(self, after_s: float | None) -> None:
        self.heard_s = 0.0  # when the base station was last heard
        self._after_s = after_s
        self._outdated = False  # what is shown was drafted in an epoch that has ended
        self._ends: list[bool] = []  # of each token that is shown, whether it is an EOS

    def begins_s(self, since_s: float | None) -> float | None:
        """When provisional tokens begin, if something has been due since ``since_s``; else None."""
        if self._after_s is None or since_s is None:
            return None
        return max(self.heard_s, since_s) + self._after_s

    def next(
        self, ends: Sequence[bool], begins: int, room: int, *, busy: bool
    ) -> Show | Guess | None:
        """What is shown next, if anything can be.

        ``ends`` says of each token that has been drafted and not judged whether it is an EOS;
        ``room`` is how many tokens the draft can be fed behind the history.
        """
        shown = len(self._ends)
        if len(ends) > shown and not self._outdated:
            self._ends += ends[shown:]
            return Show(shown)
        over = bool(self._ends) and self._ends[-1]
        if busy or over or room <= shown:
            return None
        return Guess(begins, self._outdated)

    def guessed(self, *, ends: bool) -> None:
        """A token was drafted and shown."""
        self._ends.append(ends)

    def known(self, drafted: int, most: int) -> int:
        """How many shown tokens follow ``drafted`` ones, and need not be drafted once more."""
        return 0 if self._outdated else max(0, min(len(self._ends) - drafted, most))

    def outdate(self) -> None:
        """An epoch begins, which draws afresh: what is shown is not a part of its draft."""
        self._outdated = bool(self._ends)

    def accept(self, confirmed: int, *, refuted: bool) -> None:
        """The history goes on with the first ``confirmed`` shown tokens.

        If it is ``refuted``, another token than the next one follows, and all others are taken
        back.
        """
        del self._ends[:confirmed]
        if refuted:
            self._ends.clear()
        self._outdated = self._outdated and bool(self._ends)
