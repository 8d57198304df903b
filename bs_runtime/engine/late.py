"""A round whose block is not known before its first step begins.

Where both ends write, proposals go on coming while a round waits for the step of others to end.
What has come until then is in the block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bs_runtime.engine.generation import Generation, Round
from bs_runtime.model.kv import Feed
from draftlink.distribution.noise import Purpose


class Late(Round):
    """Those of ``proposed()`` that are right, and a token of the target's own: as ``next``.

    It is asked whenever a step is made, until the round is fed for the first time.
    """

    def __init__(self, generation: Generation, proposed: Callable[[], Sequence[int]]) -> None:
        super().__init__(generation, (), Purpose.STREAM)
        self._proposed = proposed
        self._begun = False

    def bind(self) -> int:
        """Ask once more, unless the round has been fed."""
        if not self._begun:
            self.drafted = list(self.generation.proposed(self._proposed()))
        return self.left

    def feed(self, limit: int) -> Feed:
        """The next tokens: see ``Round.feed``. The block stays what it is from now on."""
        self._begun = True
        return super().feed(limit)
