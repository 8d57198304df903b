"""How far a generation has come, at one end: what outlives a connection."""

from __future__ import annotations

from dataclasses import dataclass, field

from draftlink import schemes
from draftlink.protocol.frames import Draft, Propose, Start, Verdict
from draftlink.protocol.resend import Numbering
from draftlink.schemes import Scheme

LEFT = -1  # no proposal is the next of a path with so many tokens


@dataclass
class Progress:
    """``length`` is the number of tokens of the history that both ends agree on; ``epoch`` goes up
    whenever something other than a drafted token is written, or the mode changes: drafts for an
    older one have been overtaken. ``drafts``: of each draft that waits for a verdict the positions
    that it covers.

    All counts here are positions of the history, of which each holds one token once it is written;
    so are a verdict's ``accepted`` and every ``base``. A draft's *tokens* are another count:
    several of them may be proposed for one position (see ``Draft.positions``).
    """

    generation: int = 0
    epoch: int = 0
    length: int = 0
    written: int = 0
    start: Start | None = None
    drafts: list[int] = field(default_factory=list)
    waits: bool = False  # the last of the drafts does
    first: bool = False  # the first of the drafts brings the token that was owed
    owed: bool = False  # the device owes the token after a rejection
    switching: bool = False  # once the drafts have their verdicts, the base station streams
    frames: Numbering = field(default_factory=Numbering)
    # Where both ends write: the session's newest path, where it begins, its tokens (LEFT: it does
    # not go on), and what of the text was known at the device when the last of them were proposed.
    path: int = 0
    path_base: int = 0
    proposed: int = LEFT
    known: int = 0
    depths: list[int] = field(default_factory=list)  # of the path's tokens, from its base on

    @property
    def scheme(self) -> Scheme | None:
        """What the generation's drafts are coded with, if there is one."""
        if self.start is None:
            return None
        return schemes.in_effect(self.start.scheme, greedy=self.start.sampling.greedy)

    @property
    def asks(self) -> bool:
        """Whether the draft in flight asks for more of what the token that is owed is drawn by."""
        return self.owed and bool(self.drafts)

    @property
    def expected(self) -> int:
        """The base of the next draft."""
        return self.length + sum(self.drafts)

    @property
    def agreed(self) -> int:
        """Tokens of the history of which both ends know; a token owed may still be under way."""
        return self.length - self.first

    @property
    def outstanding(self) -> int:
        """The most frames that the base station can have to send: tokens, verdicts and a switch."""
        left = 0 if self.start is None else self.start.max_tokens - self.written
        return left + len(self.drafts) + 1

    def grow(self, count: int) -> None:
        """So many tokens more are agreed on, and were written."""
        self.length += count
        self.written += count

    def rewind(self, length: int) -> None:
        """What was written behind so many tokens did not arrive, and is told again."""
        self.grow(length - self.length)

    def leave_path(self) -> None:
        """What was proposed last may not have arrived: whatever comes begins a new path."""
        self.proposed = LEFT

    def propose(self, frame: Propose) -> None:
        """Tokens of a path have been proposed."""
        if frame.path > self.path:
            self.depths = []
        end = self.reaches(frame)
        self.depths += range(end - frame.base - frame.length + 1, end - frame.base + 1)
        self.path, self.path_base, self.known = frame.path, frame.base, frame.known
        self.proposed = frame.first + frame.length

    def reaches(self, frame: Propose) -> int:
        """The position behind the last of a frame's tokens, which follow what it says."""
        known = self.depths if frame.path == self.path else []
        depth = known[frame.follows] if frame.follows >= 0 else 0
        return frame.base + depth + frame.length

    def draft(self, draft: Draft) -> None:
        """A draft has been sent or received, and what was owed with it, unless it asks for that."""
        if draft.had:
            self.drafts.append(draft.positions)
            self.waits = True
            return
        self.first = self.first or self.owed
        self.grow(self.owed)
        self.owed = False
        self.drafts.append(draft.positions)
        self.waits = draft.waits

    def judge(self, verdict: Verdict) -> None:
        """A verdict has been sent or received."""
        self.grow(verdict.accepted + (verdict.next is not None))
        self.first = False
        self.owed = bool(verdict.row)
        if verdict.closes:
            self.epoch += 1
            self.drafts.clear()
        else:
            left = verdict.accepted
            while left:
                left -= self.drafts.pop(0)
        if not self.drafts:
            self.waits = False
            if self.switching and not verdict.ended:
                self.epoch += 1
