"""When a device that drafts for nothing tries again, while both ends write: no I/O, no clock.

Where hardly anything that it proposes comes to be accepted it rests for some tokens of the text,
and for twice as many the next time.
"""

from __future__ import annotations

TRIED = 15.0  # weight of text, which comes to 25, from which what was of no use is given up
USE = 0.03  # accepted proposals for each token of text: fewer gain less than they cost
MEMORY = 0.96  # what a token of text weighs after the next one
REST = (8, 64)  # tokens of text between two trials, at first and at the most


class Trials:
    """One generation's. ``resumes``: the length of the text at which the next token is drafted."""

    def __init__(self) -> None:
        self.rest, self.resumes = REST[0], 0
        self._text = self._accepted = 0.0  # tokens, lately, and of them accepted proposals

    def wrote(self, tokens: int, accepted: int) -> None:
        """So many tokens of the text have come, and of them accepted proposals."""
        self._text = MEMORY**tokens * self._text + tokens
        self._accepted = MEMORY**tokens * self._accepted + accepted

    def over(self, length: int, accepted: int) -> None:
        """A path is, at a length of the text; so many of its tokens were accepted last."""
        if accepted:
            self.rest = REST[0]
        elif self._text >= TRIED and self._accepted < USE * self._text:
            self.resumes = length + self.rest
            self.rest = min(2 * self.rest, REST[1])
