"""How long a text is and may become: what the window knows of a generation besides the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is fixed when a generation begins: positions and numbers of tokens.

    ``begins`` is the first position that is written and ``ends`` the one behind the last. The draft
    model takes ``context`` tokens. A message holds at most ``message`` drafted tokens, and the base
    station takes at most ``flight`` that it has not judged. ``foretells``: a proposal is accepted
    exactly if the target's own token is the same. ``told``: a stream tells how likely the target
    found its tokens. ``corrects``: the device draws the token in the
    place of a rejected one, and owes it to the base station until its next block.
    """

    begins: int
    ends: int
    context: int
    message: int
    flight: int
    foretells: bool
    corrects: bool
    told: bool = False

    @property
    def follows(self) -> bool:
        """Whether what would be accepted can be learned from a stream that the draft follows."""
        return self.foretells or self.told


@dataclass
class Counts:
    """How far the text has come: ``length`` tokens of history, after ``rounds`` verdicts."""

    limits: Limits
    length: int
    rounds: int = 0

    @property
    def left(self) -> int:
        """Tokens that may still be written."""
        return self.limits.ends - self.length

    @property
    def room(self) -> int:
        """Tokens behind the history that the draft can be fed, and that may still be written.

        At most 0 once the draft's context is full.
        """
        return min(self.left, self.limits.context - self.length)
