"""The hot frames as values: what is said for every block of tokens (see ``compact`` for bytes)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TOKENS = 4096  # in a Tokens or Written frame: each is read on its own
MAX_BESIDE = 3  # candidates beside a token of a Propose: two bits say how many


@dataclass(frozen=True)
class Draft:
    """``length`` drafted tokens for the positions from ``base`` on; ``payload`` is the scheme's.

    ``waits``: the device sends nothing more until the verdict, and if all is accepted the base
    station writes one token of its own behind it; a length of 0 then means "write one token".
    Without it, drafts may follow at once (run-ahead). ``first`` is the token that the device owed
    after a rejection (``split``): it stands at ``base``, is not judged, and the drafted tokens
    follow it. ``had``, where it is not 0: nothing is drafted; of the token that the device owes it
    has had so many pairs, none of which was one, and it asks for what comes behind them.
    """

    epoch: int
    base: int
    length: int
    payload: bytes
    first: int | None = None
    waits: bool = True
    had: int = 0

    @property
    def positions(self) -> int:
        """Positions behind ``base`` that a verdict may come to fill from it.

        As many as its drafted tokens, since they follow one another; candidates beside one another
        would share a position. What this end has to decode and feed is ``length`` tokens.
        """
        return self.length


@dataclass(frozen=True)
class Verdict:
    """Of the drafts at and behind ``base``, ``accepted`` tokens stand, and ``next`` follows them.

    ``next`` is a correction where fewer were accepted than drafted, else the bonus token; None
    when the generation ended within the accepted tokens, where ``row``, by which the device draws
    the correction that it then owes, comes instead (``split``), and where whole drafts
    that did not wait were accepted. One verdict may answer several drafts of its epoch. ``ended``:
    an EOS or the token limit was reached; nothing more is drawn. ``surprisals``: where the start
    asked for them, −log2 p of each accepted token and of ``next``, in eighths of a bit, one byte
    each; ``logprobs`` likewise: see ``logprobs``.
    """

    epoch: int
    base: int
    accepted: int
    next: int | None
    ended: bool
    queue_us: int  # how long the frame waited for the model
    verify_us: int  # how long the model and the judging took
    row: bytes = b""
    surprisals: bytes = b""
    logprobs: bytes = b""

    @property
    def closes(self) -> bool:
        """Whether the epoch ends with it: something other than drafts was written, or is owed."""
        return self.next is not None or self.ended or bool(self.row)


@dataclass(frozen=True)
class Tokens:
    """Tokens that the streaming base station wrote, for the positions from ``base`` on.

    ``logprobs``: of each of them, where the start asked for them (see the module of that name);
    ``surprisals`` likewise, as a verdict has them.
    """

    epoch: int
    base: int
    ids: tuple[int, ...]
    ended: bool
    logprobs: bytes = b""
    surprisals: bytes = b""


@dataclass(frozen=True)
class Propose:
    """``length`` proposed tokens of a path, where both ends write.

    A path is what the device drafts behind the first ``base`` tokens of the text. Numbers of paths
    rise, and only the newest is alive. ``first`` of its tokens have been proposed before these.
    ``known``: tokens of the text that had reached the device. ``payload`` codes the ids in the
    context of the text before ``base`` and the path's tokens, never of what the base station has
    written since. ``goes_on``: more are to come without anything else happening; a hint.
    ``beside``: how many candidates each token has that may stand in its place, up to
    ``MAX_BESIDE``; empty where none has any. They are leaves: the path goes on from the token.
    ``behind``: the first of the tokens follows the one that was proposed so many before the last
    of those before it, or what is before the path. Then they branch off; the next ones follow it.
    """

    path: int
    base: int
    known: int
    first: int
    length: int
    payload: bytes
    goes_on: bool = True
    beside: tuple[int, ...] = ()
    behind: int = 0

    @property
    def follows(self) -> int:
        """Which of the path's tokens the first one follows, by number; -1 for what is before it."""
        return self.first - 1 - self.behind

    @property
    def nodes(self) -> int:
        """The tokens, and the candidates beside them: what has to be decoded."""
        return self.length + sum(self.beside)

    @property
    def end(self) -> int:
        """The position behind the last of the tokens, if none branches off."""
        return self.base + self.first + self.length


@dataclass(frozen=True)
class Written:
    """Tokens of the text from ``base`` on, where both ends write: what a step came to.

    The first ``accepted`` of them were proposed by the device, the others are the target's own.
    ``step_us``: what the step took; ``queue_us``: how long it waited for the model. ``surprisals``,
    ``logprobs``: see ``Verdict``. ``rows``: what the target was fed to write them, one more than
    the proposals that the step was given; None for as many as there are ids, 0 for what is told
    once more.
    """

    base: int
    ids: tuple[int, ...]
    accepted: int
    ended: bool
    queue_us: int
    step_us: int
    surprisals: bytes = b""
    rows: int | None = None
    logprobs: bytes = b""

    @property
    def fed(self) -> int:
        """Rows of the step."""
        return len(self.ids) if self.rows is None else self.rows
